//! What goes wrong with a disk while nobody looks, and what must be said about it.
//!
//! The report is held against what was planted: damage below the durable watermark that the checkpoint file names is
//! reported with its file and offset, at the opening or by the read that comes to it, and never cut; damage of what was
//! never promised may be cut, and is then reported as cut. A damaged side file changes nothing that a client can see.

use oncelog::{Ack, Damage, Error, Isolation, Log, Read};
use oncelog_device::{Device, SectorDamage};
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::reads::end_of;
use super::{DATA_DIR, World};
use crate::oracle::fact::{Fact, STAMPED_BYTES, compare, frame};
use crate::plan::{End, Finale, LOGS};

/// Stands for any file of a log.
const ANY: &str = "*";

/// Damage in a segment file.
#[derive(Debug)]
pub(super) struct Planted {
    pub(super) path: PathBuf,
    bytes: Range<u64>,
}

impl World {
    /// The last end, with something done to the disk before the last opening.
    pub(super) fn finish(&mut self, finale: Finale) {
        let at = self.random.index(LOGS);
        if finale != Finale::Well && self.random.percent(70) {
            self.sync(at);
        }
        let hurt = if finale == Finale::DamagedWhileOpen { self.damage_while_open(at) } else { Vec::new() };
        if self.is_done() {
            return;
        }
        let end = self.random.pick(&[End::Close, End::Close, End::Kill, End::PowerCut]);
        let end = if hurt.is_empty() { end } else { End::Kill };
        let (survives, _) = self.end(end);
        if self.is_done() {
            return;
        }
        match finale {
            Finale::Well => self.reopen(survives, 0),
            Finale::DamagedWhileOpen if self.is_untold(at, &hurt) => {}
            Finale::DamagedWhileOpen => self.check_damaged(at, survives, hurt),
            Finale::DamagedSideFile => self.damage_side_file(at, survives),
            Finale::DamagedSegment | Finale::MissingSegment => {
                let planted = self.damage_segment(at, finale == Finale::MissingSegment);
                if !self.is_untold(at, &planted) {
                    self.check_damaged(at, survives, planted);
                }
            }
        }
    }

    /// Every log is looked at after the disk has lost or misdirected a write.
    pub(super) fn look_after_a_lie(&mut self) {
        let lies = self.device.misplaced_writes();
        let planted: Vec<Planted> = lies.into_iter().map(|(path, bytes)| Planted { path, bytes }).collect();
        self.check_damaged(0, Ack::Durable, planted);
    }

    fn directory(&self, at: usize) -> PathBuf {
        Path::new(DATA_DIR).join(&self.partitions[at].name)
    }

    /// Names with this ending in a log's directory.
    fn files(&self, at: usize, ending: &str) -> Vec<PathBuf> {
        let directory = self.directory(at);
        let entries = self.device.list(&directory).unwrap_or_default();
        entries.iter().filter(|entry| entry.name.ends_with(ending)).map(|entry| directory.join(&entry.name)).collect()
    }

    fn contents(&self, path: &Path) -> Vec<u8> {
        self.device.contents(path).ok().flatten().unwrap_or_default()
    }

    pub(super) fn damage_segment(&mut self, at: usize, missing: bool) -> Vec<Planted> {
        let segments = self.files(at, ".log");
        // That there was a first segment below those that are left nobody can tell: retention may have taken it.
        let first = usize::from(missing && segments.len() > 1);
        let chosen = first + self.random.index(segments.len() - first);
        let Some(path) = segments.get(chosen).cloned() else { return Vec::new() };
        let length = whole_batches(&self.contents(&path)).last().map_or(0, |batch| batch.end);
        if length == 0 {
            return Vec::new();
        }
        if missing {
            self.device.remove(&path).expect("a healthy disk");
            let directory = self.directory(at);
            self.device.sync_directory(&directory).expect("a healthy disk");
            return vec![Planted { path, bytes: 0..length }];
        }
        let batches = whole_batches(&self.contents(&path));
        let batch = batches[self.random.index(batches.len())].clone();
        // The CRC begins at byte 17 of a batch; leader epoch and magic before it are not all known to be wrong
        // (storage.md W11).
        let any = batch.start + 17 + self.random.below(batch.end - batch.start - 17);
        // Whoever steps over a header has to believe the offsets that stand there.
        let position = match self.random.below(4) {
            0 => batch.start + 23 + any % 4,
            1 => batch.start + [7, 7, 6, any % 6][(any % 4) as usize],
            _ => any,
        };
        let kind = self.random.pick(&[SectorDamage::Flipped, SectorDamage::Flipped, SectorDamage::Zeroed]);
        self.device.damage_sector(&path, position, kind).expect("a healthy disk");
        let sector = position / 512 * 512;
        let bytes = if kind == SectorDamage::Flipped { position..position + 1 } else { sector..sector + 512 };
        vec![Planted { path, bytes }]
    }

    /// Whether nothing on the disk tells that this is damaged. No checksum covers a base offset: where nothing was
    /// promised, the place of the last batch is what its header says, and that of the batch behind a gap, for which a
    /// torn write of the next one leaves room.
    fn is_untold(&self, at: usize, planted: &[Planted]) -> bool {
        let paths = self.files(at, ".log");
        let Some(planted) = planted.first().filter(|planted| paths.contains(&planted.path)) else { return false };
        let bytes = self.contents(&planted.path);
        let of_base = |batch: &&Range<u64>| planted.bytes.start < batch.start + 8 && planted.bytes.end > batch.start;
        let batches = whole_batches(&bytes);
        let Some(batch) = batches.iter().find(of_base) else { return false };
        let stored = &bytes[batch.start as usize + STAMPED_BYTES..batch.end as usize];
        let facts = &self.partitions[at].oracle.facts;
        let is_it = |fact: &Fact| fact.sent[STAMPED_BYTES..] == *stored;
        let Some(number) = facts.iter().rposition(is_it) else { return false };
        let is_last = Some(&planted.path) == paths.last() && batches.last() == Some(batch);
        let before = number.checked_sub(1).map_or(0, |before| facts[before].last_offset + 1);
        let (first, last) = (facts[number].first_offset, facts[number].last_offset);
        self.watermark(at) <= last && (is_last || before < first)
    }

    /// Damages an index, a snapshot, the epochs or a checkpoint file, or takes it away; then everything must be as
    /// ever.
    fn damage_side_file(&mut self, at: usize, survives: Ack) {
        let ending = self.random.pick(&[".index", ".timeindex", ".txnindex", ".snapshot", "leader-epoch-checkpoint"]);
        let files = self.files(at, ending);
        let Some(path) = files.last().filter(|_| self.random.percent(70)).or(files.first()).cloned() else {
            return self.reopen(survives, 0);
        };
        let mut bytes = self.contents(&path);
        // An index of aborted transactions has no checksum, and nothing else says which ones it left out or changed.
        if ending == ".txnindex" || self.random.percent(30) || bytes.is_empty() {
            self.device.remove(&path).expect("a healthy disk");
        } else {
            let position = self.random.index(bytes.len());
            bytes[position] ^= 1 << self.random.below(8);
            self.device.put(&path, &bytes).expect("a healthy disk");
        }
        if let Err(error) = self.open() {
            return self.violation(at, &format!("opening with damage in {}: {error}", path.display()));
        }
        let excused = ending == ".snapshot" || ending == "leader-epoch-checkpoint";
        self.check_beside_damage(at, survives, &path, excused);
    }

    /// The log must hold what it held; with a snapshot or the epochs gone only what the log still says is known.
    fn check_beside_damage(&mut self, at: usize, survives: Ack, path: &Path, excused: bool) {
        let log = self.log(at);
        let found = match super::reads::read_all(&log, 1 << 20) {
            Ok(found) => found,
            Err(error) => return self.violation(at, &format!("with damage in {}: {error}", path.display())),
        };
        let (_, wrong) = self.oracle(at).check(&found, survives);
        for reason in wrong {
            self.violation(at, &format!("with damage in {}: {reason}", path.display()));
        }
        if self.is_done() {
            return;
        }
        // Backwards, so that every read has to find its place by the index.
        let facts = self.partitions[at].oracle.from(log.log_start_offset());
        let sought = facts.iter().rev().find_map(|fact| {
            let offset = fact.first_offset.max(log.log_start_offset());
            let read = log.read(Read { isolation: Isolation::LogEnd, max_bytes: 1, ..Read::from(offset) });
            let found = read.map_err(|error| error.to_string());
            let wrong = found.map(|found| compare(std::slice::from_ref(fact), &found.data, true).1);
            wrong.unwrap_or_else(Some)
        });
        if let Some(reason) = sought {
            return self.violation(at, &format!("with damage in {}: {reason}", path.display()));
        }
        let repaired = &log.report().repaired;
        if !excused {
            let times = self.check_times(at, &[]);
            self.hold(at, times.map_err(|reason| format!("with damage in {}: {reason}", path.display())));
            self.believe_producers(at);
            self.check_views(at);
        } else if log.log_start_offset() == 0 {
            // The whole history is there: nothing may be forgotten.
            self.believe_producers(at);
        } else if repaired.is_empty() && !log.report().clean {
            // Nothing to say is right only where the file was not needed.
            self.hash(repaired.len() as u64);
        }
    }

    /// Opens every log and compares what is left, and what is said, with what was planted.
    fn check_damaged(&mut self, at: usize, survives: Ack, planted: Vec<Planted>) {
        let watermarks: Vec<i64> = (0..LOGS).map(|log| self.watermark(log)).collect();
        let tails: Vec<bool> = (0..LOGS).map(|log| self.ends_in_a_hole(log, &planted)).collect();
        let names: Vec<Vec<String>> = (0..LOGS).map(|log| self.affected(log, &planted)).collect();
        self.struck_before = self.device.faults_struck();
        if let Err(error) = self.open() {
            return self.violation(at, &format!("opening with damage {planted:?}: {error}"));
        }
        for at in 0..LOGS {
            let misdirected = planted.len() > 1 && !names[at].is_empty();
            let wrong = self.check_remains(at, survives, watermarks[at], tails[at], misdirected, &names[at]);
            if let Err(reason) = wrong {
                self.violation(at, &format!("{reason}; planted {planted:?}, watermark {}", watermarks[at]));
            }
        }
    }

    /// What the checkpoint file promises to be on the disk (storage.md 1.10).
    fn watermark(&self, at: usize) -> i64 {
        let text = self.contents(&Path::new(DATA_DIR).join("recovery-point-offset-checkpoint"));
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let partition = at.to_string();
        let ours = lines.find(|words| words.len() == 3 && words[0] == "story" && words[1] == partition);
        ours.and_then(|words| words[2].parse().ok()).unwrap_or(0)
    }

    /// Segment files of this log in which something was planted.
    pub(super) fn affected(&self, at: usize, planted: &[Planted]) -> Vec<String> {
        let directory = self.directory(at);
        let ours = planted.iter().filter(|planted| planted.path.starts_with(&directory));
        let gone = |path: &Path| self.device.length(path).is_ok_and(|length| length.is_none());
        let mut names = Vec::new();
        for planted in ours {
            names.extend(planted.path.file_name().map(|name| name.to_string_lossy().into_owned()));
            if gone(&planted.path) {
                // What a file that is gone was called is not known any more: any file of the log may be named.
                names.push(ANY.to_owned());
            }
        }
        names
    }

    /// Whether a lost write left only zeroes behind the last batch: then nobody can tell that there was more.
    fn ends_in_a_hole(&self, at: usize, planted: &[Planted]) -> bool {
        let Some(path) = self.files(at, ".log").pop() else { return false };
        let bytes = self.contents(&path);
        let end = whole_batches(&bytes).last().map_or(0, |batch| batch.end);
        let lost = planted.iter().any(|planted| planted.path == path && planted.bytes.end > end);
        lost && bytes[end as usize..].iter().all(|&byte| byte == 0)
    }

    /// Every fact that was promised is there, or something names its file and an offset at or before it.
    fn check_remains(
        &mut self,
        at: usize,
        survives: Ack,
        watermark: i64,
        hole: bool,
        misdirected: bool,
        files: &[String],
    ) -> Result<(), String> {
        let log = self.log(at);
        let oracle = &self.partitions[at].oracle;
        let start = oracle.start();
        // A log whose only file is gone looks like a new one where the checkpoint promises nothing of it.
        let looks_new = files.iter().any(|file| file == ANY) && watermark <= start && log.log_end_offset() == 0;
        if log.log_start_offset() < start && log.report().damage.is_empty() && !looks_new {
            return Err(format!("log start {} below {start}", log.log_start_offset()));
        }
        let deleted = log.log_start_offset().min(oracle.start_possible()).max(start);
        let facts = oracle.from(deleted);
        let unread = read_around(&log, facts, misdirected)?;
        let report = log.report();
        for fact in facts {
            let lost = fact.first_offset >= log.log_end_offset() || fact.last_offset < log.log_start_offset();
            let named = |list: &[Damage]| list.iter().any(|damage| names(damage, fact, files));
            let promised = fact.last_offset < watermark;
            if lost && promised && !named(&report.damage) {
                return Err(format!("cut below the watermark without a word of damage: {fact}"));
            }
            let held = fact.level >= survives || survives == Ack::Accepted;
            // That a file which was never promised is gone nobody can tell.
            let hole = hole || files.iter().any(|file| file == ANY);
            if lost && held && !hole && !named(&report.damage) && !named(&report.cut) {
                let (cut, log_end) = (&report.cut, log.log_end_offset());
                return Err(format!("lost without a word: {fact}; log end {log_end}, cut {cut:?}"));
            }
        }
        for (fact, damage) in unread {
            if !names(&damage, &fact, files) {
                return Err(format!("{fact} is said to be damaged by {damage}"));
            }
        }
        Ok(())
    }
}

/// Reads all there is, stepping over what is damaged; answers the facts that could not be read and what was said.
///
/// Where a misdirected write has put whole later batches exactly in the place of others, the log looks like one in
/// which compaction or a leader left a gap: batches carry nothing that would tell.
pub(super) fn read_around(log: &Log, facts: &[Fact], misdirected: bool) -> Result<Vec<(Fact, Damage)>, String> {
    let mut unread = Vec::new();
    let mut at = facts.partition_point(|fact| fact.last_offset < log.log_start_offset());
    while let Some(fact) = facts.get(at).filter(|fact| fact.last_offset < log.log_end_offset()) {
        let offset = fact.first_offset.max(log.log_start_offset());
        match log.read(Read { isolation: Isolation::LogEnd, max_bytes: 1, ..Read::from(offset) }) {
            Ok(fetched) => {
                let shown = frame(&fetched.data).map(|(base, _)| base);
                if misdirected && let Some(later) = facts[at..].iter().position(|fact| Some(fact.first_offset) == shown)
                {
                    at += later;
                }
                let (count, wrong) = compare(&facts[at..], &fetched.data, false);
                if let Some(wrong) = wrong {
                    return Err(format!("a read from {offset}: {wrong}"));
                }
                if end_of(&fetched.data).is_none() {
                    return Err(format!("a read from {offset} shows nothing and says nothing"));
                }
                at += count;
            }
            Err(Error::Damaged(damage)) => {
                unread.push((fact.clone(), *damage));
                at += 1;
            }
            Err(error) => return Err(format!("a read from {offset} failed with {error}")),
        }
    }
    Ok(unread)
}

/// Whether the damage is said of a file where something was planted, at or before this fact.
pub(super) fn names(damage: &Damage, fact: &Fact, files: &[String]) -> bool {
    damage.offset <= fact.last_offset && is_of(damage, files)
}

/// Whether the damage is said of one of these files.
pub(super) fn is_of(damage: &Damage, files: &[String]) -> bool {
    let file = damage.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    files.iter().any(|affected| affected == file || affected == ANY)
}

/// Where each of the whole batches at the front of a segment lies. Knows only lengths.
fn whole_batches(bytes: &[u8]) -> Vec<Range<u64>> {
    let mut batches = Vec::new();
    let mut at = 0;
    while let Some((_, length)) = frame(&bytes[at..])
        && length >= 61
        && bytes.len() - at >= length
    {
        batches.push(at as u64..(at + length) as u64);
        at += length;
    }
    batches
}

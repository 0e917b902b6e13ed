//! What the files of a log say: segments, indexes, epochs and producers, in one pass over what has to be read.
//!
//! Nothing on disk is believed over the log. A tail that was never promised is cut; damage below what was promised is
//! left alone.
//!
//! The state of the producers is rebuilt by Kafka's own steps (`LogLoader`, `ProducerStateManager`): begin at the
//! newest snapshot above the log start, else at the log start with nothing; after a crash no later than the first
//! segment that has to be looked at. So a replica of ours and one of Kafka's that load the same files agree on what is
//! open, stable and fenced. What Kafka's steps forget and we still know is remembered beside ([`kept`]): producers all
//! of whose records are gone, and batches of the window that lie below where the replay began.

mod aborted;
mod begin;
mod ends;
mod files;
pub(super) mod kept;
mod replay;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{BufferPool, Clock, Device, DeviceFile};
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::codec;
use oncelog_snapshot::{ProducerTable, Verifications};

use super::checkpoint::SnapshotDue;
use super::layout::Layout;
use super::state::Segment;
use super::types::OpenReport;
use crate::config::Config;
use crate::epochs::EpochCache;
use crate::error::Result;
use crate::index::{AbortedIndex, SegmentIndex};
use crate::segment::pieces::{Gauge, Pieces, Stretch, read_ahead};
use crate::segment::scan::scan_ahead;
use begin::Resume;
pub(in crate::log) use begin::{Begun, PutOff, supply};
pub(super) use kept::{drop_forgotten, forget_expired};
use replay::View;
pub(in crate::log) use replay::{Reach, rejoin};

/// What a recovery works with.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub device: &'a dyn Device,
    pub clock: &'a dyn Clock,
    pub buffers: &'a BufferPool,
    /// Threads that read ahead, besides the caller's.
    pub helpers: usize,
    pub gauge: &'a Gauge,
}

impl Means<'_> {
    /// Lets `body` scan the stretches, in order, while they are read ahead.
    fn read_ahead<T>(&self, stretches: &[Stretch], body: impl FnOnce(&Pieces<'_>) -> T) -> T {
        read_ahead(stretches, self.helpers, self.buffers, self.gauge, body)
    }
}

/// Everything that recovery works on and leaves behind.
pub(super) struct Recovery<'a> {
    pub device: &'a dyn Device,
    pub clock: &'a dyn Clock,
    pub dir: &'a Path,
    pub config: &'a Config,
    means: Means<'a>,
    pub clean: bool,
    pub bounds: Bounds,
    pub layout: Layout,
    pub report: OpenReport,
    pub epochs: EpochCache,
    /// The epoch file was unreadable: epochs come from the batches alone.
    pub epochs_lost: bool,
    pub epochs_dirty: bool,
    pub segments: BTreeMap<i64, Segment>,
    /// What Kafka's steps lead to.
    pub view: View,
    pub aborted: AbortedIndex,
    /// What is known besides.
    pub kept: ProducerTable,
    /// The newest table that any file holds, if the pass does not begin with it: it counts once the pass has come
    /// there.
    ahead: Option<(i64, ProducerTable)>,
    /// The pass has come there.
    ahead_met: bool,
    /// Offset of the newest file that any of this came from.
    pub newest_used: Option<i64>,
    /// What the file of ours says of its offset.
    pub memory_offset: Option<i64>,
    /// Up to here the last segment's file holds zeroes behind its data.
    pub prepared: u64,
    /// The checkpoint that the view began with, if any.
    pub begun: Option<Begun>,
    pub snapshots_due: VecDeque<SnapshotDue>,
    /// What was in memory before the log was cut.
    pub before: Option<Before<'a>>,
    /// Producers of which a batch counted that their pending verification was for.
    pub verified: BTreeSet<i64>,
    /// Append times of replayed batches lie between this and now.
    pub append_floor_ms: i64,
    starts: Starts,
    /// Base of the last segment that a snapshot was made for.
    snapshotted: Option<i64>,
}

/// What was in memory before a truncation.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    pub producers: &'a ProducerTable,
    pub verifications: &'a Verifications,
}

/// Between which offsets recovery looks, and what it may count on.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Segments below need no second look after a crash.
    pub recovery_point: i64,
    /// Everything below was promised to be on disk, by the checkpoint file: what is missing there is damage. A recovery
    /// point that the caller names says only where to look.
    pub promised: i64,
    /// The log ended here once, all of it promised: its stored recovery point, but for one that only followed the log
    /// start, which may lie inside a batch or a gap.
    pub ended: Option<i64>,
    /// Snapshots above are not used.
    pub limit: i64,
    /// Records below are deleted, whether they are still there or not.
    pub log_start: i64,
}

/// Where the parts of the pass begin.
#[derive(Clone, Copy)]
struct Starts {
    /// Base of the first segment that a crash puts in doubt: it is read whole, and so is every one behind it.
    doubt: i64,
    /// Batches that end at or above this offset count in Kafka's view.
    view: i64,
    /// Batches below that and at or above this offset are kept beside it.
    kept: i64,
}

/// Which of a segment's files are made anew from its batches.
#[derive(Clone, Copy)]
struct Rebuild {
    index: bool,
    aborted: bool,
}

/// A segment as it was found, before its batches are looked at.
struct Opened {
    base: i64,
    next_base: Option<i64>,
    file: Arc<dyn DeviceFile>,
    length: u64,
    index: Option<SegmentIndex>,
    /// Offset that the stored, plausible index ends with.
    index_end: Option<i64>,
    aborted: Option<Vec<AbortedTxn>>,
    modified_ms: i64,
}

impl<'a> Recovery<'a> {
    pub fn new(
        means: Means<'a>,
        dir: &'a Path,
        config: &'a Config,
        bounds: Bounds,
        report: OpenReport,
        layout: Layout,
    ) -> Self {
        Self {
            device: means.device,
            clock: means.clock,
            means,
            dir,
            config,
            clean: report.clean,
            bounds,
            layout,
            report,
            epochs: EpochCache::new(),
            epochs_lost: false,
            epochs_dirty: false,
            segments: BTreeMap::new(),
            view: View::default(),
            aborted: AbortedIndex::default(),
            kept: ProducerTable::new(),
            ahead: None,
            ahead_met: false,
            newest_used: None,
            memory_offset: None,
            prepared: 0,
            begun: None,
            snapshots_due: VecDeque::new(),
            before: None,
            verified: BTreeSet::new(),
            append_floor_ms: i64::MIN,
            starts: Starts { doubt: i64::MAX, view: i64::MIN, kept: i64::MAX },
            snapshotted: None,
        }
    }

    /// Reads the directory; answers the log end.
    pub fn run(&mut self) -> Result<i64> {
        let began_ns = self.clock.monotonic_ns();
        let opened = self.open_segments()?;
        let resume = self.begin_at_checkpoint(&opened)?;
        let mut found = BTreeMap::new();
        if resume.is_none() {
            self.choose_starts(&opened)?;
            found = self.find_aborted(&opened)?;
        }
        let began_ns = self.step_done("load", began_ns);
        let stretches: Vec<Stretch> = opened.iter().map(|o| self.stretch(o, resume.as_ref())).collect();
        let means = self.means;
        let end = means.read_ahead(&stretches, |ahead| self.pass(opened, found, resume, ahead))?;
        self.aborted.truncate_to(end);
        self.meet_ahead(end);
        if !self.clean {
            // After a crash Kafka loads what a snapshot at the end can say: nothing is known of decided transactions.
            self.view.txns.forget_decided_below(i64::MAX);
            // Its log start is where the data begins by then: nothing lies behind it, so no snapshot counts.
            let first_base = self.segments.first_key_value().map_or(end, |(base, _)| *base);
            if end <= self.bounds.log_start.max(first_base) && self.begun.is_none() {
                self.keep_view(end);
            }
        }
        self.step_done("scan", began_ns);
        Ok(end)
    }

    /// Goes through the segments in order; answers the log end.
    fn pass(
        &mut self,
        opened: Vec<Opened>,
        mut found: BTreeMap<i64, Vec<AbortedTxn>>,
        mut resume: Option<Resume>,
        ahead: &Pieces<'_>,
    ) -> Result<i64> {
        let last_two: Vec<i64> = opened.iter().rev().take(2).map(|o| o.base).collect();
        let mut last_end = None;
        for (stretch, mut opened) in opened.into_iter().enumerate() {
            let base = opened.base;
            if last_end.is_some_and(|end| end > base) {
                // A segment that begins below what was read before it holds nothing new.
                self.forget_segment(base, "begins below the end of the segment before it")?;
                continue;
            }
            self.check_gap(last_end, &opened)?;
            self.meet_ahead(base);
            let in_doubt = base >= self.starts.doubt;
            self.look_again(base, last_end)?;
            if base <= self.bounds.log_start && opened.next_base.is_none_or(|next| next > self.bounds.log_start) {
                self.remember_at(base);
            }
            if in_doubt || last_two.contains(&base) {
                self.snapshot_at(base)?;
            }
            let rebuild = self.rebuild(&opened);
            let found = found.remove(&base);
            let persisted = !rebuild.index && found.is_none();
            let aborted_stored = opened.aborted.as_ref().map_or(0, Vec::len);
            let aborted = opened.aborted.take().filter(|_| !in_doubt).or(found);
            for txn in aborted.into_iter().flatten() {
                self.aborted.push(txn);
            }
            let resume = resume.take_if(|resume| resume.base_offset == base && in_doubt);
            let (mut segment, goes_on) = self.recover_segment(opened, rebuild, resume, (ahead, stretch))?;
            (segment.persisted, segment.aborted_stored) = (persisted, aborted_stored);
            last_end = Some(segment.next_offset);
            self.segments.insert(base, segment);
            if goes_on.is_break() {
                break;
            }
        }
        Ok(last_end.unwrap_or(self.bounds.log_start))
    }

    fn rebuild(&self, opened: &Opened) -> Rebuild {
        let in_doubt = opened.base >= self.starts.doubt;
        Rebuild { index: in_doubt || opened.index.is_none() || self.epochs_lost, aborted: in_doubt }
    }

    /// What has to be read of a segment.
    fn stretch(&self, opened: &Opened, resume: Option<&Resume>) -> Stretch {
        let (base, rebuild) = (opened.base, self.rebuild(opened));
        let from = self.starts.view.min(self.starts.kept);
        let resume = resume.filter(|resume| resume.base_offset == base && base >= self.starts.doubt);
        let start = match (resume, &opened.index) {
            (Some(resume), _) => resume.position,
            // Below the snapshot only what lies behind the last index entry is looked at: where the segment ends.
            (None, Some(index)) if from > base && !rebuild.index => {
                let skip_to = if opened.next_base.is_some_and(|next| next <= from) { i64::MAX } else { from };
                u64::from(index.lookup_offset(skip_to).position)
            }
            _ => 0,
        };
        Stretch { file: opened.file.clone(), range: start..opened.length }
    }

    /// Notes how long a step took; answers when the next one begins.
    fn step_done(&mut self, name: &'static str, began_ns: u64) -> u64 {
        let now_ns = self.clock.monotonic_ns();
        self.report.steps.push((name, now_ns.saturating_sub(began_ns) as f64 / 1e6));
        now_ns
    }

    /// Base of the first segment that a crash puts in doubt.
    fn doubt(&self, opened: &[Opened], recovery_point: i64) -> i64 {
        let doubtful = |o: &&Opened| !self.clean && o.next_base.is_none_or(|next| next > recovery_point);
        opened.iter().find(doubtful).map_or(i64::MAX, |o| o.base)
    }

    /// A crash makes Kafka look at one segment after the other, and load a snapshot of what was before each: that
    /// forgets producers. It stands where the segment before ends; up to the log start there is none.
    fn look_again(&mut self, base: i64, last_end: Option<i64>) -> Result<()> {
        if base < self.starts.doubt || self.begun.is_some() {
            return Ok(());
        }
        let nothing_before = last_end.is_some_and(|end| end <= self.bounds.log_start);
        if base <= self.bounds.log_start || (nothing_before && self.report.snapshot_offset.is_none()) {
            self.keep_view(base);
        } else if base > self.starts.doubt {
            if last_end == Some(base) {
                self.snapshot_at(base)?;
            }
            self.forget_expired();
        }
        Ok(())
    }

    fn path(&self, base: i64, kind: Kind) -> PathBuf {
        self.dir.join(segment_file_name(base, kind))
    }

    /// Loads the snapshots that the pass begins with, and says which batches it takes.
    fn choose_starts(&mut self, opened: &[Opened]) -> Result<()> {
        let Bounds { recovery_point, limit, log_start, .. } = self.bounds;
        let doubt = self.doubt(opened, recovery_point);
        // As in Kafka: a crash leaves the log start at the value of its checkpoint, a clean load raises it to the data.
        let first_base = opened.first().map_or(log_start, |o| o.base);
        let start = if self.clean { log_start.max(first_base) } else { log_start };
        let mut view = start;
        if self.clean && self.before.is_none() {
            self.pass_over_strays(opened);
        }
        let chosen = self.newest_snapshot(start, limit.min(doubt))?;
        let knows_windows = chosen.as_ref().is_some_and(|(_, loaded)| loaded.is_whole());
        if let Some((offset, loaded)) = chosen {
            view = offset;
            if !knows_windows {
                let name = segment_file_name(offset, Kind::Snapshot);
                let found = format!("{name}: {}; read from the log what it holds", files::OTHER_PART);
                self.report.repaired.push(found);
            }
            (self.report.snapshot_offset, self.newest_used) = (Some(view), Some(view));
            self.append_floor_ms = newest_append_ms(&loaded.table);
            self.view = View::from_table(offset, loaded.table);
            self.forget_expired();
            if planted(Bug::ExpiryBeforeReplay) {
                drop_forgotten(&mut self.view.producers, self.clock.now_ms(), self.config.producer_id_expiration_ms);
            }
        }
        self.view.reach.complete_from = view;
        self.starts = Starts { doubt, view, kept: i64::MAX };
        self.ahead = self.newest_memory(limit)?;
        if !knows_windows {
            self.starts.kept = i64::MIN;
            if let Some((offset, table)) = self.memory_below(view, limit)? {
                self.append_floor_ms = newest_append_ms(&table);
                (self.kept, self.starts.kept) = (table, offset);
            }
        }
        self.newest_used = self.ahead.as_ref().map(|(offset, _)| *offset).max(self.newest_used);
        Ok(())
    }

    /// A clean load in Kafka begins at the base of a segment or at the newest snapshot of all, if that lies behind
    /// every base. It need not lie within the log: then the load goes back to a base, over all others.
    fn pass_over_strays(&mut self, opened: &[Opened]) {
        let is_base = |offset: i64| opened.binary_search_by_key(&offset, |o| o.base).is_ok();
        let last_base = opened.last().map_or(-1, |o| o.base);
        let newest = self.layout.snapshots.last().copied().filter(|newest| *newest > last_base);
        self.layout.snapshots.retain(|offset| is_base(*offset) || Some(*offset) == newest);
    }

    /// The segment that holds the log start is where a truncation may come back to, and what lies before it may be
    /// removed: our file must know the producers there.
    fn remember_at(&mut self, base: i64) {
        let newest = self.memory_offset.unwrap_or(-1).max(if self.starts.kept > base { -1 } else { self.starts.kept });
        if self.report.snapshot_offset.is_none() && base > newest && !self.kept.is_empty() {
            self.remember_in_file(base);
        }
    }

    /// Kafka's load leaves a snapshot at the bases of the last two segments and of those in doubt.
    fn snapshot_at(&mut self, base: i64) -> Result<()> {
        let known = self.layout.snapshots.contains(&base);
        // What stands in front of a checkpoint's replay comes from the same memory.
        let stands = known && (base <= self.starts.doubt || self.begun.is_some());
        if stands || self.snapshotted == Some(base) || base <= self.starts.view.max(self.bounds.log_start) {
            return Ok(());
        }
        self.snapshotted = Some(base);
        let meta = codec::SnapshotMeta {
            log_end_offset: base,
            durable_offset: base.min(self.bounds.recovery_point),
            sealed: None,
            log_id: None,
        };
        // What was put off could not be told from what comes behind this offset.
        self.supply_all()?;
        let name = segment_file_name(base, Kind::Snapshot).to_string();
        let due = match self.begun {
            // Many perhaps: it is written in the background.
            Some(_) => SnapshotDue::view(name, self.view.producers.freeze(), meta, false),
            None => {
                let stored = if known { self.load_snapshot(base)? } else { None };
                let mut all = self.remembered_with(stored.as_ref().map(|stored| &stored.table), base);
                SnapshotDue::ready(name, codec::encode(&mut all, &meta))
            }
        };
        self.snapshots_due.push_back(due);
        if !self.layout.snapshots.contains(&base) {
            self.layout.snapshots.push(base);
            self.layout.snapshots.sort_unstable();
        }
        Ok(())
    }

    /// Reads what has to be read of one segment. Breaks if nothing behind it belongs to the log.
    fn recover_segment(
        &mut self,
        mut opened: Opened,
        rebuild: Rebuild,
        resume: Option<Resume>,
        (ahead, stretch): (&Pieces<'_>, usize),
    ) -> Result<(Segment, ControlFlow<()>)> {
        let base = opened.base;
        let index = if rebuild.index { None } else { opened.index.take() };
        let now_ms = self.clock.now_ms();
        let mut segment = Segment {
            grown_ms: opened.modified_ms.min(now_ms),
            has_index_files: !rebuild.index,
            ..Segment::empty(base, opened.file.clone(), self.config, now_ms)
        };
        if let Some(index) = index {
            segment.index = index;
        }
        let mut expected = base;
        if let Some(resume) = resume {
            expected = resume.next_offset;
            segment.index = resume.index;
            // Stale, as while the log ran.
            segment.has_index_files = opened.index.is_some();
            resume.aborted.into_iter().for_each(|txn| self.aborted.push(txn));
        }
        let end = scan_ahead(ahead, stretch, expected, |position, view| {
            self.take_batch(&mut segment, position, &view, rebuild)?;
            Ok(ControlFlow::Continue(()))
        })?;
        if ahead.begins_within(stretch) {
            segment.first_batch_timestamp = files::first_timestamp(&*opened.file, base, opened.length);
        }
        if rebuild.index && opened.next_base.is_some() {
            let _ = segment.index.seal();
        }
        if !rebuild.index {
            segment.index.restart_counter();
        }
        (segment.size, segment.next_offset, segment.data_end) = (end.position, end.next_offset, end.next_offset);
        let goes_on = self.judge(&mut segment, &opened, end)?;
        // A crash makes Kafka look at the batches one by one.
        let is_set = base < self.starts.doubt;
        self.view.end_set(is_set.then(|| base.max(self.starts.view)));
        Ok((segment, goes_on))
    }
}

fn newest_append_ms(table: &ProducerTable) -> i64 {
    table.iter().map(|(_, entry)| entry.last_append_ms).max().unwrap_or(i64::MIN)
}

//! What the files of a log say: segments, indexes, epochs and producers, in one pass over what has to be read.
//!
//! Nothing on disk is believed over the log. The pass begins at the newest readable producer snapshot, or farther back
//! where an index has to be rebuilt. A tail that was never promised is cut; damage below what was promised is left alone.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncelog_device::{Clock, Device, DeviceFile, OpenMode};
use oncelog_formats::BatchView;
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::txn_index;
use oncelog_snapshot::codec::{self, Loaded};
use oncelog_snapshot::{AdmitOptions, Incoming, OpenTxns, Origin, ProducerTable, Verdict, absorb, admit};

use super::checkpoint::SnapshotDue;
use super::layout::Layout;
use super::state::Segment;
use super::types::OpenReport;
use crate::config::Config;
use crate::epochs::EpochCache;
use crate::error::{Damage, Result};
use crate::index::{AbortedIndex, SegmentIndex};
use crate::segment::incoming;
use crate::segment::scan::{ScanEnd, Stop, scan};

/// Everything that recovery works on and leaves behind.
pub(super) struct Recovery<'a> {
    pub device: &'a dyn Device,
    pub clock: &'a dyn Clock,
    pub dir: &'a Path,
    pub config: &'a Config,
    pub clean: bool,
    pub bounds: Bounds,
    pub layout: Layout,
    pub report: OpenReport,
    pub epochs: EpochCache,
    /// The epoch file was unreadable: epochs come from the batches alone.
    pub epochs_lost: bool,
    pub epochs_dirty: bool,
    pub segments: BTreeMap<i64, Segment>,
    pub producers: ProducerTable,
    pub txns: OpenTxns,
    pub aborted: AbortedIndex,
    pub snapshots_due: VecDeque<SnapshotDue>,
    /// Append times of replayed batches lie between this and now.
    pub append_floor_ms: i64,
    /// A snapshot newer than the one that the replay begins with: it may remember what the log no longer holds.
    pub ahead: Option<(i64, ProducerTable)>,
}

/// Between which offsets recovery looks, and what it may count on.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Segments below need no second look after a crash.
    pub recovery_point: i64,
    /// Everything below was promised to be on disk, by the checkpoint file: what is missing there is damage. A recovery
    /// point that the caller names says only where to look.
    pub promised: i64,
    /// Snapshots above are not used.
    pub limit: i64,
}

/// Which of a segment's side files are made anew from its batches.
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
    aborted: Option<Vec<txn_index::AbortedTxn>>,
    modified_ms: i64,
}

impl Recovery<'_> {
    /// Reads the directory; answers the log end.
    pub fn run(&mut self) -> Result<i64> {
        let limit = self.bounds.limit;
        let opened = self.open_segments()?;
        let newest = self.load_snapshot(limit)?;
        let suspicious = newest.as_ref().is_none_or(|(_, loaded)| {
            loaded.table.iter().any(|(_, p)| p.coordinator_epoch >= 0 || p.txn_first_offset.is_some())
        });
        let needs = |o: &Opened| {
            let index = self.must_rebuild(o);
            Rebuild { index, aborted: index || (o.aborted.is_none() && suspicious) }
        };
        let rebuilt: Vec<Rebuild> = opened.iter().map(needs).collect();
        let first_rebuilt = opened.iter().zip(&rebuilt).find(|(_, r)| r.aborted).map(|(o, _)| o.base);
        let start = match (newest, first_rebuilt) {
            (Some((offset, loaded)), Some(base)) if offset > base => {
                self.ahead = Some((offset, loaded.table));
                self.load_snapshot(base.min(limit))?
            }
            (newest, _) => newest,
        };
        let mut from = i64::MIN;
        if let Some((offset, loaded)) = start {
            from = offset;
            self.report.snapshot_offset = Some(offset);
            self.adopt(loaded);
        }
        let mut last_end = None;
        for (opened, rebuild) in opened.into_iter().zip(rebuilt) {
            let base = opened.base;
            if last_end.is_some_and(|end| end > base) {
                // A segment that begins below what was read before it holds nothing new.
                self.forget_segment(base, "begins below the end of the segment before it")?;
                continue;
            }
            self.check_gap(last_end, &opened)?;
            self.snapshot_at(base, from)?;
            let (segment, goes_on) = self.recover_segment(opened, rebuild, from)?;
            last_end = Some(segment.next_offset);
            self.segments.insert(base, segment);
            if goes_on.is_break() {
                break;
            }
        }
        self.drop_segments_behind(last_end)?;
        let end = last_end.unwrap_or(0);
        self.aborted.truncate_to(end);
        self.catch_up(end);
        Ok(end)
    }

    /// Takes from the newer snapshot what the replay could not know, once it has come to its offset.
    fn catch_up(&mut self, reached: i64) {
        if self.ahead.as_ref().is_none_or(|(offset, _)| *offset > reached) {
            return;
        }
        let (_, mut table) = self.ahead.take().expect("looked at above");
        table.expire(self.clock.now_ms(), self.config.producer_id_expiration_ms);
        for (id, entry) in table.iter() {
            match self.producers.get(id) {
                None => {
                    self.producers.put(id, entry);
                    if let Some(first_offset) = entry.txn_first_offset {
                        self.txns.start(id, first_offset);
                    }
                }
                Some(mine) if (mine.epoch, mine.last_offset()) == (entry.epoch, entry.last_offset()) => {
                    let mut richer = if mine.batches().len() < entry.batches().len() { entry } else { mine };
                    richer.last_append_ms = entry.last_append_ms;
                    self.producers.put(id, richer);
                }
                Some(_) => {}
            }
        }
    }

    fn adopt(&mut self, loaded: Loaded) {
        self.append_floor_ms = loaded.table.iter().map(|(_, p)| p.last_append_ms).max().unwrap_or(i64::MIN);
        self.producers = loaded.table;
        let now_ms = self.clock.now_ms();
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms);
        self.txns = OpenTxns::from_table(&self.producers);
    }

    fn path(&self, base: i64, kind: Kind) -> PathBuf {
        self.dir.join(segment_file_name(base, kind))
    }

    fn open_segments(&mut self) -> Result<Vec<Opened>> {
        let bases = self.layout.bases.clone();
        let modified: BTreeMap<String, i64> =
            self.device.list(self.dir)?.into_iter().map(|e| (e.name, e.modified_ms)).collect();
        let mut opened = Vec::with_capacity(bases.len());
        if !self.clean {
            // A dead process may have left names that are not on disk yet either.
            self.device.sync_directory(self.dir)?;
        }
        for (i, &base) in bases.iter().enumerate() {
            let file = self.device.open(&self.path(base, Kind::Log), OpenMode::Write)?;
            if !self.clean {
                // What a dead process wrote may not be on disk yet; it must be before anything follows from it.
                file.sync()?;
            }
            let length = file.length()?;
            let (index, index_end) = self.load_index(base, length, &*file)?;
            let aborted = self.load_aborted(base, bases.get(i + 1).copied())?;
            let modified_ms = modified.get(&segment_file_name(base, Kind::Log)).copied().unwrap_or(0);
            opened.push(Opened {
                base,
                next_base: bases.get(i + 1).copied(),
                file,
                length,
                index,
                index_end,
                aborted,
                modified_ms,
            });
        }
        Ok(opened)
    }

    /// The index as stored, if its last entry points where it says.
    fn load_index(
        &mut self,
        base: i64,
        length: u64,
        file: &dyn DeviceFile,
    ) -> Result<(Option<SegmentIndex>, Option<i64>)> {
        let limit = length.max(64 << 20);
        let offsets = self.device.read_small(&self.path(base, Kind::OffsetIndex), limit)?;
        let times = self.device.read_small(&self.path(base, Kind::TimeIndex), limit)?;
        let (Some(offsets), Some(times)) = (offsets, times) else { return Ok((None, None)) };
        let (index, findings) = SegmentIndex::from_bytes(base, self.config, &offsets, &times);
        let mut walker = crate::segment::walk::Walker::new(file, length);
        let mut sound = |entry: &oncelog_formats::offset_index::OffsetEntry| {
            walker.proves(u64::from(entry.position), base, entry.offset).unwrap_or(false)
        };
        let entries = index.offset_entries();
        let first_sound = entries.first().is_none_or(&mut sound);
        let ordered = findings
            .iter()
            .all(|f| f.partial_bytes == 0 && f.first_not_increasing.is_none() && f.first_out_of_range.is_none());
        let index_end = entries.last().map(|e| e.offset).filter(|_| first_sound && ordered);
        let usable = first_sound && findings.iter().all(|f| f.is_clean()) && entries.last().is_none_or(&mut sound);
        if !usable {
            self.report.repaired.push(format!("index of segment {base} is not what the log says: rebuilt"));
        }
        Ok((usable.then_some(index), index_end))
    }

    fn load_aborted(&mut self, base: i64, next_base: Option<i64>) -> Result<Option<Vec<txn_index::AbortedTxn>>> {
        let path = self.path(base, Kind::TxnIndex);
        let Some(bytes) = self.device.read_small(&path, 1 << 30)? else { return Ok(None) };
        let in_segment = |txn: &txn_index::AbortedTxn| {
            txn.last_offset >= base && next_base.is_none_or(|next| txn.last_offset < next)
        };
        match txn_index::decode_all(&bytes) {
            Ok((entries, findings)) if findings.is_clean() && entries.iter().all(in_segment) => Ok(Some(entries)),
            _ => {
                self.report.repaired.push(format!("{}: unreadable, rebuilt", path.display()));
                Ok(None)
            }
        }
    }

    fn must_rebuild(&self, opened: &Opened) -> bool {
        let unsure = !self.clean && opened.next_base.is_none_or(|next| next > self.bounds.recovery_point);
        unsure || opened.index.is_none() || self.epochs_lost
    }

    /// The newest readable snapshot at or below `limit`. Unreadable ones are kept aside under another name.
    fn load_snapshot(&mut self, limit: i64) -> Result<Option<(i64, Loaded)>> {
        for offset in self.layout.snapshots.clone().into_iter().rev().filter(|o| *o <= limit) {
            let path = self.path(offset, Kind::Snapshot);
            let bytes = self.device.read_small(&path, super::describe::SNAPSHOT_LIMIT_BYTES)?.unwrap_or_default();
            match codec::decode(&bytes) {
                Ok(loaded) => return Ok(Some((offset, loaded))),
                Err(reason) => {
                    let aside =
                        self.dir.join(format!("{}.unreadable-oncelog", segment_file_name(offset, Kind::Snapshot)));
                    self.device.rename(&path, &aside)?;
                    self.layout.snapshots.retain(|o| *o != offset);
                    self.report
                        .repaired
                        .push(format!("{}: {reason}; kept aside, an older one is used", path.display()));
                }
            }
        }
        Ok(None)
    }

    /// Kafka's recovery leaves a snapshot at each base that it passes; where one is missing it is made again.
    fn snapshot_at(&mut self, base: i64, from: i64) -> Result<()> {
        let is_first = self.segments.is_empty();
        if is_first || base <= from || self.layout.snapshots.contains(&base) {
            return Ok(());
        }
        let meta = codec::SnapshotMeta {
            log_end_offset: base,
            durable_offset: base.min(self.bounds.recovery_point),
            sealed: None,
            log_id: None,
        };
        self.snapshots_due.push_back(SnapshotDue::of(&mut self.producers, meta));
        self.layout.snapshots.push(base);
        self.layout.snapshots.sort_unstable();
        Ok(())
    }

    /// Offsets between two segments that neither holds: did the leader or compaction leave them out, or are they lost?
    fn check_gap(&mut self, last_end: Option<i64>, opened: &Opened) -> Result<()> {
        let Some(end) = last_end.filter(|end| *end < opened.base) else { return Ok(()) };
        let previous = *self.segments.last_key_value().expect("there is an end").0;
        let sealed = self.sealed_before(opened.base)?;
        let lost = match sealed {
            Some(sealed) => sealed.base_offset != previous || sealed.next_offset != end,
            None => self.layout.orphans.iter().any(|o| (end..opened.base).contains(o)),
        };
        if lost {
            let path = self.path(end, Kind::Log);
            let reason = format!("records {end} to {} are missing", opened.base - 1);
            self.note_damage(Damage { path, position: 0, offset: end, reason });
        }
        Ok(())
    }

    /// What the snapshot at a roll remembers of the segment that it closed.
    fn sealed_before(&self, base: i64) -> Result<Option<oncelog_formats::snapshot::SealedSegment>> {
        let path = self.path(base, Kind::Snapshot);
        let Some(bytes) = self.device.read_small(&path, super::describe::SNAPSHOT_LIMIT_BYTES)? else {
            return Ok(None);
        };
        Ok(codec::decode(&bytes).ok().and_then(|l| l.meta).and_then(|m| m.sealed))
    }

    fn note_damage(&mut self, damage: Damage) {
        tracing::error!(%damage, "damage below what was promised: the log is read-only around it");
        self.report.damage.push(damage);
    }

    /// Reads what has to be read of one segment. Breaks if nothing behind it belongs to the log.
    fn recover_segment(
        &mut self,
        mut opened: Opened,
        rebuild: Rebuild,
        from: i64,
    ) -> Result<(Segment, ControlFlow<()>)> {
        let base = opened.base;
        let index = opened.index.take().filter(|_| !rebuild.index);
        // Below the snapshot only what lies behind the last index entry is looked at: where the segment ends.
        let start = match &index {
            Some(index) if from > base => {
                let skip_to = if opened.next_base.is_some_and(|next| next <= from) { i64::MAX } else { from };
                index.lookup_offset(skip_to)
            }
            _ => 0,
        };
        let mut segment = Segment {
            base_offset: base,
            file: opened.file.clone(),
            size: 0,
            next_offset: base,
            data_end: base,
            index: index.unwrap_or_else(|| SegmentIndex::new(base, self.config)),
            first_batch_timestamp: None,
            created_ms: self.clock.now_ms(),
            grown_ms: opened.modified_ms.min(self.clock.now_ms()),
            damage: None,
            persisted: !rebuild.aborted,
            has_index_files: !rebuild.index,
        };
        for txn in opened.aborted.take().filter(|_| !rebuild.aborted).into_iter().flatten() {
            self.aborted.push(txn);
        }
        let file = opened.file.clone();
        let end = scan(&*file, start, opened.length, base, |position, view| {
            self.take_batch(&mut segment, position, &view, rebuild, from)?;
            Ok(ControlFlow::Continue(()))
        })?;
        if start > 0 {
            segment.first_batch_timestamp = first_timestamp(&*file, opened.length);
        }
        if rebuild.index && opened.next_base.is_some() {
            let _ = segment.index.seal();
        }
        if !rebuild.index {
            segment.index.restart_counter();
        }
        (segment.size, segment.next_offset, segment.data_end) = (end.position, end.next_offset, end.next_offset);
        let goes_on = self.judge(&mut segment, &opened, end)?;
        Ok((segment, goes_on))
    }

    fn take_batch(
        &mut self,
        segment: &mut Segment,
        position: u64,
        view: &BatchView<'_>,
        rebuild: Rebuild,
        from: i64,
    ) -> Result<()> {
        let header = view.header();
        self.report.batches_scanned += 1;
        self.report.bytes_scanned += header.size_bytes() as u64;
        segment.first_batch_timestamp.get_or_insert(header.max_timestamp);
        if rebuild.index {
            segment.index_batch(position, header);
            if header.partition_leader_epoch > self.epochs.latest().unwrap_or(-1) {
                self.epochs_dirty |=
                    self.epochs.assign(header.partition_leader_epoch, header.base_offset).unwrap_or(false);
            }
        } else {
            segment.index.note_timestamp(header.max_timestamp, header.last_offset());
        }
        self.catch_up(header.base_offset);
        if header.last_offset() >= from
            && let Some(batch) = incoming(view)?
        {
            self.report.batches_replayed += 1;
            self.replay(&batch, rebuild.aborted);
        }
        Ok(())
    }

    /// What stands in the log counts, whatever the rules say; only what the rules say of it is reported.
    fn replay(&mut self, batch: &Incoming, rebuild_aborted: bool) {
        let now_ms = self.clock.now_ms();
        let append_ms = if batch.max_timestamp < 0 {
            now_ms
        } else {
            batch.max_timestamp.clamp(self.append_floor_ms.min(now_ms), now_ms)
        };
        let options = AdmitOptions {
            origin: Origin::Replication,
            verification_enabled: false,
            txn_version: None,
            guard: None,
            now_ms: append_ms,
        };
        let id = batch.producer_id;
        let (known, hint) = self.producers.look(id, batch.epoch, batch.base_sequence, batch.last_sequence);
        match admit(&known, None, None, batch, &options) {
            Verdict::Append { update, completed, started_txn, .. } => {
                self.producers.apply(id, &update, hint);
                if started_txn {
                    self.txns.start(batch.producer_id, batch.first_offset);
                }
                if let Some(completed) = completed {
                    let last_stable_offset = self.txns.complete(&completed);
                    if rebuild_aborted && !completed.commit {
                        self.aborted.push(txn_index::AbortedTxn {
                            producer_id: completed.producer_id,
                            first_offset: completed.first_offset,
                            last_offset: completed.last_offset,
                            last_stable_offset,
                        });
                    }
                }
            }
            Verdict::Refuse(refusal) => {
                self.report.repaired.push(format!("offset {}: {refusal}; kept as it stands", batch.first_offset));
                self.producers.apply(id, &absorb(&known.standing, batch, append_ms), hint);
            }
            Verdict::Duplicate(_) => {}
        }
    }

    /// What lies behind the last good batch: nothing, a tail to cut, or damage.
    fn judge(&mut self, segment: &mut Segment, opened: &Opened, end: ScanEnd) -> Result<ControlFlow<()>> {
        let path = opened.file.path();
        let known_end = opened.index_end.unwrap_or(i64::MIN);
        let promised = if self.clean && opened.next_base.is_some() { i64::MAX } else { self.bounds.promised };
        let reason = match &end.stop {
            Stop::End if opened.next_base.is_some() && known_end >= end.next_offset => {
                format!("the index knows offset {known_end}, the file ends before it")
            }
            Stop::End if opened.next_base.is_none() && end.next_offset < self.bounds.promised => {
                format!("the log ends here, everything below offset {} was promised", self.bounds.promised)
            }
            Stop::End => return Ok(ControlFlow::Continue(())),
            Stop::Zeroes => "zeroes".to_string(),
            Stop::Broken(reason) => reason.clone(),
        };
        let damage = Damage { path, position: end.position, offset: end.next_offset, reason };
        let complete = opened.next_base == Some(end.next_offset);
        if !complete && end.next_offset < promised.min(opened.next_base.unwrap_or(i64::MAX)) {
            if let Some(next) = opened.next_base {
                segment.next_offset = next;
            }
            segment.damage = Some(damage.clone());
            self.note_damage(damage);
            return Ok(ControlFlow::Continue(()));
        }
        if end.stop == Stop::End {
            return Ok(ControlFlow::Continue(()));
        }
        opened.file.set_length(end.position)?;
        opened.file.sync()?;
        if end.stop != Stop::Zeroes {
            tracing::warn!(%damage, "torn tail cut off");
            self.report.cut.push(damage);
        }
        Ok(if complete || opened.next_base.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }

    /// Segments behind one that had to be cut were never promised, and what they hold does not follow on.
    fn drop_segments_behind(&mut self, last_end: Option<i64>) -> Result<()> {
        let Some(end) = last_end else { return Ok(()) };
        let last = *self.segments.last_key_value().expect("there is an end").0;
        for base in self.layout.bases.clone().into_iter().filter(|b| *b > last) {
            self.forget_segment(base, &format!("lies behind the cut at offset {end}"))?;
        }
        Ok(())
    }

    pub(super) fn forget_segment(&mut self, base: i64, reason: &str) -> Result<()> {
        self.report.repaired.push(format!("segment {base} {reason}: set aside as .deleted"));
        for kind in Kind::ALL {
            let from = self.path(base, kind);
            if self.device.length(&from)?.is_some() {
                let to = self.dir.join(format!("{}.deleted", segment_file_name(base, kind)));
                self.device.rename(&from, &to)?;
            }
        }
        self.layout.snapshots.retain(|o| *o != base);
        Ok(())
    }
}

/// Largest timestamp of the first batch in the file.
fn first_timestamp(file: &dyn DeviceFile, length: u64) -> Option<i64> {
    let mut walker = crate::segment::walk::Walker::new(file, length);
    walker.header(0).ok().flatten().map(|found| found.header.max_timestamp)
}

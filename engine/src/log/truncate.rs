//! Truncate: cut the files, then let memory follow by the same pass that opens a log.
//!
//! Rewinding producers, indexes and epochs in memory was not chosen: there would be two ways to the same state, and the
//! second one would be exercised only by replicas that diverge.

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::txn_index;
use oncelog_snapshot::{OpenTxns, ProducerTable};
use parking_lot::{MutexGuard, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::ops::Range;

use super::Shared;
use super::open::{new_segment, recover, staging_behind};
use super::recover::kept::MEMORY_FILE;
use super::recover::{Before, Bounds, Means, Reach, Recovery, drop_forgotten};
use super::state::{Segment, State};
use super::types::OpenReport;
use super::undurable::BeforeCut;
use super::upkeep::latch;
use crate::checkpoints::Offsets;
use crate::error::{Damage, Error, Result};
use crate::index::AbortedIndex;
use crate::segment::pieces::Gauge;
use crate::segment::walk::Walker;

/// A truncation, with nobody between deciding for this log and what follows from it.
struct Cut<'a> {
    before: &'a BeforeCut,
    unmarked: Vec<Range<i64>>,
    _no_decision: RwLockWriteGuard<'a, ()>,
}

impl<'a> Cut<'a> {
    fn begin(before: &'a BeforeCut) -> Self {
        let no_decision = before.order.write();
        Self { before, unmarked: (before.unmarked)(), _no_decision: no_decision }
    }
}

impl Shared {
    pub(crate) fn truncate_to(&self, offset: i64) -> Result<i64> {
        if offset < 0 {
            return Err(Error::InvalidRequest(format!("cannot truncate to the negative offset {offset}")));
        }
        let cut = self.before_cut.get().map(Cut::begin);
        self.upkeep()?;
        let _one = self.upkeep.lock();
        let nobody_spills = self.spilling.lock();
        drop(self.all_here(&nobody_spills)?);
        let mut state = self.quiesce()?;
        self.forget_spill(&mut state)?;
        state.check_writable()?;
        let end = state.log_end();
        if offset >= end {
            state.epochs_dirty |= state.epochs.truncate_from_end(end);
            drop(state);
            self.store_after_truncation(end, false)?;
            return Ok(end);
        }
        self.tell_cut(&mut state, offset, cut.as_ref())?;
        if offset < *state.segments.first_key_value().expect("a log has a segment").0 {
            return self.start_again_at(state, offset, offset);
        }
        self.lower_recovery_point(&state, offset)?;
        if !planted(Bug::CheckpointOfWhatWasCut) {
            self.forget_checkpoints(&mut state)?;
        }
        let listed = self.cut_aborted(&mut state, offset);
        listed.map_err(|error| if error.is_full() { error } else { give_up(&mut state, error) })?;
        let size = self.cut_files(&mut state, offset).map_err(|error| give_up(&mut state, error))?;
        let config = state.config.clone();
        // What was promised of the segment that was cut is gone by intent; the pass says where its data ends now.
        let kept = state.active().base_offset;
        let log_start = state.log_start.min(offset);
        let bounds = Bounds { recovery_point: kept, promised: kept, ended: None, limit: offset, log_start };
        let clean = OpenReport { clean: true, ..OpenReport::default() };
        let producers = std::mem::take(&mut state.producers);
        let verifications = state.verifications.clone();
        let before = Some(Before { producers: &producers, verifications: &verifications });
        let (device, clock, buffers, gauge) = (&*self.device, &*self.clock, &*self.buffers, &Gauge::default());
        let means = Means { device, clock, buffers, helpers: 0, gauge };
        let recovered = recover(means, &self.dir, &config, &clean, bounds, before);
        let mut recovered = recovered.map_err(|error| give_up(&mut state, error))?;
        if let Some(damage) = damage_before(&recovered, size) {
            // All that was left had been synced: the next opening is to miss it too.
            let offsets = Offsets { recovery_point: Some(offset), ..Offsets::default() };
            self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
            return Err(give_up(&mut state, Error::Damaged(Box::new(damage))));
        }
        recovered.keep_from(&producers, offset);
        // Kafka takes the batches that it reads again for those that were asked about.
        let verified = std::mem::take(&mut recovered.verified);
        verified.into_iter().for_each(|id| state.verifications.clear(id));
        let memory_offset = recovered.memory_offset.unwrap_or(-1);
        if recovered.memory_offset.is_some_and(|memory| memory > offset) {
            recovered.remember_in_file(offset);
        }
        state.producers = recovered.producers(offset);
        if planted(Bug::TruncationForgetsProducers) {
            state.producers = ProducerTable::new();
        }
        if state.producers.any_missing_page().is_none() {
            drop_forgotten(&mut state.producers, self.clock.now_ms(), config.producer_id_expiration_ms);
        }
        state.reach = recovered.view.reach;
        state.txns = recovered.view.txns;
        state.aborted = recovered.aborted;
        state.newest_snapshot = recovered.layout.snapshots.last().copied().unwrap_or(-1);
        state.snapshots_due = recovered.snapshots_due;
        let segments = recovered.segments;
        self.stand_on(&mut state, segments, offset)?;
        state.epochs_dirty |= state.epochs.truncate_from_end(offset) && !planted(Bug::EpochFileNotRewritten);
        let moved = state.log_start > offset;
        if moved {
            (state.log_start, state.log_start_batch) = (offset, offset);
        } else if state.active().data_end <= state.log_start {
            // The batch that held the log start is gone.
            state.log_start_batch = offset;
        }
        // Where it does not move, transactions decided below it hold readers back until it is named again, as in Kafka.
        if state.high_watermark >= offset {
            state.set_high_watermark(offset);
        } else {
            state.hold_back_reopened();
        }
        self.snapshot_at_end(&mut state);
        let log_start = state.log_start;
        drop(state);
        self.write_side_files()?;
        let snapshots = super::layout::snapshot_offsets(&*self.device, &self.dir)?;
        self.keep_snapshots(snapshots, log_start, offset, memory_offset)?;
        self.store_after_truncation(offset, moved)
    }

    pub(crate) fn truncate_fully_and_start_at(&self, offset: i64, log_start: Option<i64>) -> Result<i64> {
        let log_start = log_start.unwrap_or(offset);
        if offset < 0 || log_start < 0 || log_start > offset {
            return Err(Error::InvalidRequest(format!("cannot start at offset {offset} with log start {log_start}")));
        }
        let cut = self.before_cut.get().map(Cut::begin);
        self.upkeep()?;
        let _one = self.upkeep.lock();
        let _nobody_spills = self.spilling.lock();
        let mut state = self.quiesce()?;
        state.check_usable()?;
        self.tell_cut(&mut state, 0, cut.as_ref())?;
        self.start_again_at(state, offset, log_start)
    }

    /// Nothing is cut before who holds bytes of this log elsewhere knows. All that is in the log is durable.
    fn tell_cut(&self, state: &mut State, offset: i64, cut: Option<&Cut<'_>>) -> Result<()> {
        state.progress.covered_offset = state.progress.covered_offset.min(offset);
        cut.map_or(Ok(()), |cut| (cut.before.tell)(offset, &cut.unmarked))
    }

    fn start_again_at(&self, mut state: MutexGuard<'_, State>, offset: i64, log_start: i64) -> Result<i64> {
        // Nothing of the old log is promised from here on, and a crash leaves one that begins at the new start.
        let started = Offsets { recovery_point: Some(0), log_start: Some((log_start, true)), high_watermark: None };
        if !planted(Bug::AnewWithoutStart) {
            self.checkpoints.update(&*self.device, &self.topic, self.partition, &started)?;
        }
        self.forget_checkpoints(&mut state)?;
        self.forget_spill(&mut state)?;
        let bases: Vec<i64> = state.segments.keys().rev().copied().collect();
        for base in bases {
            if let Err(error) = self.doom(&mut state, base) {
                return Err(give_up(&mut state, error));
            }
        }
        self.drop_snapshots_above(-1)?;
        self.device.remove(&self.dir.join(MEMORY_FILE))?;
        let config = state.config.clone();
        let segment = new_segment(&*self.device, &*self.clock, &self.dir, &config, offset);
        let segment = segment.map_err(|error| give_up(&mut state, error))?;
        state.producers = ProducerTable::new();
        state.reach = Reach::default();
        state.snapshots_due.clear();
        state.txns = OpenTxns::new();
        state.aborted = AbortedIndex::default();
        state.epochs.clear();
        state.epochs_dirty = true;
        state.newest_snapshot = -1;
        state.read_only = None;
        self.stand_on(&mut state, BTreeMap::from([(offset, segment)]), offset)?;
        (state.log_start, state.log_start_batch) = (log_start, log_start);
        state.set_high_watermark(offset);
        drop(state);
        self.store_after_truncation(offset, true)
    }

    /// No later crash may take what comes now for something that was synced already, or miss what is cut now.
    fn lower_recovery_point(&self, state: &State, offset: i64) -> Result<()> {
        if planted(Bug::TruncationKeepsRecoveryPoint) {
            return Ok(());
        }
        let base = state.segment_of(offset).map_or(offset, |segment| segment.base_offset);
        let offsets = Offsets { recovery_point: Some(base.min(state.progress.durable_offset)), ..Offsets::default() };
        self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
        Ok(())
    }

    /// The aborted transactions of the segment that will be the last one. It is the only step that needs space, and
    /// comes before any cut: on a full disk there is none. Should it not come about, the next opening reads that
    /// segment anyway, now that no recovery point and no checkpoint keeps it from doing so.
    fn cut_aborted(&self, state: &mut State, offset: i64) -> Result<()> {
        let base = state.segment_of(offset).map_or(offset, |segment| segment.base_offset);
        if let Some(segment) = state.segments.get_mut(&base) {
            // Until the cut is done the file may say less than there is.
            (segment.persisted, segment.aborted_stored) = (false, usize::MAX);
        }
        state.side_files_due = true;
        let aborted: Vec<_> = state.aborted.ending_in(base, offset).to_vec();
        let path = self.dir.join(segment_file_name(base, Kind::TxnIndex));
        if aborted.is_empty() && !state.transactional {
            self.device.remove(&path)?;
        } else {
            self.device.write_small(&path, &txn_index::encode_all(&aborted))?;
        }
        Ok(())
    }

    /// Answers the size that the last segment is left with.
    fn cut_files(&self, state: &mut State, offset: i64) -> Result<u64> {
        let mut above: Vec<i64> = state.segments.range(offset + 1..).rev().map(|(base, _)| *base).collect();
        if planted(Bug::TruncationFromTheFront) {
            above.reverse();
        }
        for base in above {
            self.doom(state, base)?;
            state.segments.remove(&base);
        }
        self.drop_snapshots_above(offset)?;
        let segment = state.active();
        let mut walker = Walker::new(&*segment.file, segment.base_offset, segment.size).ending_at(segment.data_end);
        let position = walker.find(offset)?.map_or(segment.size, |found| found.position);
        let base = segment.base_offset;
        for kind in [Kind::OffsetIndex, Kind::TimeIndex] {
            self.device.remove(&self.dir.join(segment_file_name(base, kind)))?;
        }
        segment.file.set_length(position)?;
        segment.file.sync()?;
        self.device.sync_directory(&self.dir)?;
        Ok(position)
    }

    /// Memory stands on these segments, with nothing staged, ending at `end`.
    fn stand_on(&self, state: &mut State, segments: BTreeMap<i64, Segment>, end: i64) -> Result<()> {
        state.segments = segments;
        state.segments.values_mut().for_each(Segment::note_written);
        state.hole = state.active().data_end..end;
        state.active_mut().next_offset = end;
        state.staging = staging_behind(state.active())?;
        state.prepared = state.staging.start;
        state.hole_passed = state.hole.is_empty();
        state.progress.durable_offset = end;
        state.flushed_offset = state.flushed_offset.min(end);
        state.progress.unsynced = false;
        state.generation += 1;
        state.side_files_due = true;
        self.tail.clear();
        self.ahead.forget(self.number);
        Ok(())
    }

    /// A log start that has not moved stays as its checkpoint says, as in Kafka.
    fn store_after_truncation(&self, offset: i64, log_start_moved: bool) -> Result<i64> {
        self.persist_epochs()?;
        let (mut offsets, flushed_offset, named) = {
            let state = self.state.lock();
            (self.checkpoint_offsets(&state), state.flushed_offset, state.log_start_named)
        };
        offsets.high_watermark = None;
        // What a deletion that failed may have named would take the records that come now.
        offsets.log_start = offsets.log_start.filter(|_| log_start_moved || named > offset);
        offsets.recovery_point = offsets.recovery_point.map(|point| point.min(flushed_offset));
        self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
        if let Some((log_start, _)) = offsets.log_start {
            self.state.lock().log_start_named = log_start;
        }
        Ok(offset)
    }
}

/// What the pass could not read of the records that a truncation left.
fn damage_before(recovered: &Recovery<'_>, size: u64) -> Option<Damage> {
    if planted(Bug::TruncationOverlooksDamage) {
        return None;
    }
    if let Some(damage) = recovered.report.damage.first() {
        return Some(damage.clone());
    }
    let last = recovered.segments.last_key_value()?.1;
    (last.size < size).then(|| Damage {
        path: last.file.path(),
        position: last.size,
        offset: last.next_offset,
        reason: "records that a truncation was to leave cannot be read".into(),
    })
}

/// Half a truncation on disk is for the next opening to finish: nothing goes on until then.
fn give_up(state: &mut State, error: Error) -> Error {
    match &error {
        _ if planted(Bug::FailedTruncationTrusted) => error,
        Error::Device(failure) | Error::StorageFull(failure) | Error::Storage(failure) => {
            latch(state, (**failure).clone())
        }
        _ => {
            state.closed = true;
            error
        }
    }
}

//! Space for what comes: the active segment's prepared length, the spare behind it, and the roll from one to the other.
//!
//! A roll is a change in memory: the old segment's last group and the new file's name are left to the committer, the
//! side files to [`super::upkeep`]. That way no append waits for a name, an index or a snapshot under the lock.

use parking_lot::MutexGuard;
use std::sync::Arc;

use oncelog_device::{BLOCK_BYTES, OpenMode};
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::snapshot::SealedSegment;

use super::Shared;
use super::commit::take_staging;
use super::state::{Birth, Segment, Spare, Staging, State, padded_length};
use crate::error::Result;
use crate::index::SegmentIndex;

/// Least and most that one step prepares: an idle log holds a few blocks ahead, a busy one megabytes.
const LEAST_STEP_BYTES: u64 = 64 << 10;
const MOST_STEP_BYTES: u64 = 16 << 20;

/// What decides whether a set of batches goes to a new segment.
pub(super) struct RollCheck {
    pub size_bytes: usize,
    pub max_timestamp: i64,
    pub last_offset: i64,
    pub now_ms: i64,
}

/// Space that must be there before an append may change anything.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// The active file must be prepared up to here.
    Active(u64),
    /// A spare must be prepared up to here.
    Spare(u64),
}

impl State {
    /// Kafka's rule (`LogSegment.shouldRoll`).
    pub(super) fn should_roll(&self, check: &RollCheck) -> bool {
        let segment = self.active();
        let limit_ms = self.config.segment_ms.saturating_sub(self.jitter_ms(segment.base_offset));
        let waited_ms = match segment.first_batch_timestamp {
            Some(first) if first >= 0 => check.max_timestamp.saturating_sub(first),
            _ => check.now_ms.saturating_sub(segment.created_ms),
        };
        segment.size + check.size_bytes as u64 > self.config.segment_bytes
            || (segment.size > 0 && waited_ms > limit_ms)
            || segment.index.is_full()
            || check.last_offset - segment.base_offset > i64::from(i32::MAX)
    }

    /// A share of `segment_jitter_ms` fixed per segment, the same after every opening.
    fn jitter_ms(&self, base_offset: i64) -> i64 {
        match self.config.segment_jitter_ms {
            0 => 0,
            most => ((base_offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i64 % most,
        }
    }

    /// What must be prepared before `size_bytes` can be staged, with or without a roll.
    pub(super) fn space_needed(&self, roll: bool, size_bytes: usize) -> Option<Need> {
        if roll {
            let need = padded_length(size_bytes) as u64;
            return self.spare.as_ref().is_none_or(|s| s.prepared < need).then_some(Need::Spare(need));
        }
        let need = self.staging.start + padded_length(self.staging.length + size_bytes) as u64;
        (need > self.prepared).then_some(Need::Active(need))
    }

    /// How far ahead of `need` a step prepares: as much again as the segment holds, within bounds.
    fn step_to(&self, need: u64, holds: u64) -> u64 {
        let ahead = holds.clamp(LEAST_STEP_BYTES, MOST_STEP_BYTES);
        let whole = padded_length(self.config.segment_bytes.min(u64::MAX >> 8) as usize) as u64;
        (need + ahead).min(whole.max(need)).next_multiple_of(BLOCK_BYTES as u64)
    }
}

impl Shared {
    /// Prepares what is missing with the lock released. Out of space is an error and changes nothing.
    pub(super) fn make_space<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        need: Need,
    ) -> Result<MutexGuard<'a, State>> {
        if state.preparing {
            self.moved.wait(&mut state);
            return Ok(state);
        }
        state.preparing = true;
        self.metrics.count_space_wait();
        let generation = state.generation;
        let result = match need {
            Need::Active(need) => {
                let file = state.active().file.clone();
                let used = state.staging.start + state.staging.length as u64;
                let from = state.prepared.max(used.next_multiple_of(BLOCK_BYTES as u64));
                // At least a block: a file that ends inside the carried one is not yet long enough to be written to.
                let to = state.step_to(need, state.active().size).max(from + BLOCK_BYTES as u64);
                MutexGuard::unlocked(&mut state, || file.prepare(from, to)).map(|()| {
                    if state.generation == generation && Arc::ptr_eq(&state.active().file, &file) {
                        state.prepared = to;
                    }
                })
            }
            Need::Spare(need) => self.make_spare(&mut state, need),
        };
        state.preparing = false;
        self.moved.notify_all();
        result?;
        Ok(state)
    }

    fn make_spare(
        &self,
        state: &mut MutexGuard<'_, State>,
        need: u64,
    ) -> std::result::Result<(), oncelog_device::DeviceError> {
        let to = state.step_to(need, state.active().size / 4);
        if let Some(spare) = &state.spare {
            let (file, from) = (spare.file.clone(), spare.prepared);
            MutexGuard::unlocked(state, || file.prepare(from, to))?;
            if let Some(spare) = &mut state.spare {
                spare.prepared = to;
            }
            return Ok(());
        }
        let path = self.dir.join(format!("spare-{}.oncelog", state.spares_made));
        state.spares_made += 1;
        let file = MutexGuard::unlocked(state, || {
            let file = self.device.open(&path, OpenMode::Create)?;
            if let Err(failure) = file.prepare(0, to) {
                drop(file);
                let _ = self.device.remove(&path);
                return Err(failure);
            }
            Ok(file)
        })?;
        state.spare = Some(Spare { file, path, prepared: to });
        Ok(())
    }

    /// Closes the active segment in memory and begins the next at `first_offset` with the spare, which must be there.
    pub(super) fn roll_to(&self, state: &mut State, first_offset: i64) {
        let base_offset = first_offset.max(state.log_end());
        if state.active().size == 0 && state.active().base_offset == base_offset {
            // Full because its index may hold nothing, or asked for twice: a fresh index is all that a roll would bring.
            let fresh = SegmentIndex::new(base_offset, &state.config);
            let segment = state.active_mut();
            segment.index = fresh;
            segment.created_ms = self.clock.now_ms();
            return;
        }
        let spare = state.spare.take().expect("space was made sure of");
        // The end of one segment and the birth of the next count like appends: whoever waits for them waits for the device.
        state.progress.accepted += 2;
        let (number, size) = (state.progress.accepted - 1, state.active().size);
        let nothing_new = state.staging.pending_bytes() == 0;
        let mut group = take_staging(state, number, Some(size));
        if nothing_new {
            (group.length, group.carried) = (0, 0);
        }
        state.progress.queue.push_back(group);
        let old = state.active_mut();
        old.index.seal();
        old.persisted = false;
        let sealed = SealedSegment { base_offset: old.base_offset, size_bytes: old.size, next_offset: old.data_end };
        let now_ms = self.clock.now_ms();
        let to = self.dir.join(segment_file_name(base_offset, Kind::Log));
        state.segments.insert(
            base_offset,
            Segment {
                base_offset,
                file: spare.file,
                size: 0,
                next_offset: base_offset,
                data_end: base_offset,
                index: SegmentIndex::new(base_offset, &state.config),
                first_batch_timestamp: None,
                created_ms: now_ms,
                grown_ms: now_ms,
                damage: None,
                persisted: true,
                has_index_files: false,
            },
        );
        state.prepared = spare.prepared;
        state.staging = Staging::new(0, &[]);
        state.staging.birth = Some(Birth { from: spare.path, to });
        let snapshot = state.freeze_snapshot(Some(sealed));
        state.newest_snapshot = base_offset;
        state.snapshots_due.push_back(snapshot);
    }

    /// Rolls now, whatever the segment holds; answers the base offset of the active segment.
    pub(crate) fn roll(&self) -> Result<i64> {
        loop {
            let mut state = self.state.lock();
            state.check_writable()?;
            let end = state.log_end();
            let empty = state.active().size == 0 && state.active().base_offset == end;
            if !empty && let Some(need) = state.space_needed(true, 0) {
                drop(self.make_space(state, need)?);
                continue;
            }
            self.roll_to(&mut state, end);
            let number = state.progress.accepted;
            drop(state);
            self.commit(number, super::types::Ack::Written)?;
            self.upkeep()?;
            return Ok(end);
        }
    }
}

//! The log start moves up: by request, or because segments are removed (Kafka's three passes of `deleteOldSegments`).

use super::Shared;
use super::state::State;
use crate::checkpoints::Offsets;
use crate::error::{Error, Result};
use crate::segment::walk::Walker;
use oncelog_device::planted::{Bug, planted};

impl Shared {
    pub(crate) fn delete_records(&self, before: i64) -> Result<i64> {
        let _one = self.upkeep.lock();
        let offset = {
            let state = self.state.lock();
            state.check_writable()?;
            let offset = if before == -1 { state.high_watermark } else { before };
            if offset < 0 || offset > state.high_watermark {
                return Err(Error::OffsetOutOfRange {
                    offset: before,
                    log_start_offset: state.log_start,
                    limit: state.high_watermark,
                });
            }
            if offset <= state.log_start {
                return Ok(state.log_start);
            }
            offset
        };
        self.store_log_start(offset)?;
        self.raise_log_start(offset)?;
        self.persist_epochs()?;
        Ok(self.state.lock().log_start)
    }

    /// Moves the log start in memory. It is stored already: what no crash may take back is not shown before, and epochs
    /// that are cut too late are cut again by opening, those cut too early are lost.
    fn raise_log_start(&self, offset: i64) -> Result<()> {
        let batch = self.batch_base_at(offset)?;
        let mut state = self.state.lock();
        if offset <= state.log_start {
            return Ok(());
        }
        state.log_start = offset;
        state.flushed_offset = state.flushed_offset.max(offset);
        state.log_start_batch = batch.unwrap_or(state.log_end());
        if state.epochs.truncate_from_start(offset) {
            state.epochs_dirty = true;
        }
        state.txns.advance_high_watermark(offset);
        if state.high_watermark < offset {
            state.set_high_watermark(offset);
        }
        state.refresh_first_unstable();
        Ok(())
    }

    /// Base offset of the batch that holds `offset`, or of the next one where none does; none at the end. It is where
    /// Kafka takes an offset to be once it has looked for its place in a file.
    pub(super) fn batch_base_at(&self, offset: i64) -> Result<Option<i64>> {
        self.commit_all(super::types::Ack::Written)?;
        let mut wanted = offset;
        loop {
            let (file, (base, size, end), hint, next) = {
                let state = self.state.lock();
                let Some(segment) = state.segment_of(wanted).or(state.segments.values().next()) else {
                    return Ok(None);
                };
                let next = next_base(&state, segment.base_offset);
                let bounds = (segment.base_offset, segment.written.size, segment.written.data_end);
                (segment.file.clone(), bounds, segment.hint_for(offset), next)
            };
            let mut walker = Walker::new(&*file, base, size).ending_at(end);
            match (walker.locate(hint, offset), next) {
                (Ok(Some(found)), _) => return Ok(Some(found.header.base_offset)),
                (Ok(None), Some(next)) => wanted = next,
                (Ok(None), None) => return Ok(None),
                // Nobody can tell: what hangs on it must not move forward.
                (Err(Error::Damaged(_)), _) => return Ok(Some(offset)),
                (Err(error), _) => return Err(error),
            }
        }
    }

    fn store_log_start(&self, log_start: i64) -> Result<()> {
        let first_base = {
            let mut state = self.state.lock();
            state.log_start_named = state.log_start_named.max(log_start);
            *state.segments.first_key_value().expect("a log has a segment").0
        };
        if planted(Bug::LogStartNotPersisted) {
            return Ok(());
        }
        let offsets = Offsets { log_start: Some((log_start, log_start > first_base)), ..Offsets::default() };
        self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
        Ok(())
    }

    pub(crate) fn apply_retention(&self) -> Result<Vec<i64>> {
        let mut deleted =
            self.delete_while(|state, base, _| next_base(state, base).is_some_and(|next| next <= state.log_start))?;
        let config = self.config();
        if !config.cleanup_policy.deletes() {
            return Ok(deleted);
        }
        if config.retention_bytes >= 0 {
            let total: u64 = self.state.lock().segments.values().map(|s| s.size).sum();
            let excess = total.saturating_sub(config.retention_bytes as u64);
            deleted.extend(
                self.delete_while(|state, base, gone| excess > 0 && gone + state.segments[&base].size <= excess)?,
            );
        }
        if config.retention_ms >= 0 {
            let kept_ms = if planted(Bug::RetentionOfTheYoung) { 0 } else { config.retention_ms };
            let oldest = self.clock.now_ms().saturating_sub(kept_ms);
            deleted.extend(self.delete_while(|state, base, _| state.segments[&base].retention_timestamp() < oldest)?);
        }
        Ok(deleted)
    }

    /// Removes segments from the oldest on while `may_go(state, base, bytes removed so far)` and the high watermark has
    /// passed them. A last, empty segment stays; if all go, a new one is rolled first.
    fn delete_while(&self, may_go: impl Fn(&State, i64, u64) -> bool) -> Result<Vec<i64>> {
        let (bases, all) = {
            let state = self.state.lock();
            state.check_writable()?;
            let bases = deletable(&state, &may_go);
            (bases.clone(), bases.len() == state.segments.len())
        };
        if bases.is_empty() {
            return Ok(bases);
        }
        if all {
            self.roll()?;
        }
        let _one = self.upkeep.lock();
        // The snapshot at the first segment that stays must know the producers of those that go.
        if !planted(Bug::RetentionBeforeSnapshot) {
            self.write_side_files()?;
        }
        let (new_start, rises) = {
            let state = self.state.lock();
            let last = bases[bases.len() - 1];
            let new_start = next_base(&state, last).unwrap_or(state.log_start).max(state.log_start);
            (new_start, new_start > state.log_start)
        };
        self.store_log_start(new_start)?;
        self.raise_log_start(new_start)?;
        self.commit_all(super::types::Ack::Durable)?;
        for base in &bases {
            // Appends go on meanwhile: nobody reads or writes below the log start any more.
            let renamed = self.rename_to_deleted(*base)?;
            let mut state = self.state.lock();
            self.note_doomed(&mut state, *base, renamed);
            state.segments.remove(base);
        }
        {
            let mut state = self.state.lock();
            let first_base = *state.segments.first_key_value().expect("a log has a segment").0;
            state.aborted.forget_below(first_base);
        }
        self.persist_epochs()?;
        if rises {
            // Now it is the first segment's base and need not be listed. One that stood there before is listed until
            // the next checkpoint, as in Kafka.
            self.store_log_start(new_start)?;
        }
        Ok(bases)
    }
}

fn next_base(state: &State, base: i64) -> Option<i64> {
    state.segments.range(base + 1..).next().map(|(next, _)| *next)
}

fn deletable(state: &State, may_go: &impl Fn(&State, i64, u64) -> bool) -> Vec<i64> {
    let mut bases = Vec::new();
    let mut gone = 0;
    for (base, segment) in &state.segments {
        let next = next_base(state, *base);
        let last_and_empty = next.is_none() && segment.size == 0;
        let end = next.unwrap_or_else(|| state.log_end());
        if state.high_watermark < end || last_and_empty || !may_go(state, *base, gone) {
            break;
        }
        gone += segment.size;
        bases.push(*base);
    }
    bases
}

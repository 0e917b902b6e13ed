//! Background work as steps that someone drives: side files, checkpoints, space, files that may go.
//!
//! Side files (indexes, snapshots, leader epochs) hold nothing that the log does not say, so they are written behind
//! the append and may be tried again. One order matters: the recovery point in its checkpoint file never passes a
//! segment whose side files are not on disk, because Kafka trusts everything below it.

use std::path::PathBuf;
use std::sync::Arc;

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::file_name::{Kind, Suffix, segment_file_name};
use oncelog_formats::{epoch_checkpoint, txn_index};

use super::Shared;
use super::state::{Doomed, Progress, Segment, SideFile, State};
use super::types::Ack;
use crate::checkpoints::Offsets;
use crate::error::Result;

/// Pages of producers that one step reads before anyone asks for them.
const PAGES_A_STEP: usize = 256;

impl Shared {
    /// One step of everything that is due.
    pub(crate) fn drive(&self) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        self.commit_leftovers()?;
        let now_ns = self.clock.monotonic_ns();
        self.tail.expire(now_ns);
        self.ahead.expire(now_ns);
        self.watch_transactions();
        self.prepare_ahead()?;
        self.spares.step()?;
        self.upkeep()?;
        self.tend_producers()
    }

    /// The driver thread's step: space is the preparer's business.
    pub(crate) fn tend(&self) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        self.commit_leftovers()?;
        self.tail.expire(self.clock.monotonic_ns());
        self.watch_transactions();
        self.upkeep()?;
        self.sweep_if_due()?;
        self.tend_producers()
    }

    /// Reads producers that nobody has asked for yet, takes out those for whom there is no room, and writes a
    /// checkpoint when one is due.
    fn tend_producers(&self) -> Result<()> {
        self.warm_up(PAGES_A_STEP)?;
        self.spill()?;
        if self.state.lock().checkpoint_is_due(self.clock.now_ms()) {
            let _one = self.upkeep.lock();
            match self.write_checkpoint() {
                Err(error) if error.is_full() => tracing::warn!(%error, "no space for a checkpoint"),
                done => return done,
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.latch.is_some()
    }

    /// What nobody waits for reaches the device all the same, and an idle log lets go of its buffer.
    fn commit_leftovers(&self) -> Result<()> {
        let level = {
            let mut state = self.state.lock();
            state.staging.trim(&self.buffers);
            let staged = state.staged_bytes() > 0 || state.staging.birth.is_some();
            let Progress { durable_wanted, durable_wanted_soon, durable, .. } = state.progress;
            match durable_wanted.max(durable_wanted_soon) > durable {
                true => Ack::Durable,
                false if staged => Ack::Written,
                false => return Ok(()),
            }
        };
        self.commit_all(level)
    }

    /// Has the committer write what is staged.
    pub(super) fn ask_committer(&self, state: &mut State) {
        let Some(background) = &self.background else { return };
        let progress = &mut state.progress;
        progress.committer_wanted = progress.accepted;
        if !std::mem::replace(&mut progress.committer_asked, true) {
            background.commits.ask(self.this());
        }
    }

    /// Writes side files that are due and removes files whose time has come.
    pub(crate) fn upkeep(&self) -> Result<()> {
        let _one = self.upkeep.lock();
        // Space is given back first: a full disk may be what the side files wait for.
        self.remove_doomed()?;
        self.write_side_files()
    }

    /// With the upkeep lock held.
    pub(super) fn write_side_files(&self) -> Result<()> {
        self.write_snapshots()?;
        self.persist_sealed()?;
        self.pass_hole()?;
        self.persist_epochs()
    }

    /// What a truncation left empty can be promised once a segment begins behind it: no tail is missing there then.
    fn pass_hole(&self) -> Result<()> {
        let end = {
            let state = self.state.lock();
            let durable = state.progress.durable_offset >= state.hole.end;
            if state.hole_passed || state.active().base_offset < state.hole.end || !durable {
                return Ok(());
            }
            state.hole.end
        };
        let offsets = Offsets { recovery_point: Some(end), ..Offsets::default() };
        self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
        self.state.lock().hole_passed = true;
        Ok(())
    }

    /// Indexes of every sealed segment that are not on disk yet, and some file for the active one. Behind the leader
    /// epochs of what they cover: Kafka recovers segments without an index before all others and takes their epochs for
    /// the first.
    fn persist_sealed(&self) -> Result<()> {
        let mut from = i64::MIN;
        loop {
            let (base, files, aborted) = {
                let mut state = self.state.lock();
                if !state.side_files_due {
                    return Ok(());
                }
                let active = state.active().base_offset;
                let due = |s: &Segment| {
                    s.damage.is_none() && ((!s.persisted && s.base_offset < active) || !s.has_index_files)
                };
                let Some((&base, _)) = state.segments.range(from..).find(|(_, segment)| due(segment)) else {
                    state.side_files_due = false;
                    return Ok(());
                };
                (base, self.index_files(&state, base), state.aborted_in_segment(base).len())
            };
            self.persist_epochs()?;
            let has_txn_index = files.len() > 2;
            for file in files {
                self.device.write_small(&file.path, &file.bytes)?;
            }
            if !has_txn_index {
                // One that recovery did not bear out must not stay for Kafka to read.
                self.device.remove(&self.dir.join(segment_file_name(base, Kind::TxnIndex)))?;
            }
            if let Some(segment) = self.state.lock().segments.get_mut(&base) {
                segment.persisted = true;
                segment.has_index_files = true;
                segment.aborted_stored = aborted;
            }
            from = base + 1;
        }
    }

    /// The aborted transactions of a segment that a recovery point passes while it still grows: a crash behind the roll
    /// that closes it leaves nothing that would look at its batches again.
    fn persist_aborted(&self, base: i64) -> Result<()> {
        let (path, bytes, count) = {
            let state = self.state.lock();
            let aborted = state.aborted_in_segment(base);
            if state.segments.get(&base).is_none_or(|segment| segment.aborted_stored == aborted.len()) {
                return Ok(());
            }
            (self.dir.join(segment_file_name(base, Kind::TxnIndex)), txn_index::encode_all(aborted), aborted.len())
        };
        self.device.write_small(&path, &bytes)?;
        if let Some(segment) = self.state.lock().segments.get_mut(&base) {
            segment.aborted_stored = count;
        }
        Ok(())
    }

    /// The index files of a segment as memory says they are, in the order to write them: an opening looks for
    /// timestamps behind the last entry of the offset index, so that one comes last.
    pub(super) fn index_files(&self, state: &State, base_offset: i64) -> Vec<SideFile> {
        let segment = &state.segments[&base_offset];
        let path = |kind| self.dir.join(segment_file_name(base_offset, kind));
        let [offsets, times] = segment.index.encode().expect("entries fit the segment");
        let mut files = vec![
            SideFile { path: path(Kind::TimeIndex), bytes: times },
            SideFile { path: path(Kind::OffsetIndex), bytes: offsets },
        ];
        let aborted = state.aborted_in_segment(base_offset);
        if !aborted.is_empty() || state.transactional {
            files.push(SideFile { path: path(Kind::TxnIndex), bytes: txn_index::encode_all(aborted) });
        }
        files
    }

    pub(super) fn persist_epochs(&self) -> Result<()> {
        let text = {
            let mut state = self.state.lock();
            if !std::mem::take(&mut state.epochs_dirty) {
                return Ok(());
            }
            epoch_checkpoint::format(state.epochs.entries())
        };
        let path = self.dir.join(epoch_checkpoint::FILE_NAME);
        self.device.write_small(&path, text.as_bytes()).inspect_err(|_| self.state.lock().epochs_dirty = true)?;
        Ok(())
    }

    /// Removes what may go; a segment's file that no reader holds any more becomes a spare.
    fn remove_doomed(&self) -> Result<()> {
        let now_ms = self.clock.now_ms();
        let due: Vec<Doomed> = {
            let mut state = self.state.lock();
            let may_go = |doomed: &Doomed| {
                doomed.at_ms <= now_ms && doomed.file.as_ref().is_none_or(|file| Arc::strong_count(file) == 1)
            };
            state.doomed.extract_if(.., |doomed| may_go(doomed)).collect()
        };
        for Doomed { path, file, .. } in due {
            match file {
                Some(file) => self.spares.free(&path, file)?,
                None => drop(self.device.remove(&path)?),
            }
        }
        Ok(())
    }

    /// Takes a segment's files out of the log: renamed now, for good when this returns, removed later. Segment by
    /// segment, from one end of the log: a crash in between must not leave a hole.
    pub(super) fn doom(&self, state: &mut State, base_offset: i64) -> Result<()> {
        let renamed = self.rename_to_deleted(base_offset)?;
        self.note_doomed(state, base_offset, renamed);
        Ok(())
    }

    /// The first half of [`Self::doom`], which needs no lock.
    pub(super) fn rename_to_deleted(&self, base_offset: i64) -> Result<Vec<(Kind, PathBuf)>> {
        let mut renamed = Vec::new();
        for kind in Kind::ALL {
            let name = segment_file_name(base_offset, kind);
            let (from, to) = (self.dir.join(&name), self.dir.join(format!("{name}{}", Suffix::Deleted.text())));
            if self.device.length(&from)?.is_some() {
                self.device.rename(&from, &to)?;
                renamed.push((kind, to));
            }
        }
        if !planted(Bug::SegmentNamesGoUnsynced) {
            self.device.sync_directory(&self.dir)?;
        }
        Ok(renamed)
    }

    pub(super) fn note_doomed(&self, state: &mut State, base_offset: i64, renamed: Vec<(Kind, PathBuf)>) {
        let at_ms = self.clock.now_ms().saturating_add(state.config.file_delete_delay_ms);
        let log = state.segments.get(&base_offset).map(|segment| segment.file.clone());
        for (kind, path) in renamed {
            let file = log.clone().filter(|_| kind == Kind::Log);
            file.iter().for_each(|file| file.renamed(&path));
            // One of that name that still waited to go is gone: this one has taken its place.
            state.doomed.retain(|doomed| doomed.path != path);
            state.doomed.push(Doomed { at_ms, path, file });
        }
    }

    /// Everything durable, side files written, then the three checkpoint files. Answers the recovery point.
    pub(crate) fn checkpoint(&self) -> Result<i64> {
        let _span = tracing::info_span!("checkpoint", dir = %self.dir.display()).entered();
        self.commit_all(Ack::Durable)?;
        let _one = self.upkeep.lock();
        // First what is promised, then the files that must be there by then: appends and rolls go on meanwhile.
        let (offsets, durable, active) = {
            let mut state = self.state.lock();
            state.check_usable()?;
            state.flushed_offset = state.progress.durable_offset;
            (self.checkpoint_offsets(&state), state.progress.durable_offset, state.active().base_offset)
        };
        self.write_side_files()?;
        if !planted(Bug::AbortsBehindRecoveryPoint) {
            self.persist_aborted(active)?;
        }
        self.checkpoints.update(&*self.device, &self.topic, self.partition, &offsets)?;
        let mut state = self.state.lock();
        // What is promised now is not taken back once the next segment begins.
        state.hole_passed |= offsets.recovery_point.is_some_and(|point| point >= state.hole.end);
        Ok(durable)
    }

    pub(super) fn checkpoint_offsets(&self, state: &State) -> Offsets {
        let first_base = *state.segments.first_key_value().expect("a log has a segment").0;
        Offsets {
            // Offsets that a truncation left empty are no promise of data.
            recovery_point: Some(match planted(Bug::CheckpointPassesUnsynced) {
                false => state.progress.durable_offset.min(state.active().data_end),
                true => state.log_end(),
            }),
            log_start: Some((state.log_start, state.log_start > first_base)),
            high_watermark: Some(state.high_watermark),
        }
    }

    /// A producer snapshot at the log end.
    pub(crate) fn take_snapshot(&self) -> Result<i64> {
        self.commit_all(Ack::Durable)?;
        let _one = self.upkeep.lock();
        self.write_side_files()?;
        {
            let mut state = self.state.lock();
            state.check_usable()?;
            let end = state.log_end();
            if end <= state.newest_snapshot || state.producers.is_empty() && end <= state.snapshot_floor() {
                return Ok(state.newest_snapshot);
            }
            state.freeze_snapshot(None);
        }
        self.write_snapshots()?;
        Ok(self.state.lock().newest_snapshot)
    }

    /// Clean close: everything durable, snapshot at the end, files trimmed to their data, side files written.
    pub(crate) fn close(&self) -> Result<Offsets> {
        {
            let state = self.state.lock();
            state.check_usable()?;
            if state.read_only.is_some() {
                let offsets = self.checkpoint_offsets(&state);
                drop(state);
                self.state.lock().closed = true;
                return Ok(Offsets { recovery_point: None, ..offsets });
            }
        }
        self.take_snapshot()?;
        if self.state.lock().close_needs_checkpoint() {
            let _one = self.upkeep.lock();
            if let Err(error) = self.write_checkpoint() {
                // The snapshot at the end says as much, and takes longer to read.
                tracing::warn!(%error, "closed without a checkpoint");
            }
        }
        let _nobody_spills = self.spilling.lock();
        let mut state = self.quiesce()?;
        let (file, size, base) = (state.active().file.clone(), state.active().size, state.active().base_offset);
        let _ = state.active_mut().index.seal();
        let files = self.index_files(&state, base);
        file.set_length(size).and_then(|()| file.sync()).map_err(|e| latch(&mut state, e))?;
        if let Some(spare) = state.spare.take() {
            self.spares.give(spare)?;
        }
        for file in files {
            self.device.write_small(&file.path, &file.bytes)?;
        }
        for doomed in std::mem::take(&mut state.doomed) {
            self.device.remove(&doomed.path)?;
        }
        self.forget_spill(&mut state)?;
        drop(state);
        self.persist_epochs()?;
        self.device.sync_directory(&self.dir)?;
        let mut state = self.state.lock();
        state.closed = true;
        Ok(self.checkpoint_offsets(&state))
    }
}

/// The first failed write or sync: nothing is acknowledged behind it.
pub(super) fn latch(state: &mut State, failure: oncelog_device::DeviceError) -> crate::error::Error {
    let failure = std::sync::Arc::new(failure);
    state.latch.get_or_insert_with(|| failure.clone());
    crate::error::Error::Storage(failure)
}

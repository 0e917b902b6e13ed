//! Space for what comes: the active segment's prepared length, the spare behind it, and the roll from one to the other.
//!
//! A roll is a change in memory: the old segment's last group and the new file's name are left to the committer, the
//! side files to [`super::upkeep`]. That way no append waits for a name, an index or a snapshot under the lock.

use parking_lot::MutexGuard;
use std::sync::Arc;

use oncelog_device::BLOCK_BYTES;
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::snapshot::SealedSegment;

use super::Shared;
use super::commit::take_staging;
use super::state::{Birth, Segment, Staging, State, Window, padded_length};
use crate::error::Result;
use crate::index::SegmentIndex;
use crate::spares::{PIECE_BYTES, Space, Spare};

/// An idle log holds this much ready.
const LEAST_WINDOW_BYTES: u64 = 64 << 10;
/// More is no help to the fastest writer, and a roll before the segment is full has to give it back, with appends
/// behind it.
const MOST_WINDOW_BYTES: u64 = 64 << 20;
/// So long a time's appends are kept ready for; how fast they come is measured over the last of the shorter times.
const AHEAD_NS: u64 = 125_000_000;
const MEASURED_NS: u64 = AHEAD_NS / 4;

/// Where so much is written between two syncs, zeroes in front of it take the disk longer than the syncs over space
/// that is only allocated: 80 us each where a disk writes 3 GB/s. From a quarter of this on, but that is close.
const MANY_BYTES: u64 = 1 << 20;

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

    /// Length of a whole segment's file.
    fn whole_bytes(&self) -> u64 {
        padded_length(self.config.segment_bytes.min(u64::MAX >> 8) as usize) as u64
    }

    /// What should be made ready before it is needed, if anything: half of the window is used up, or the roll is near.
    pub(super) fn space_ahead(&self) -> Option<Need> {
        let used = self.active().size;
        if used == 0 || self.read_only.is_some() || self.check_usable().is_err() {
            return None;
        }
        let (whole, window) = (self.whole_bytes(), self.window.bytes);
        if self.prepared < whole.min(self.window.target.max(used + window / 2)) {
            return Some(Need::Active(whole.min(used + window)));
        }
        // The next file is made ready as this one fills up, not in one go: the device is the appends' too.
        let near = window.saturating_sub(whole.saturating_sub(used));
        let wanted = (near + near / 4).max(LEAST_WINDOW_BYTES).min(window).min(whole);
        let ready = self.spare.as_ref().map_or(0, |spare| spare.ready(self.window.space()));
        // Not a little at a time, and not at the moment of the roll, which has syncs of its own.
        let behind = ready + (PIECE_BYTES / 2).min(window / 8) < wanted;
        (near > 0 && ready < wanted && behind).then_some(Need::Spare(wanted))
    }
}

impl Default for Window {
    fn default() -> Self {
        let bytes = LEAST_WINDOW_BYTES;
        Self { bytes, counted: 0, since_ns: 0, target: 0, asked: false, unsynced: 0, between_syncs: 0 }
    }
}

impl Window {
    /// Called for each turn, with what it carries.
    pub(super) fn count_turn(&mut self, bytes: u64, durable: bool, now_ns: u64) {
        self.measure(bytes, now_ns);
        self.unsynced += bytes;
        if durable {
            self.between_syncs = (3 * self.between_syncs + std::mem::take(&mut self.unsynced)) / 4;
        }
    }

    /// How space is made ready for such appends.
    fn space(&self) -> Space {
        match self.between_syncs.max(self.unsynced) >= MANY_BYTES {
            true => Space::Allocated,
            false => Space::Written,
        }
    }

    /// What comes faster widens it at once, what comes slower narrows it a little each time.
    fn measure(&mut self, bytes: u64, now_ns: u64) {
        self.counted += bytes;
        let took_ns = now_ns.saturating_sub(self.since_ns);
        if took_ns < MEASURED_NS {
            return;
        }
        let counted = u128::from(std::mem::take(&mut self.counted));
        self.since_ns = now_ns;
        let ahead = (counted * u128::from(AHEAD_NS) / u128::from(took_ns)) as u64;
        self.bytes = ahead.max(self.bytes / 4 * 3).clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES);
    }

    /// Called when an append had to wait: it is too small, whatever was measured.
    fn widen(&mut self) {
        self.bytes = (self.bytes * 2).min(MOST_WINDOW_BYTES);
    }
}

impl Shared {
    /// Gets what an append lacks, with the lock released; the append waits, which is counted. Out of space is an error
    /// and changes nothing.
    pub(super) fn make_space<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        need: Need,
    ) -> Result<MutexGuard<'a, State>> {
        self.metrics.count_space_wait();
        self.spares.hurry();
        if state.preparing {
            self.space.wait(&mut state);
            return Ok(state);
        }
        state.window.widen();
        self.prepare(&mut state, need)?;
        Ok(state)
    }

    /// Asks for space before it is needed.
    pub(super) fn ask_for_space(&self, state: &mut State) {
        if let Some(background) = &self.background
            && !state.window.asked
            && state.space_ahead().is_some()
        {
            state.window.asked = true;
            background.spaces.ask(self.this());
        }
    }

    /// Makes ready what is needed soon, a piece at a time; a full disk is no error here.
    pub(crate) fn prepare_ahead(&self) -> Result<()> {
        loop {
            let mut state = self.state.lock();
            let need = state.space_ahead().filter(|_| !state.preparing);
            let Some(need) = need else {
                state.window.asked = false;
                return Ok(());
            };
            match self.prepare(&mut state, need) {
                Ok(()) => {}
                Err(error) if error.is_full() => {
                    tracing::warn!(%error, "no space to prepare ahead");
                    state.window.asked = false;
                    return Ok(());
                }
                Err(error) => {
                    state.window.asked = false;
                    return Err(error);
                }
            }
        }
    }

    /// One piece of what is needed, with the lock released.
    fn prepare(&self, state: &mut MutexGuard<'_, State>, need: Need) -> Result<()> {
        state.preparing = true;
        let result = match need {
            Need::Active(to) => self.prepare_active(state, to),
            Need::Spare(bytes) => self.prepare_spare(state, bytes),
        };
        state.preparing = false;
        self.space.notify_all();
        result
    }

    fn prepare_active(&self, state: &mut MutexGuard<'_, State>, need: u64) -> Result<()> {
        let whole = state.whole_bytes();
        if state.prepared == 0
            && state.active().size == 0
            && let Some(spare) = self.spares.take(need, Space::Allocated)
        {
            self.begin_with(state, spare);
            return Ok(());
        }
        let file = state.active().file.clone();
        let generation = state.generation;
        let used = state.staging.start + state.staging.length as u64;
        let from = state.prepared.max(used.next_multiple_of(BLOCK_BYTES as u64));
        state.window.target = need.max((used + state.window.bytes).min(whole));
        // At least a block: a file that ends inside the carried one is not yet long enough to be written to.
        let target = state.window.target.max(from + BLOCK_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64);
        let space = state.window.space();
        let (to, _) = MutexGuard::unlocked(state, || self.spares.prepare(&*file, from, target, space))?;
        if state.generation == generation && Arc::ptr_eq(&state.active().file, &file) {
            state.prepared = to;
        }
        Ok(())
    }

    /// The active segment, still empty, goes on in a file from the stock.
    fn begin_with(&self, state: &mut State, spare: Spare) {
        let to = self.dir.join(segment_file_name(state.active().base_offset, Kind::Log));
        state.prepared = spare.prepared;
        state.active_mut().file = spare.file;
        state.staging.birth = Some(Birth { from: spare.path, to });
        state.progress.accepted += 1;
    }

    fn prepare_spare(&self, state: &mut MutexGuard<'_, State>, bytes: u64) -> Result<()> {
        let bytes = bytes.next_multiple_of(BLOCK_BYTES as u64);
        let mut held = state.spare.take();
        let space = state.window.space();
        let made = MutexGuard::unlocked(state, || {
            // What is allocated and not written is a beginning, where there is none, and so is what is too short: a
            // segment that was freed is as long as its batches, which seldom fill it.
            let begun = || match held {
                Some(_) => None,
                None => self.spares.take(bytes, Space::Allocated).or_else(|| self.spares.take_largest()),
            };
            if let Some(ready) = self.spares.take(bytes, space).or_else(begun) {
                return held.take().map_or(Ok(()), |small| self.spares.give(small)).map(|()| ready);
            }
            let mut spare = match held.take() {
                Some(spare) => spare,
                None => return self.spares.make(bytes, space),
            };
            match self.spares.extend(&mut spare, bytes, space) {
                Ok(()) => Ok(spare),
                Err(failure) => {
                    held = Some(spare);
                    Err(failure)
                }
            }
        });
        match made {
            Ok(spare) => {
                state.spare = Some(spare);
                Ok(())
            }
            Err(failure) => {
                state.spare = held;
                Err(failure)
            }
        }
    }

    /// Closes the active segment in memory and begins the next at `first_offset` with the spare, which must be there.
    pub(super) fn roll_to(&self, state: &mut State, first_offset: i64) {
        let base_offset = first_offset.max(state.log_end());
        if state.active().size == 0 && state.active().base_offset == base_offset {
            // Full because its index may hold nothing, or asked for twice: a fresh index is all that a roll would
            // bring.
            let fresh = SegmentIndex::new(base_offset, &state.config);
            let segment = state.active_mut();
            segment.index = fresh;
            segment.created_ms = self.clock.now_ms();
            return;
        }
        let _span = tracing::info_span!("roll", dir = %self.dir.display(), base_offset).entered();
        self.metrics.count_roll();
        let spare = state.spare.take().expect("space was made sure of");
        // The end of one segment and the birth of the next count like appends: whoever waits for them waits for the
        // device.
        state.progress.accepted += 2;
        let (number, size) = (state.progress.accepted - 1, state.active().size);
        let nothing_new = state.staging.pending_bytes() == 0;
        let mut group = take_staging(state, &self.buffers, number, Some(size));
        if nothing_new {
            (group.length, group.carried) = (0, 0);
        }
        state.progress.queue.push_back(group);
        let old = state.active_mut();
        old.index.seal();
        old.persisted = false;
        let sealed = SealedSegment { base_offset: old.base_offset, size_bytes: old.size, next_offset: old.data_end };
        let to = self.dir.join(segment_file_name(base_offset, Kind::Log));
        let segment = Segment::empty(base_offset, spare.file, &state.config, self.clock.now_ms());
        state.segments.insert(base_offset, segment);
        state.side_files_due = true;
        state.prepared = spare.prepared;
        // What the new file lacks is made ready as it fills up.
        state.window.target = 0;
        state.staging = Staging::new(0, &[]);
        state.staging.birth = Some(Birth { from: spare.path, to });
        state.flushed_offset = base_offset;
        state.freeze_snapshot(Some(sealed));
    }

    /// Rolls now, whatever the segment holds; answers the base offset of the active segment.
    pub(crate) fn roll(&self) -> Result<i64> {
        // Made ready here, or the first append behind the roll waits for it. On a full disk the roll takes place
        // without.
        let mut ready_bytes = {
            let state = self.state.lock();
            state.window.bytes.min(PIECE_BYTES).min(state.whole_bytes()) as usize
        };
        loop {
            let mut state = self.state.lock();
            state.check_writable()?;
            let end = state.log_end();
            let empty = state.active().size == 0 && state.active().base_offset == end;
            if !empty && let Some(need) = state.space_needed(true, ready_bytes) {
                match state.preparing {
                    true => self.space.wait(&mut state),
                    false => match self.prepare(&mut state, need) {
                        Err(error) if error.is_full() && ready_bytes > 0 => ready_bytes = 0,
                        made => made?,
                    },
                }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_ready_follows_the_rate() {
        let (mut window, mut now_ns) = (Window::default(), 1_u64 << 40);
        let mut write = |bytes: u64, each_ns: u64, turns: u64| {
            for _ in 0..turns {
                now_ns += each_ns;
                window.count_turn(bytes, true, now_ns);
            }
            window.bytes
        };
        let ahead = |bytes_per_s: u64| bytes_per_s / (1_000_000_000 / AHEAD_NS);
        assert_eq!(write(4_000, 1_000_000_000, 3), LEAST_WINDOW_BYTES);
        let slow = write(40_000, 1_000_000, 200);
        assert!((ahead(39_000_000)..ahead(41_000_000)).contains(&slow), "{slow} at 40 MB/s");
        // Faster at once, slower little by little.
        let fast = write(400_000, 1_000_000, 2 * MEASURED_NS / 1_000_000);
        assert!(fast > ahead(300_000_000), "{fast} at 400 MB/s");
        let pause = write(4_000, 1_000_000_000, 1);
        assert!(pause > fast / 2 && pause < fast, "{pause} behind a pause");
        assert_eq!(write(4_000, 1_000_000_000, 40), LEAST_WINDOW_BYTES);
        assert_eq!(write(4_000_000, 1_000_000, 100), MOST_WINDOW_BYTES);
    }
}

//! Group commit: whoever waits first carries everything staged to the device, the next group forms meanwhile.
//!
//! Leader and followers was chosen over a thread that commits for all because a single writer then pays no hand-off.
//! The engine's committer thread is one more caller: it waits for what nobody waits for in person. One group is in
//! flight at a time, because the next one starts with the partial block that this one ends with.
//!
//! Callers wait at one of two gates: those that the flight carries, and those behind it. When it lands, one of the
//! second, who leads the next, and all of the first are woken: nobody wakes to find that nothing has changed for him.

use parking_lot::MutexGuard;
use std::sync::Arc;
use std::task::Waker;

use oncelog_device::device::Result as DeviceResult;
use oncelog_device::planted::{Bug, planted};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, BufferPool, DeviceFile, Sync};

use super::Shared;
use super::state::{Extent, Flight, Group, Progress, Staging, State, padded_length};
use super::types::Ack;
use super::undurable::CARRIED_BYTES;
use crate::bytes::Lent;
use crate::error::{Error, Result};
use crate::tail::Written;

/// What a leader carries in one turn.
pub(crate) struct Turn {
    /// `None`: nothing is staged, what was written must become durable.
    group: Option<Group>,
    /// The active segment's file.
    file: Arc<dyn DeviceFile>,
    number: u64,
    end_offset: i64,
    /// The segment whose batches the group carries, and how far it then goes.
    extent: Option<(i64, Extent)>,
    durable: bool,
    /// The file has completed writes that no sync covers.
    unsynced: bool,
    names_unsynced: bool,
    unsealed: Vec<Arc<dyn DeviceFile>>,
    /// The last append that was written before.
    written: u64,
    began_ns: u64,
}

impl Turn {
    /// File, position, length and durability of the write, where the turn is one write and nothing else.
    pub(crate) fn as_one_write(&self) -> Option<(Arc<dyn DeviceFile>, u64, usize, Sync)> {
        let group = self.group.as_ref()?;
        let alone = group.length > 0
            && group.birth.is_none()
            && group.seal_at.is_none()
            && !(self.durable && (self.unsynced || self.names_unsynced || !self.unsealed.is_empty()));
        let sync = if self.durable { Sync::Data } else { Sync::None };
        alone.then(|| (group.file.clone(), group.start, padded_length(group.length), sync))
    }

    /// The group's buffer, for as long as the device has it.
    pub(crate) fn lend_buffer(&mut self) -> AlignedBuffer {
        self.group.as_mut().map(|group| std::mem::take(&mut group.buffer)).unwrap_or_default()
    }

    pub(crate) fn take_back(&mut self, buffer: AlignedBuffer) {
        if let Some(group) = &mut self.group {
            group.buffer = buffer;
        }
    }
}

impl Shared {
    /// Blocks until append number `number` has reached the level, or the log is latched.
    pub(crate) fn commit(&self, number: u64, level: Ack) -> Result<()> {
        self.commit_from(self.state.lock(), number, level)
    }

    /// The same for a caller who has the lock already.
    pub(super) fn commit_from<'a>(&'a self, mut state: MutexGuard<'a, State>, number: u64, level: Ack) -> Result<()> {
        loop {
            if state.reached(number, level) {
                self.hand_over(&state);
                return Ok(());
            }
            if let Some(failure) = &state.latch {
                return Err(Error::Storage(failure.clone()));
            }
            if level == Ack::Durable {
                state.progress.durable_wanted = state.progress.durable_wanted.max(number);
            }
            let reached = match &state.progress.flight {
                // What stands in the files by now may be another engine's.
                None if state.closed => return Err(Error::Closed),
                None => self.lead(state, number, level),
                Some(flight) => {
                    let carried = flight.number >= number && (level != Ack::Durable || flight.durable);
                    let gate = &self.gates[gate_of(state.progress.turn, carried)];
                    let entered = gate.enter();
                    drop(state);
                    gate.wait(entered, number, level)
                }
            };
            if reached {
                return Ok(());
            }
            state = self.state.lock();
        }
    }

    /// One who leaves without leading wakes another where somebody waits for a leader.
    fn hand_over(&self, state: &State) {
        if state.progress.flight.is_none() {
            self.gates[gate_of(state.progress.turn, true)].wake_one();
        }
    }

    /// Commits everything accepted so far.
    pub(crate) fn commit_all(&self, level: Ack) -> Result<()> {
        let accepted = self.state.lock().progress.accepted;
        self.commit(accepted, level)
    }

    /// The state with nothing staged and nothing in flight: for those who change what is already written.
    pub(crate) fn quiesce(&self) -> Result<MutexGuard<'_, State>> {
        loop {
            self.commit_all(Ack::Durable)?;
            let mut state = self.state.lock();
            state.check_usable()?;
            if state.preparing {
                self.space.wait(&mut state);
            } else if state.progress.flight.is_none()
                && state.staged_bytes() == 0
                && state.progress.queue.is_empty()
                && state.staging.birth.is_none()
            {
                return Ok(state);
            }
        }
    }

    /// One turn as leader. Called with nothing in flight; answers whether it has brought the append to the level.
    fn lead(&self, mut state: MutexGuard<'_, State>, number: u64, level: Ack) -> bool {
        let mut turn = self.begin_turn(&mut state);
        drop(state);
        let result = self.carry(&mut turn);
        let reached = result.is_ok() && turn.number >= number && (level != Ack::Durable || turn.durable);
        self.land(turn, result);
        reached
    }

    /// Takes what is to be carried next. From now on there is a flight, which [`Self::land`] ends.
    fn begin_turn(&self, state: &mut State) -> Turn {
        let turn = take_turn(state, &self.buffers, self.clock.monotonic_ns());
        let batches = turn.group.as_ref().filter(|_| state.progress.keeps_flight).and_then(copied);
        state.progress.flight =
            Some(Flight { number: turn.number, durable: turn.durable, end_offset: turn.end_offset, batches });
        turn
    }

    /// Ends a flight: tells everyone whom it carried, and one who leads the next.
    fn land(&self, turn: Turn, result: DeviceResult<()>) {
        let mut ready = Vec::new();
        self.land_for(turn, result, &mut ready);
        ready.into_iter().for_each(Waker::wake);
    }

    /// The same, except that futures that have what they wait for are the caller's to wake.
    fn land_for(&self, mut turn: Turn, result: DeviceResult<()>, ready: &mut Vec<Waker>) {
        if let Some(group) = turn.group.take() {
            if group.length > group.carried {
                let took_ns = self.clock.monotonic_ns().saturating_sub(turn.began_ns);
                self.metrics.count_group(group.appends_behind(turn.written), took_ns);
            }
            self.let_go(group, result.is_ok());
        }
        let mut state = self.state.lock();
        let landed = state.progress.turn;
        state.progress.flight = None;
        state.progress.turn += 1;
        match result {
            Ok(()) => publish(&mut state, turn),
            Err(_) if planted(Bug::LatchIgnored) => publish(&mut state, turn),
            Err(failure) => {
                tracing::error!(%failure, "write or sync failed: the log is latched until it is opened again");
                state.latch.get_or_insert(Arc::new(failure));
            }
        }
        if std::mem::take(&mut state.progress.committer_held_up)
            && let Some(background) = &self.background
        {
            background.commits.ask(self.this());
        }
        let (written, durable) = (state.progress.written, state.progress.durable);
        let is_over = state.is_over();
        ready.extend(ready_futures(&mut state));
        ready.extend(state.due_followers());
        drop(state);
        let [carried, behind] = [true, false].map(|carried| &self.gates[gate_of(landed, carried)]);
        // Who leads the next group is on his way before all the others.
        match is_over {
            false => behind.wake_one(),
            true => behind.land(written, durable),
        }
        carried.land(written, durable);
    }

    /// Nothing is carried from now on: whoever waits for more than is on its way hears that.
    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let ready = ready_futures(&mut state);
        let (written, durable) = (state.progress.written, state.progress.durable);
        drop(state);
        self.gates.iter().for_each(|gate| gate.land(written, durable));
        ready.into_iter().for_each(Waker::wake);
        self.wake_followers();
    }

    /// A turn for one who looks after many logs: `None` where there is a flight already or nothing that was asked for.
    /// `for_committer`: whoever ends that flight asks the committer again.
    pub(crate) fn begin_wanted_turn(&self, for_committer: bool) -> Option<Turn> {
        let mut state = self.state.lock();
        let progress = &mut state.progress;
        let wanted = progress.durable_wanted > progress.durable || progress.committer_wanted > progress.written;
        if !wanted || state.latch.is_some() || state.closed {
            state.progress.committer_asked &= !for_committer;
            if state.is_over() {
                let ready = ready_futures(&mut state);
                drop(state);
                ready.into_iter().for_each(Waker::wake);
            }
            return None;
        }
        if state.progress.flight.is_some() {
            state.progress.committer_held_up |= for_committer;
            return None;
        }
        Some(self.begin_turn(&mut state))
    }

    /// Carries a turn on this thread and lands it.
    pub(crate) fn carry_and_land(&self, mut turn: Turn) {
        let result = self.carry(&mut turn);
        self.land(turn, result);
    }

    /// Lands a turn that was [`Turn::as_one_write`]; who is to be woken then is added to `ready`.
    pub(crate) fn land_one_write(&self, mut turn: Turn, result: DeviceResult<()>, ready: &mut Vec<Waker>) {
        turn.unsynced = !turn.durable;
        self.land_for(turn, result, ready);
    }

    /// What was wanted in a moment is wanted now.
    pub(crate) fn soon_is_now(&self) {
        let progress = &mut self.state.lock().progress;
        progress.durable_wanted = progress.durable_wanted.max(progress.durable_wanted_soon);
        progress.soon_asked = false;
    }

    /// Somebody waits for this append to be durable, or will.
    pub(crate) fn note_durable_wanted(&self, number: u64) {
        let progress = &mut self.state.lock().progress;
        progress.durable_wanted = progress.durable_wanted.max(number);
    }

    /// A written group stays in memory for those who read it next; the buffer of one that failed goes back.
    fn let_go(&self, group: Group, written: bool) {
        let buffer = Lent::new(group.buffer, self.buffers.clone());
        if written {
            let (base_offset, end_offset, range) = (group.base_offset, group.end_offset, group.carried..group.length);
            let position = group.start + group.carried as u64;
            self.tail.push(Written { base_offset, position, end_offset, buffer, range }, self.clock.monotonic_ns());
        }
    }

    /// Everything that a turn does to the device, without the lock.
    fn carry(&self, turn: &mut Turn) -> DeviceResult<()> {
        let mut whole = !turn.unsynced || planted(Bug::SyncCoversOnlyItself);
        if let Some(group) = &turn.group {
            if let Some(birth) = &group.birth {
                if turn.names_unsynced {
                    // Of two new names a crash may keep the second alone, and there would be a hole.
                    self.sync_sealed(&mut turn.unsealed)?;
                    self.device.sync_directory(&self.dir)?;
                }
                self.device.rename(&birth.from, &birth.to)?;
                group.file.renamed(&birth.to);
                turn.names_unsynced = true;
            }
            // A sync of the data alone covers this write only: enough when nothing before it waits for one.
            let alone = turn.durable && whole && group.seal_at.is_none();
            if group.length > 0 {
                let how = if alone && !planted(Bug::AnswerBeforeSync) { Sync::Data } else { Sync::None };
                group.file.write(group.start, &group.buffer, padded_length(group.length), how)?;
                if planted(Bug::OldMemoryWrittenLast) && group.carried > 0 {
                    let mut old = AlignedBuffer::new(BLOCK_BYTES);
                    old.as_mut_slice()[..group.carried].copy_from_slice(&group.buffer.as_slice()[..group.carried]);
                    group.file.write(group.start, &old, BLOCK_BYTES, how)?;
                }
                whole &= alone;
            }
            turn.unsynced |= !whole;
            if let Some(size) = group.seal_at {
                // Before the next segment is written: Kafka's recovery drops every segment behind one that it has to
                // cut.
                group.file.set_length(size)?;
                turn.unsealed.push(group.file.clone());
                turn.unsynced = false;
                whole = true;
            }
        }
        if turn.durable {
            self.sync_sealed(&mut turn.unsealed)?;
            if !whole || turn.group.is_none() {
                sync(&*turn.file)?;
            }
            if turn.names_unsynced && !planted(Bug::SegmentNameNotSynced) {
                self.device.sync_directory(&self.dir)?;
            }
            (turn.unsynced, turn.names_unsynced) = (false, false);
        }
        Ok(())
    }

    fn sync_sealed(&self, unsealed: &mut Vec<Arc<dyn DeviceFile>>) -> DeviceResult<()> {
        let skips = planted(Bug::SealNotSynced);
        unsealed.drain(..).filter(|_| !skips).try_for_each(|sealed| sync(&*sealed))
    }
}

/// Tried once: a second one that succeeds says nothing about what the first one lost.
fn sync(file: &dyn DeviceFile) -> DeviceResult<()> {
    match file.sync() {
        Err(_) if planted(Bug::FailedSyncRepeated) => file.sync(),
        done => done,
    }
}

/// The batches of a group, where they are few.
fn copied(group: &Group) -> Option<Vec<u8>> {
    let batches = group.carried..group.length;
    (batches.len() <= CARRIED_BYTES).then(|| group.buffer.as_slice()[batches].to_vec())
}

fn gate_of(turn: u64, carried: bool) -> usize {
    ((turn + u64::from(!carried)) % 2) as usize
}

/// The oldest group that is closed, or everything staged, or nothing but a sync.
fn take_turn(state: &mut State, pool: &BufferPool, began_ns: u64) -> Turn {
    let staged = state.staging.pending_bytes() > 0 || state.staging.birth.is_some();
    let group = match state.progress.queue.pop_front() {
        None if staged => Some(take_staging(state, pool, state.progress.accepted, None)),
        closed => closed,
    };
    let (file, number, end_offset) = match &group {
        Some(group) => (group.file.clone(), group.number, group.end_offset),
        None => (state.active().file.clone(), state.progress.written, state.log_end()),
    };
    let extent = group.as_ref().filter(|group| group.length > group.carried).map(|group| {
        let size = group.start + group.length as u64;
        (group.base_offset, Extent { size, data_end: group.end_offset })
    });
    let Progress { durable_wanted, durable, .. } = state.progress;
    // The end of a segment becomes durable together with the birth of the next, if that is waited for too.
    let waits_for_next = group.as_ref().is_some_and(|group| group.seal_at.is_some()) && durable_wanted > number;
    let durable = durable_wanted > durable && !waits_for_next;
    let bytes = group.as_ref().map_or(0, |group| (group.length - group.carried) as u64);
    state.window.count_turn(bytes, durable, began_ns);
    Turn {
        group,
        file,
        number,
        end_offset,
        extent,
        durable,
        unsynced: state.progress.unsynced,
        names_unsynced: state.progress.names_unsynced,
        unsealed: std::mem::take(&mut state.progress.unsealed),
        written: state.progress.written,
        began_ns,
    }
}

/// Closes the forming group; the next one begins with its partial last block.
pub(crate) fn take_staging(state: &mut State, pool: &BufferPool, number: u64, seal_at: Option<u64>) -> Group {
    let (file, base_offset, end_offset) = (state.active().file.clone(), state.active().base_offset, state.log_end());
    let staging = &mut state.staging;
    staging.reserve(0, pool);
    let carry = staging.length % BLOCK_BYTES;
    let whole = staging.length - carry;
    let padded = padded_length(staging.length);
    staging.buffer.as_mut_slice()[staging.length..padded].fill(if planted(Bug::TailNotZeroed) { 0x5a } else { 0 });
    // The next group will be about as large as one of the last two.
    let mut buffer = pool.take(staging.length.max(staging.previous));
    buffer.as_mut_slice()[..carry].copy_from_slice(&staging.buffer.as_slice()[whole..staging.length]);
    let (start, previous) = (staging.start + whole as u64, staging.length);
    let next = Staging { start, buffer, length: carry, carried: carry, previous, birth: None };
    let taken = std::mem::replace(staging, next);
    Group {
        file,
        base_offset,
        start: taken.start,
        buffer: taken.buffer,
        length: taken.length,
        carried: taken.carried,
        birth: taken.birth,
        seal_at,
        number,
        end_offset,
    }
}

fn publish(state: &mut State, turn: Turn) {
    let progress = &mut state.progress;
    progress.written = progress.written.max(turn.number);
    progress.unsynced = turn.unsynced;
    progress.names_unsynced = turn.names_unsynced;
    progress.unsealed = turn.unsealed;
    if let Some((base_offset, extent)) = turn.extent
        && let Some(segment) = state.segments.get_mut(&base_offset)
    {
        segment.written = extent;
    }
    if planted(Bug::HighWatermarkBeforeDurable) && state.follows_end {
        state.set_high_watermark(turn.end_offset);
    }
    let progress = &mut state.progress;
    if turn.durable {
        progress.durable = progress.durable.max(turn.number);
        progress.durable_offset = progress.durable_offset.max(turn.end_offset);
        if state.follows_end {
            let end = state.progress.durable_offset;
            if end > state.high_watermark {
                state.set_high_watermark(end);
            }
        }
    }
}

/// Takes out the futures that have what they wait for.
fn ready_futures(state: &mut State) -> Vec<Waker> {
    if state.progress.futures.is_empty() {
        return Vec::new();
    }
    let reached = |state: &State, number, level| state.is_over() || state.reached(number, level);
    let mut waiting = std::mem::take(&mut state.progress.futures);
    let ready = waiting.extract_if(.., |&(number, _), waiting| reached(state, number, waiting.level));
    let ready = ready.map(|(_, waiting)| waiting.waker).collect();
    state.progress.futures = waiting;
    ready
}

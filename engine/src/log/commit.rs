//! Group commit: whoever waits first carries everything staged to the device, the next group forms meanwhile.
//!
//! Leader and followers was chosen over a committer thread because a single writer then pays no hand-off; an engine's
//! driver thread only commits what nobody waits for. One group is in flight at a time, because the next one starts with
//! the partial block that this one ends with.

use parking_lot::MutexGuard;
use std::sync::Arc;
use std::task::Waker;

use oncelog_device::{BLOCK_BYTES, Sync};

use super::Shared;
use super::state::{Group, Staging, State, padded_length};
use super::types::Ack;
use crate::bytes::Lent;
use crate::error::{Error, Result};
use crate::tail::Written;

/// What a leader does in one turn.
enum Turn {
    Write(Box<Group>),
    /// Nothing is staged; what was written must become durable.
    SyncOnly,
}

/// What one turn achieved.
struct Done {
    number: u64,
    end_offset: i64,
    durable: bool,
    unsynced: bool,
    names_unsynced: bool,
    segment_synced: bool,
}

impl Shared {
    /// Blocks until append number `number` has reached the level, or the log is latched.
    pub(crate) fn commit(&self, number: u64, level: Ack) -> Result<()> {
        let mut state = self.state.lock();
        loop {
            if state.reached(number, level) {
                return Ok(());
            }
            if let Some(failure) = &state.latch {
                return Err(Error::Storage(failure.clone()));
            }
            if level == Ack::Durable {
                state.progress.durable_wanted = state.progress.durable_wanted.max(number);
            }
            if state.progress.busy {
                self.moved.wait(&mut state);
            } else {
                state = self.lead(state);
            }
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
            let state = self.state.lock();
            state.check_usable()?;
            if !state.progress.busy && !state.preparing && state.staged_bytes() == 0 && state.progress.queue.is_empty()
            {
                return Ok(state);
            }
        }
    }

    /// One turn as leader. Called with no group in flight; returns with none.
    fn lead<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let durable = state.progress.durable_wanted > state.progress.durable;
        let turn = take_turn(&mut state);
        let unsynced = state.progress.unsynced;
        let names = state.progress.names_unsynced;
        let file = state.active().file.clone();
        let (number, end_offset) = (state.progress.written, state.log_end());
        state.progress.busy = true;
        drop(state);
        let result = match turn {
            Turn::Write(group) => {
                let result = self.write_group(&group, durable, unsynced, names);
                self.let_go(*group, result.is_ok());
                result
            }
            Turn::SyncOnly => self.sync_only(&*file, names).map(|()| Done {
                number,
                end_offset,
                durable: true,
                unsynced: false,
                names_unsynced: false,
                segment_synced: true,
            }),
        };
        let mut state = self.state.lock();
        state.progress.busy = false;
        match result {
            Ok(done) => publish(&mut state, &done),
            Err(failure) => {
                tracing::error!(%failure, "write or sync failed: the log is latched until it is opened again");
                state.latch.get_or_insert(Arc::new(failure));
            }
        }
        for waker in state.progress.wakers.drain(..) {
            waker.wake();
        }
        self.moved.notify_all();
        let followers = state.due_followers();
        if !followers.is_empty() {
            MutexGuard::unlocked(&mut state, || followers.into_iter().for_each(Waker::wake));
        }
        state
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

    fn write_group(
        &self,
        group: &Group,
        durable: bool,
        unsynced: bool,
        names: bool,
    ) -> oncelog_device::device::Result<Done> {
        let mut names_unsynced = names;
        if let Some(birth) = &group.birth {
            self.device.rename(&birth.from, &birth.to)?;
            names_unsynced = true;
        }
        let seals = group.seal_at.is_some();
        // A sync of the data alone covers this write only: enough when nothing before it waits for one.
        let alone = durable && !unsynced && !seals;
        let how = if alone { Sync::Data } else { Sync::None };
        if group.length > 0 {
            group.file.write(group.start, &group.buffer, padded_length(group.length), how)?;
        }
        if let Some(size) = group.seal_at {
            // Before the next segment is written: Kafka's recovery drops every segment behind one that it has to cut.
            group.file.set_length(size)?;
        }
        let synced = seals || (durable && !alone);
        if synced {
            group.file.sync()?;
        }
        if (durable || seals) && names_unsynced {
            self.device.sync_directory(&self.dir)?;
            names_unsynced = false;
        }
        Ok(Done {
            number: group.number,
            end_offset: group.end_offset,
            durable: durable || seals,
            unsynced: !seals && !synced && (unsynced || !alone),
            names_unsynced,
            segment_synced: synced,
        })
    }

    fn sync_only(&self, file: &dyn oncelog_device::DeviceFile, names: bool) -> oncelog_device::device::Result<()> {
        file.sync()?;
        if names {
            self.device.sync_directory(&self.dir)?;
        }
        Ok(())
    }
}

fn take_turn(state: &mut State) -> Turn {
    if let Some(group) = state.progress.queue.pop_front() {
        return Turn::Write(Box::new(group));
    }
    if state.staging.pending_bytes() == 0 && state.staging.birth.is_none() {
        return Turn::SyncOnly;
    }
    let number = state.progress.accepted;
    Turn::Write(Box::new(take_staging(state, number, None)))
}

/// Closes the forming group; the next one begins with its partial last block.
pub(crate) fn take_staging(state: &mut State, number: u64, seal_at: Option<u64>) -> Group {
    let (file, base_offset, end_offset) = (state.active().file.clone(), state.active().base_offset, state.log_end());
    let staging = &mut state.staging;
    staging.reserve(0);
    let carry = staging.length % BLOCK_BYTES;
    let whole = staging.length - carry;
    let padded = padded_length(staging.length);
    staging.buffer.as_mut_slice()[staging.length..padded].fill(0);
    let next = Staging::new(staging.start + whole as u64, &staging.buffer.as_slice()[whole..staging.length]);
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

fn publish(state: &mut State, done: &Done) {
    let progress = &mut state.progress;
    progress.written = progress.written.max(done.number);
    progress.unsynced = done.unsynced && !done.segment_synced;
    progress.names_unsynced = done.names_unsynced;
    if done.durable {
        progress.durable = progress.durable.max(done.number);
        progress.durable_offset = progress.durable_offset.max(done.end_offset);
        if state.follows_end {
            let end = state.progress.durable_offset;
            if end > state.high_watermark {
                state.set_high_watermark(end);
            }
        }
    }
}

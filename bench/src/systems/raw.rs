//! The leanest durable log that writes the same bytes: checksum checked, offsets stamped, whoever waits first writes
//! for all, the partial last block carried, one prepared file.
//!
//! No duplicate check, no index, no roll, no reads. Waiters of two successive groups stand at different doors, so that
//! a finished group wakes its own and one leader for the next.

use oncelog_device::raw::RawRing;
use oncelog_device::{AlignedBuffer, BLOCK_BYTES};
use oncelog_formats::BatchView;
use oncelog_formats::batch::stamp;
use parking_lot::{Condvar, Mutex, MutexGuard};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::raw_bulk::{self, CallSink, PIECE_BYTES, RingSink};
use super::{Pending, Plan, System};
use crate::Failure;
use crate::batches::BatchSource;

/// Room of a group in memory at first; grows when one is larger.
const GROUP_BYTES: usize = 128 << 10;

/// What was accepted without a sync goes out when it is this much.
const ACCEPTED_BYTES: usize = 512 << 10;

/// So many pieces are on the way at once through the ring.
const DEPTH: usize = 8;

/// How bytes become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// One write with `RWF_DSYNC` through a ring.
    Ring,
    /// `pwritev2(RWF_DSYNC)`.
    Dsync,
    /// `pwrite`, then `fdatasync`.
    WriteThenSync,
}

/// A file that is written directly in one of the ways.
enum Target {
    Ring(Box<Mutex<RawRing>>),
    Calls(File, Way),
}

pub(crate) struct Raw {
    target: Target,
    state: Mutex<State>,
    doors: [Condvar; 2],
    file_bytes: u64,
    /// Whether writing goes on at the front when the file is full.
    wraps: bool,
}

#[derive(Default)]
struct State {
    staged: AlignedBuffer,
    spare: AlignedBuffer,
    length: usize,
    start: u64,
    next_offset: i64,
    /// Number of the group that forms; of the last one that is durable.
    forming: u64,
    durable: u64,
    busy: bool,
    failed: Option<String>,
}

/// What one leader writes.
struct Group {
    number: u64,
    buffer: AlignedBuffer,
    start: u64,
    padded: usize,
}

impl Raw {
    pub(super) fn open(dir: &Path, way: Way, plan: &Plan) -> Result<Self, Failure> {
        Self::open_named(&dir.join("raw.log"), way, plan)
    }

    /// One of several in a folder.
    pub(crate) fn open_named(path: &Path, way: Way, plan: &Plan) -> Result<Self, Failure> {
        // Where only so much is kept, the file is written round and round.
        let file_bytes = plan.retention_bytes.unwrap_or(plan.bytes).next_multiple_of(1 << 20);
        // The last group may be a large one.
        let file_bytes = file_bytes + file_bytes.clamp(1 << 20, 16 << 20);
        let file = prepared_file(path, file_bytes)?;
        let target = match way {
            Way::Ring => Target::Ring(Box::new(Mutex::new(RawRing::new(vec![file], DEPTH, PIECE_BYTES)?))),
            way => Target::Calls(file, way),
        };
        let buffer = || AlignedBuffer::new(GROUP_BYTES);
        let state = State { staged: buffer(), spare: buffer(), forming: 1, ..State::default() };
        Ok(Self {
            target,
            state: Mutex::new(state),
            doors: Default::default(),
            file_bytes,
            wraps: plan.retention_bytes.is_some(),
        })
    }

    /// Puts a batch into the forming group; answers the group's number.
    fn stage(&self, batch: &[u8]) -> Result<(MutexGuard<'_, State>, u64), Failure> {
        let view = BatchView::new(batch)?;
        view.verify_crc()?;
        let mut state = self.state.lock();
        let (from, to) = (state.length, state.length + batch.len());
        if state.staged.capacity_bytes() < to {
            let doubled = to.max(2 * state.staged.capacity_bytes());
            state.staged.resize(doubled);
        }
        let offset = state.next_offset;
        let staged = &mut state.staged.as_mut_slice()[from..to];
        staged.copy_from_slice(batch);
        stamp(staged, offset, 0)?;
        state.length = to;
        state.next_offset = offset + i64::from(view.header().record_count);
        let number = state.forming;
        Ok((state, number))
    }

    fn commit(&self, mut state: MutexGuard<'_, State>, number: u64) -> Result<(), Failure> {
        while state.durable < number {
            if let Some(reason) = &state.failed {
                return Err(reason.clone().into());
            }
            if state.busy {
                self.doors[(number % 2) as usize].wait(&mut state);
                continue;
            }
            let mut group = state.take_group();
            if group.start + group.padded as u64 > self.file_bytes {
                if !self.wraps {
                    return Err("more was written than was planned".into());
                }
                state.start -= group.start;
                group.start = 0;
            }
            let written = MutexGuard::unlocked(&mut state, || self.target.write_durably(&group));
            state.busy = false;
            match written {
                Ok(()) => state.durable = group.number,
                Err(error) => state.failed = Some(error.to_string()),
            }
            state.spare = group.buffer;
            self.doors[(group.number % 2) as usize].notify_all();
            self.doors[((group.number + 1) % 2) as usize].notify_one();
        }
        Ok(())
    }
}

impl State {
    /// The next group begins with the partial last block of this one.
    fn take_group(&mut self) -> Group {
        self.busy = true;
        let carry = self.length % BLOCK_BYTES;
        let whole = self.length - carry;
        let padded = self.length.next_multiple_of(BLOCK_BYTES);
        self.staged.as_mut_slice()[self.length..padded].fill(0);
        self.spare.as_mut_slice()[..carry].copy_from_slice(&self.staged.as_slice()[whole..self.length]);
        let next = std::mem::take(&mut self.spare);
        let buffer = std::mem::replace(&mut self.staged, next);
        let (number, start) = (self.forming, self.start);
        self.start += whole as u64;
        self.length = carry;
        self.forming += 1;
        Group { number, buffer, start, padded }
    }
}

impl Target {
    fn write_durably(&self, group: &Group) -> io::Result<()> {
        let bytes = &group.buffer.as_slice()[..group.padded];
        match self {
            Self::Ring(ring) => ring.lock().write_from(bytes, 0, group.start, true),
            Self::Calls(file, Way::WriteThenSync) => {
                file.write_all_at(bytes, group.start)?;
                file.sync_data()
            }
            Self::Calls(file, _) => {
                let written = pwritev2(file, &[IoSlice::new(bytes)], group.start, ReadWriteFlags::DSYNC)?;
                if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
            }
        }
    }
}

impl System for Raw {
    fn append(&self, _writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let (state, number) = self.stage(batch)?;
        self.commit(state, number)
    }

    fn submit<'a>(&'a self, _writer: usize, batch: &[u8]) -> Result<Pending<'a>, Failure> {
        let (_state, number) = self.stage(batch)?;
        Ok(Box::new(move || self.commit(self.state.lock(), number)))
    }

    fn accept(&self, _writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let (state, number) = self.stage(batch)?;
        if state.length < ACCEPTED_BYTES {
            return Ok(());
        }
        self.commit(state, number)
    }

    fn sync(&self) -> Result<(), Failure> {
        let state = self.state.lock();
        let number = state.forming;
        self.commit(state, number)
    }

    fn bulk(&self, source: &mut BatchSource, count: u64) -> Result<(), Failure> {
        match &self.target {
            Target::Ring(ring) => {
                raw_bulk::write(&mut RingSink::new(&mut ring.lock(), DEPTH), source, count, self.file_bytes)
            }
            Target::Calls(file, _) => raw_bulk::write(&mut CallSink::new(file), source, count, self.file_bytes),
        }
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A new file of written zeroes, open for direct writes.
pub(crate) fn prepared_file(path: &Path, bytes: u64) -> Result<File, Failure> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let file = OpenOptions::new().read(true).write(true).create_new(true).custom_flags(direct).open(path)?;
    let zeroes = AlignedBuffer::new(1 << 20);
    for position in (0..bytes).step_by(1 << 20) {
        let length = (bytes - position).min(1 << 20) as usize;
        file.write_all_at(&zeroes.as_slice()[..length], position)?;
    }
    file.sync_all()?;
    Ok(file)
}

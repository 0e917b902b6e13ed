//! What is measured: the engine on two devices, and a baseline that does only what a durable log cannot leave out.

use clap::ValueEnum;
use oncelog::{Append, Config, DeviceKind, Engine, EngineOptions, Log, OpenOptions};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, BlockingDevice, Device, DeviceFile, OpenMode, Sync};
use oncelog_formats::batch::stamp;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};

pub(crate) type Failure = Box<dyn std::error::Error + Send + std::marker::Sync>;

/// The systems by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// The engine on the best device.
    Oncelog,
    /// The engine on plain calls.
    OncelogBlocking,
    /// Group commit over one prepared file by `pwritev2`.
    RawPwritev2,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Oncelog, Self::OncelogBlocking, Self::RawPwritev2];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Oncelog => "oncelog",
            Self::OncelogBlocking => "oncelog-blocking",
            Self::RawPwritev2 => "raw-pwritev2",
        }
    }

    pub(crate) fn open(self, dir: &Path) -> Result<System, Failure> {
        let device_kind = match self {
            Self::Oncelog => DeviceKind::Auto,
            Self::OncelogBlocking => DeviceKind::Blocking,
            Self::RawPwritev2 => return Ok(System::Raw(Raw::open(&dir.join("raw.log"))?)),
        };
        let options = EngineOptions { device_kind, ..EngineOptions::default() };
        let engine = Engine::open(dir, options)?;
        let options = OpenOptions { config: Config::default(), ..OpenOptions::default() };
        let log = engine.log("bench-0", options)?;
        Ok(System::Engine(engine, log))
    }
}

/// One that runs.
pub(crate) enum System {
    Engine(Engine, Log),
    Raw(Raw),
}

impl System {
    /// Stores one batch and answers when it survives the loss of power.
    pub(crate) fn append(&self, batch: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Engine(_, log) => log.append_wait(Append::client(batch)).map(drop).map_err(Into::into),
            Self::Raw(raw) => raw.append(batch),
        }
    }

    pub(crate) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Engine(engine, log) => {
                drop(log);
                engine.close().map_err(Into::into)
            }
            Self::Raw(_) => Ok(()),
        }
    }
}

/// Bytes prepared before the clock starts; writing begins again at the front when they are used up.
const PREPARED_BYTES: u64 = 256 << 20;

/// The same batches into one file: offsets stamped, checksum checked, the partial last block carried, whoever waits
/// first writes for all.
pub(crate) struct Raw {
    file: Arc<dyn DeviceFile>,
    state: Mutex<RawState>,
    moved: Condvar,
}

#[derive(Default)]
struct RawState {
    staged: AlignedBuffer,
    spare: AlignedBuffer,
    length: usize,
    position: u64,
    next_offset: i64,
    accepted: u64,
    durable: u64,
    busy: bool,
    failed: Option<String>,
}

impl Raw {
    fn open(path: &Path) -> Result<Self, Failure> {
        let file = BlockingDevice::new().open(path, OpenMode::Create)?;
        file.prepare(0, PREPARED_BYTES)?;
        file.sync()?;
        Ok(Self { file, state: Mutex::default(), moved: Condvar::new() })
    }

    fn append(&self, batch: &[u8]) -> Result<(), Failure> {
        let view = oncelog_formats::BatchView::new(batch)?;
        view.verify_crc()?;
        let mut state = self.state.lock().map_err(|_| "another writer failed")?;
        let from = state.length;
        let to = from + batch.len();
        if state.staged.capacity_bytes() < to {
            state.staged.resize(to.max(1 << 20));
        }
        let offset = state.next_offset;
        let staged = &mut state.staged.as_mut_slice()[from..to];
        staged.copy_from_slice(batch);
        stamp(staged, offset, 0)?;
        state.length = to;
        state.next_offset = offset + i64::from(view.header().record_count);
        state.accepted += 1;
        let number = state.accepted;
        while state.durable < number {
            if let Some(reason) = &state.failed {
                return Err(reason.clone().into());
            }
            if state.busy {
                state = self.moved.wait(state).map_err(|_| "another writer failed")?;
                continue;
            }
            let group = state.take_group();
            drop(state);
            let written = self.file.write(group.position, &group.buffer, group.padded, Sync::Data);
            state = self.state.lock().map_err(|_| "another writer failed")?;
            state.busy = false;
            match written {
                Ok(()) => state.durable = group.number,
                Err(error) => state.failed = Some(error.to_string()),
            }
            state.spare = group.buffer;
            self.moved.notify_all();
        }
        Ok(())
    }
}

/// What one leader writes.
struct RawGroup {
    buffer: AlignedBuffer,
    position: u64,
    padded: usize,
    number: u64,
}

impl RawState {
    /// The next group begins with the partial last block of this one.
    fn take_group(&mut self) -> RawGroup {
        self.busy = true;
        let carry = self.length % BLOCK_BYTES;
        let whole = self.length - carry;
        let padded = self.length.next_multiple_of(BLOCK_BYTES);
        if self.spare.capacity_bytes() < BLOCK_BYTES {
            self.spare.resize(1 << 20);
        }
        self.staged.as_mut_slice()[self.length..padded].fill(0);
        let carried = &self.staged.as_slice()[whole..self.length];
        self.spare.as_mut_slice()[..carry].copy_from_slice(carried);
        let next = std::mem::take(&mut self.spare);
        let buffer = std::mem::replace(&mut self.staged, next);
        if self.position + padded as u64 > PREPARED_BYTES {
            self.position = 0;
        }
        let position = self.position;
        self.position += whole as u64;
        self.length = carry;
        RawGroup { buffer, position, padded, number: self.accepted }
    }
}

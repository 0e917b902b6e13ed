//! A recorded run: what was sent, what was answered at which moment.

use oncelog::{Ack, Append, Config, Engine, EngineOptions, Log, ManualClock, OpenOptions, Ticket};
use oncelog_device::record::{History, RecordDevice};
use oncelog_device::{BlockingDevice, Device, UringDevice};
use oncelog_formats::BatchBuilder;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub const NAME: &str = "recorded-0";
const NOW_MS: i64 = 1_700_000_000_000;

/// What a mark says; the number goes with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The batch of this number was sent.
    Sent,
    /// The batch of this number was answered durable.
    Durable,
    /// Everything below this offset was shown to readers or called synced.
    Shown,
    /// The log start may move up to here.
    StartWanted,
    /// The log start was answered.
    Start,
    /// What stands at or behind this offset may go.
    Truncating,
    /// It is gone: cut off, or never written when the process ended.
    Truncated,
}

const MARKS: [Mark; 7] =
    [Mark::Sent, Mark::Durable, Mark::Shown, Mark::StartWanted, Mark::Start, Mark::Truncating, Mark::Truncated];
const NUMBER_BITS: u32 = 48;

/// A batch, and the offsets that it was given.
#[derive(Clone, Debug)]
pub struct Sent {
    pub producer: i64,
    pub bytes: Vec<u8>,
    pub first_offset: i64,
    pub last_offset: i64,
}

/// Everything about a run that is over.
pub struct Run {
    pub history: History,
    pub root: PathBuf,
    pub config: Config,
    /// By their numbers.
    pub sent: Vec<Sent>,
    /// False claims: batches called durable from the first moment on.
    pub claimed: Vec<usize>,
}

impl Run {
    /// What was known by a moment, as (mark, number).
    pub fn marks(&self, moment: usize) -> impl Iterator<Item = (Mark, u64)> + '_ {
        let marks = self.history.marks_before(moment);
        marks.map(|mark| (MARKS[(mark >> NUMBER_BITS) as usize], mark & ((1 << NUMBER_BITS) - 1)))
    }
}

/// A run that goes on.
pub struct Recorder {
    directory: tempfile::TempDir,
    device: RecordDevice,
    pub config: Config,
    pub sent: Mutex<Vec<Sent>>,
}

impl Recorder {
    /// Over the ring where there is one, and over plain system calls for every third seed.
    pub fn new(seed: u64, config: Config) -> Self {
        let ring = UringDevice::new().ok().filter(|_| seed % 3 != 2);
        let base: Arc<dyn Device> = match ring {
            Some(ring) => Arc::new(ring),
            None => Arc::new(BlockingDevice::new()),
        };
        let directory = tempfile::tempdir().expect("a directory");
        Self { directory, device: RecordDevice::new(base), config, sent: Mutex::default() }
    }

    pub fn open(&self) -> (Engine, Log) {
        open(Arc::new(self.device.clone()), self.directory.path(), &self.config).expect("the log opens")
    }

    pub fn mark(&self, mark: Mark, number: u64) {
        let kind = MARKS.iter().position(|known| *known == mark).expect("a known mark") as u64;
        self.device.mark(kind << NUMBER_BITS | number);
    }

    /// Appends; the number of the batch goes with the ticket.
    pub fn append(&self, log: &Log, producer: i64, bytes: Vec<u8>, ack: Ack) -> (usize, Ticket) {
        let number = {
            let mut sent = self.sent.lock();
            sent.push(Sent { producer, bytes: bytes.clone(), first_offset: -1, last_offset: -1 });
            sent.len() - 1
        };
        self.mark(Mark::Sent, number as u64);
        let ticket = log.append(Append::client(&bytes).ack(ack)).expect("accepted");
        let expected = ticket.expected();
        let batch = &mut self.sent.lock()[number];
        (batch.first_offset, batch.last_offset) = (expected.base_offset, expected.last_offset);
        (number, ticket)
    }

    /// Waits for the answer and marks what it promises.
    pub fn wait(&self, (number, ticket): (usize, Ticket), ack: Ack) {
        ticket.wait().expect("answered");
        if ack == Ack::Durable {
            self.mark(Mark::Durable, number as u64);
        }
    }

    /// Readers look how far they may read.
    pub fn look(&self, log: &Log) {
        self.mark(Mark::Shown, log.high_watermark().cast_unsigned());
    }

    /// The run is over.
    pub fn finish(self) -> Run {
        let root = self.directory.path().to_path_buf();
        Run { history: self.device.history(), root, config: self.config, sent: self.sent.into_inner(), claimed: vec![] }
    }
}

pub fn open(device: Arc<dyn Device>, root: &Path, config: &Config) -> Result<(Engine, Log), oncelog::Error> {
    let options = EngineOptions {
        device: Some(device),
        clock: Some(Arc::new(ManualClock::new(NOW_MS))),
        driver: false,
        ..EngineOptions::default()
    };
    let engine = Engine::open(root, options)?;
    let log = engine.log(NAME, OpenOptions { config: config.clone(), ..OpenOptions::default() })?;
    Ok((engine, log))
}

/// One batch of `records` records that no other batch equals.
pub fn batch(producer: i64, sequence: i32, records: i32, value_bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    for record in 0..records {
        let value = format!("{producer}/{}/{}", sequence + record, "x".repeat(value_bytes));
        builder.append(NOW_MS, None, Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a batch")
}

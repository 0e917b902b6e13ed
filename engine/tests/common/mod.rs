//! What the stories share: a data directory on some device, batches of numbered records, and a reader that counts.
#![allow(dead_code, missing_docs)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncelog::{
    Ack, Append, Appended, Config, Device, DeviceKind, Engine, EngineOptions, Error, Isolation, Log, ManualClock,
    OpenOptions, Outcome, Read,
};
use oncelog_device::MemoryDevice;
use oncelog_formats::{BatchBuilder, Batches};

pub const NAME: &str = "story-0";
pub const NOW_MS: i64 = 1_700_000_000_000;

/// One batch of `producer` with one record for each value.
pub fn batch(producer: i64, sequence: i32, values: &[String]) -> Vec<u8> {
    build(producer, sequence, values, false)
}

/// The same inside a transaction.
pub fn txn_batch(producer: i64, sequence: i32, values: &[String]) -> Vec<u8> {
    build(producer, sequence, values, true)
}

fn build(producer: i64, sequence: i32, values: &[String], transactional: bool) -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence).transactional(transactional);
    for value in values {
        builder.append(NOW_MS, None, Some(value.as_bytes()), &[]);
    }
    builder.build().expect("a small batch")
}

/// One batch of one record whose value tells producer and sequence, filled up to about `bytes`.
pub fn single(producer: i64, sequence: i32, bytes: usize) -> Vec<u8> {
    batch(producer, sequence, &[value(producer, sequence, bytes)])
}

pub fn value(producer: i64, sequence: i32, bytes: usize) -> String {
    format!("{producer}/{sequence}/{}", "x".repeat(bytes))
}

/// Small segments and an index entry for nearly every batch.
pub fn small_segments(segment_bytes: u64) -> Config {
    Config {
        segment_bytes,
        index_interval_bytes: 256,
        transaction_partition_verification_enable: false,
        ..Config::default()
    }
}

pub fn options(config: &Config) -> OpenOptions {
    OpenOptions { config: config.clone(), ..OpenOptions::default() }
}

/// A device, a directory on it and a clock that stands still; the background work is driven by hand.
pub struct Place {
    pub dir: PathBuf,
    pub device: Option<Arc<dyn Device>>,
    pub kind: DeviceKind,
    pub clock: Arc<ManualClock>,
    _temporary: Option<tempfile::TempDir>,
}

impl Place {
    /// A temporary directory of this machine.
    pub fn on_disk() -> Self {
        let temporary = tempfile::tempdir().expect("a temporary directory");
        let dir = temporary.path().to_path_buf();
        Self {
            dir,
            device: None,
            kind: DeviceKind::Auto,
            clock: Arc::new(ManualClock::new(NOW_MS)),
            _temporary: Some(temporary),
        }
    }

    /// A disk in memory.
    pub fn in_memory(device: &MemoryDevice) -> Self {
        Self {
            dir: "/data".into(),
            device: Some(Arc::new(device.clone())),
            kind: DeviceKind::Memory,
            clock: Arc::new(ManualClock::new(NOW_MS)),
            _temporary: None,
        }
    }

    pub fn engine(&self) -> Engine {
        self.try_engine().expect("the engine opens")
    }

    pub fn try_engine(&self) -> Result<Engine, Error> {
        let options = EngineOptions {
            device: self.device.clone(),
            device_kind: self.kind,
            clock: Some(self.clock.clone()),
            driver: false,
            ..EngineOptions::default()
        };
        Engine::open(&self.dir, options)
    }

    pub fn open(&self, config: &Config) -> (Engine, Log) {
        let engine = self.engine();
        let log = engine.log(NAME, options(config)).expect("the log opens");
        (engine, log)
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(NAME).join(name)
    }
}

#[track_caller]
pub fn put(log: &Log, bytes: &[u8]) -> Appended {
    log.append_wait(Append::client(bytes)).expect("the append is answered")
}

pub fn put_as(log: &Log, bytes: &[u8], ack: Ack) -> Appended {
    log.append_wait(Append::client(bytes).ack(ack)).expect("the append is answered")
}

/// The batch must be answered as a retry with these offsets.
#[track_caller]
pub fn expect_duplicate(log: &Log, bytes: &[u8], first: &Appended) {
    let again = put(log, bytes);
    assert_eq!(again.outcome, Outcome::Duplicate, "stored twice: first {first:?}, now {again:?}");
    assert_eq!((again.base_offset, again.last_offset), (first.base_offset, first.last_offset));
}

/// Every data record from `from` to the end, by reads of `max_bytes`; offsets rise by one from record to record.
pub fn read_from(log: &Log, from: i64, isolation: Isolation, max_bytes: usize) -> Result<Vec<(i64, String)>, Error> {
    let mut found = Vec::new();
    let mut offset = from;
    loop {
        let fetched = log.read(Read { offset, max_bytes, isolation, at_least_one: true })?;
        if fetched.data.is_empty() {
            return Ok(found);
        }
        for view in Batches::new(&fetched.data) {
            let view = view.expect("whole batches");
            if !view.header().is_control() {
                let records = view.decode(16 << 20).expect("records");
                for record in records.records() {
                    let record = record.expect("a record");
                    if record.offset >= from {
                        found.push((
                            record.offset,
                            String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text"),
                        ));
                    }
                }
            }
            assert!(view.header().next_offset() > offset, "a read goes forward");
            offset = view.header().next_offset();
        }
    }
}

/// Offsets and values of the committed data records, from the log start on.
pub fn read_committed(log: &Log) -> Vec<(i64, String)> {
    let (mut found, mut offset) = (Vec::new(), log.log_start_offset());
    loop {
        let read = log.read_committed(offset, 1 << 20).expect("a read");
        for batch in read.batches() {
            for record in batch.expect("a whole batch").decode(16 << 20).expect("records").records() {
                let record = record.expect("a record");
                let text = String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text");
                found.push((record.offset, text));
            }
        }
        if read.next_offset() == offset {
            return found;
        }
        offset = read.next_offset();
    }
}

pub fn read_all(log: &Log) -> Vec<(i64, String)> {
    read_from(log, log.log_start_offset(), Isolation::LogEnd, 1 << 20).expect("all of it can be read")
}

/// Names of a log's segments by base offset, `.log` files only, in order.
pub fn segment_files(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir.join(NAME))
        .expect("the log's directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    found.sort();
    found
}

pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            std::fs::write(&target, std::fs::read(&path).expect("a file")).expect("a copy");
        }
    }
}

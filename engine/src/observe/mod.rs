//! What an engine tells about itself: counters of each log, and the text that shows them.
//!
//! Counters belong to a log, not to the process: two engines in one process do not add up. They are relaxed atomics, so
//! counting takes no lock and orders nothing; what the log knows anyway (offsets, sizes, producers) is not counted but
//! asked when the text is made. Names and units are a promise, listed in `docs/metrics.md`.

mod histogram;
pub(crate) mod text;

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::error::Error;
use histogram::Histogram;

/// Upper bounds of commit times, in ns: a device's write with its sync takes some 100 us.
const COMMIT_BOUNDS_NS: [u64; 12] = [
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    200_000_000,
    1_000_000_000,
];
/// Upper bounds of a group's appends.
const GROUP_BOUNDS: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];

/// Where a read found its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// In the tail in memory.
    Tail,
    /// In a segment's file.
    File,
}

/// Counters of one log.
#[derive(Debug)]
pub(crate) struct Metrics {
    appends: AtomicU64,
    appended_bytes: AtomicU64,
    appended_records: AtomicU64,
    duplicates: AtomicU64,
    /// By Kafka's name of the error. Behind a lock because a refused append is not the path that counts.
    refused: Mutex<BTreeMap<&'static str, u64>>,
    space_waits: AtomicU64,
    reads: [AtomicU64; 2],
    read_bytes: [AtomicU64; 2],
    rolls: AtomicU64,
    expired: AtomicU64,
    commit_ns: Histogram<12>,
    group_appends: Histogram<9>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            appends: AtomicU64::new(0),
            appended_bytes: AtomicU64::new(0),
            appended_records: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            refused: Mutex::default(),
            space_waits: AtomicU64::new(0),
            reads: Default::default(),
            read_bytes: Default::default(),
            rolls: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            commit_ns: Histogram::new(&COMMIT_BOUNDS_NS),
            group_appends: Histogram::new(&GROUP_BOUNDS),
        }
    }
}

impl Metrics {
    /// One append was stored.
    pub fn count_append(&self, records: u64, bytes: u64) {
        self.appends.fetch_add(1, Relaxed);
        self.appended_records.fetch_add(records, Relaxed);
        self.appended_bytes.fetch_add(bytes, Relaxed);
    }

    /// One append was stored before.
    pub fn count_duplicate(&self) {
        self.duplicates.fetch_add(1, Relaxed);
    }

    /// One append was not stored.
    pub fn count_refused(&self, error: &Error) {
        *self.refused.lock().entry(error.kafka_name()).or_default() += 1;
    }

    /// An append waited for space to be prepared.
    pub fn count_space_wait(&self) {
        self.space_waits.fetch_add(1, Relaxed);
    }

    /// A read was answered with batches.
    pub fn count_read(&self, source: Source, bytes: usize) {
        self.reads[source as usize].fetch_add(1, Relaxed);
        self.read_bytes[source as usize].fetch_add(bytes as u64, Relaxed);
    }

    /// A segment was sealed and the next one begun.
    pub fn count_roll(&self) {
        self.rolls.fetch_add(1, Relaxed);
    }

    /// Producers were forgotten because they were silent for too long.
    pub fn count_expired(&self, producers: usize) {
        self.expired.fetch_add(producers as u64, Relaxed);
    }

    /// A group of so many appends went to the device in so many ns, with its sync if it had one.
    pub fn count_group(&self, appends: u64, took_ns: u64) {
        self.group_appends.record(appends);
        self.commit_ns.record(took_ns);
    }
}

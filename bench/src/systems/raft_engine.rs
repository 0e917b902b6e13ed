//! raft-engine: one group for each writer, entries of one batch each.
//!
//! As it comes, and with its log files filled in advance, which it does only when asked.

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Plan, System};
use crate::Failure;

pub(super) struct RaftEngine {
    engine: Engine,
    next: Vec<AtomicU64>,
}

/// A batch; its index stands where Kafka keeps the base offset.
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        entry.value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

impl RaftEngine {
    pub(super) fn open(dir: &Path, plan: &Plan, prefilled: bool) -> Result<Self, Failure> {
        let mut config = Config { dir: dir.to_string_lossy().into_owned(), ..Config::default() };
        if prefilled {
            config.prefill_for_recycle = true;
            // It fills half as much again as it is told to.
            let limit = (plan.bytes / 3 * 2).next_multiple_of(config.target_file_size.0);
            config.prefill_limit = Some(ReadableSize(limit));
        }
        let next = (0..plan.writers).map(|_| AtomicU64::new(1)).collect();
        Ok(Self { engine: Engine::open(config)?, next })
    }

    fn write(&self, writer: usize, batch: &[u8], sync: bool) -> Result<(), Failure> {
        let index = self.next[writer].fetch_add(1, Ordering::Relaxed);
        let mut entry = BytesValue::new();
        entry.value = batch.to_vec();
        entry.value[..8].copy_from_slice(&index.to_be_bytes());
        let mut entries = LogBatch::with_capacity(1);
        entries.add_entries::<Entry>(writer as u64 + 1, &[entry])?;
        self.engine.write(&mut entries, sync)?;
        Ok(())
    }
}

impl System for RaftEngine {
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.write(writer, batch, true)
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.write(writer, batch, false)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.engine.sync()?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

//! The table as a `.snapshot` file and back.
//!
//! Kafka's entry keeps one batch of a producer; all five go into our extension behind the entries, with our append
//! times. What Kafka wrote is read as Kafka reads it. The extension counts only if it fits the entries, producer by
//! producer and by digest: otherwise somebody rewrote the entries, which are then the truth.

use std::collections::HashMap;

use oncelog_formats::Result;
use oncelog_formats::snapshot::{
    Extension, ProducerExtra, SealedSegment, SnapshotEntry, SnapshotFile, SnapshotWriter, Trailing,
};

use crate::open_txns::OpenTxns;
use crate::producer::{Forgotten, ProducerEntry};
use crate::table::{Frozen, FrozenBlock, ProducerTable, entry_term};

/// Entries that are read from a view in one step: some microseconds of work.
pub const STEP_ENTRIES: usize = 256;

/// What a snapshot says about the log besides its producers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Exclusive end of what the state covers.
    pub log_end_offset: i64,
    /// Everything below was synced when the snapshot was taken.
    pub durable_offset: i64,
    /// The segment sealed then, if one was.
    pub sealed: Option<SealedSegment>,
    /// Which log it is.
    pub log_id: Option<[u8; 16]>,
}

/// What was read from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The producers.
    pub table: ProducerTable,
    /// Their open transactions.
    pub open_txns: OpenTxns,
    /// What else it says; none if Kafka wrote it, or if our part does not count.
    pub meta: Option<SnapshotMeta>,
    /// What stood behind Kafka's entries; `Damaged` also if it does not fit them.
    pub trailing: Trailing,
}

impl Loaded {
    /// False where we had written more of the producers than can be read.
    pub fn is_whole(&self) -> bool {
        !matches!(self.trailing, Trailing::OtherVersion | Trailing::Damaged)
    }
}

/// A snapshot file being made from a frozen view.
#[derive(Debug)]
pub struct Encoder {
    writer: SnapshotWriter,
    meta: SnapshotMeta,
    /// Of the producers pushed: where some were still on disk when the view began, the view does not know it.
    digest: u64,
}

impl Encoder {
    /// A file of what `frozen` shows.
    pub fn new(frozen: &Frozen, meta: SnapshotMeta) -> Self {
        Self { writer: SnapshotWriter::new(frozen.len), meta, digest: 0 }
    }

    /// The next blocks of the view.
    pub fn push(&mut self, blocks: &[FrozenBlock]) {
        for (producer_id, entry) in blocks.iter().flat_map(FrozenBlock::entries) {
            self.digest = self.digest.wrapping_add(entry_term(producer_id, &entry));
            self.writer.push_entry(&kafka_entry(producer_id, &entry));
            let forgotten = entry.forgotten == Forgotten::Producer;
            self.writer.push_extra(producer_id, entry.last_append_ms, forgotten, entry.batches());
        }
    }

    /// The bytes of the file, once the whole view was pushed.
    pub fn finish(self) -> Vec<u8> {
        let SnapshotMeta { log_end_offset, durable_offset, sealed, log_id } = self.meta;
        let digest = self.digest;
        let extension = Extension { producers: Vec::new(), log_end_offset, durable_offset, digest, sealed, log_id };
        self.writer.finish(Some(&extension))
    }
}

/// The bytes of the snapshot file of a table that nobody else changes meanwhile.
pub fn encode(table: &mut ProducerTable, meta: &SnapshotMeta) -> Vec<u8> {
    let mut frozen = table.freeze();
    let mut encoder = Encoder::new(&frozen, *meta);
    loop {
        let blocks = table.read_frozen(&mut frozen, STEP_ENTRIES);
        if blocks.is_empty() {
            table.thaw(frozen);
            return encoder.finish();
        }
        encoder.push(&blocks);
    }
}

/// Reads a snapshot file, ours or Kafka's. Of Kafka's, each producer has at most one batch, with the entry's timestamp,
/// and counts as having appended at that timestamp, which is what Kafka's expiry goes by.
///
/// # Errors
/// [`FormatError`](oncelog_formats::FormatError) if the file is corrupt to Kafka.
pub fn decode(bytes: &[u8]) -> Result<Loaded> {
    let (file, trailing) = SnapshotFile::decode_with_trailing(bytes)?;
    let extended = file.extension.as_ref().map(|extension| extended_table(&file.entries, extension));
    let (table, meta, trailing) = match (extended, &file.extension) {
        (Some(Some(table)), Some(extension)) => (table, Some(meta_of(extension)), trailing),
        (Some(None), _) => (kafka_table(&file.entries), None, Trailing::Damaged),
        _ => (kafka_table(&file.entries), None, trailing),
    };
    Ok(Loaded { open_txns: OpenTxns::from_table(&table), table, meta, trailing })
}

fn meta_of(extension: &Extension) -> SnapshotMeta {
    let Extension { log_end_offset, durable_offset, sealed, log_id, .. } = *extension;
    SnapshotMeta { log_end_offset, durable_offset, sealed, log_id }
}

/// As Kafka would write it. Of a producer that it would have forgotten as a whole it is told the newest batch.
pub fn kafka_entry(producer_id: i64, entry: &ProducerEntry) -> SnapshotEntry {
    let last = entry.last_batch().filter(|_| entry.forgotten != Forgotten::Batches);
    let offset_delta = last.map_or(0, |batch| batch.last_offset.saturating_sub(batch.first_offset));
    SnapshotEntry {
        producer_id,
        epoch: entry.epoch,
        last_sequence: last.map_or(-1, |batch| batch.last_sequence),
        last_offset: last.map_or(-1, |batch| batch.last_offset),
        offset_delta: i32::try_from(offset_delta).unwrap_or(i32::MAX),
        timestamp: entry.last_timestamp,
        coordinator_epoch: entry.coordinator_epoch,
        current_txn_first_offset: entry.txn_first_offset.unwrap_or(-1),
    }
}

fn kafka_table(entries: &[SnapshotEntry]) -> ProducerTable {
    let mut table = ProducerTable::new();
    for kafka in entries {
        let mut entry = without_batches(kafka);
        if let Some(batch) = kafka.last_batch() {
            entry.push_batch(batch);
        }
        table.put(kafka.producer_id, entry);
    }
    table
}

/// The table with all that the extension adds; none if it does not fit the entries.
fn extended_table(entries: &[SnapshotEntry], extension: &Extension) -> Option<ProducerTable> {
    let extras: HashMap<i64, &ProducerExtra> = extension.producers.iter().map(|e| (e.producer_id, e)).collect();
    let mut table = ProducerTable::new();
    for kafka in entries {
        let extra = extras.get(&kafka.producer_id)?;
        let mut entry = without_batches(kafka);
        entry.last_append_ms = extra.last_append_ms;
        for &batch in &extra.batches {
            entry.push_batch(batch);
        }
        entry.forgotten = match (extra.forgotten, kafka.last_batch()) {
            (true, _) => Forgotten::Producer,
            (false, None) if !extra.batches.is_empty() => Forgotten::Batches,
            _ => Forgotten::Nothing,
        };
        if kafka_entry(kafka.producer_id, &entry) != *kafka {
            return None;
        }
        table.put(kafka.producer_id, entry);
    }
    (table.len() == extension.producers.len() && table.digest() == extension.digest).then_some(table)
}

fn without_batches(kafka: &SnapshotEntry) -> ProducerEntry {
    let mut entry = ProducerEntry::default();
    entry.epoch = kafka.epoch;
    entry.coordinator_epoch = kafka.coordinator_epoch;
    entry.last_timestamp = kafka.timestamp;
    entry.last_append_ms = kafka.timestamp;
    entry.txn_first_offset = kafka.open_txn();
    entry
}

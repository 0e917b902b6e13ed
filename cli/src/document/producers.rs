//! Producers, as remembered in memory and as stored in snapshots, with the digests that stand for long lists.

use oncelog::{ProducerEntry, SnapshotState};
use oncelog_formats::snapshot::SnapshotEntry;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// `producers_after_load` with its count and digest; the order is by producer id.
pub fn remembered(producers: &[(i64, ProducerEntry)], document: &mut Map<String, Value>) {
    let mut digest = Sha256::new();
    for (id, entry) in producers {
        digest.update(remembered_line(*id, entry));
    }
    let list: Vec<Value> = producers.iter().map(|(id, entry)| producer(*id, entry)).collect();
    document.insert("producers_after_load_count".into(), list.len().into());
    document.insert("producers_after_load_sha256".into(), hex::encode(digest.finalize()).into());
    document.insert("producers_after_load".into(), list.into());
}

/// One producer as the document shows it, its batches oldest first.
pub fn producer(id: i64, entry: &ProducerEntry) -> Value {
    let batches: Vec<Value> = entry
        .batches()
        .iter()
        .map(|batch| {
            json!({
                "first_seq": batch.first_sequence,
                "last_seq": batch.last_sequence,
                "first_offset": batch.first_offset,
                "last_offset": batch.last_offset,
                "timestamp": batch.timestamp,
            })
        })
        .collect();
    json!({
        "producer_id": id,
        "epoch": entry.epoch,
        "coordinator_epoch": entry.coordinator_epoch,
        "last_timestamp": entry.last_timestamp,
        "current_txn_first_offset": entry.txn_first_offset.unwrap_or(-1),
        "batches": batches,
    })
}

/// Open transactions, earliest first.
pub fn open_transactions(producers: &[(i64, ProducerEntry)]) -> Vec<Value> {
    let mut open: Vec<_> = producers
        .iter()
        .filter_map(|(id, entry)| entry.txn_first_offset.map(|first| (first, *id, entry.epoch)))
        .collect();
    open.sort_unstable();
    open.into_iter()
        .map(|(first, id, epoch)| json!({ "producer_id": id, "producer_epoch": epoch, "first_offset": first }))
        .collect()
}

/// One snapshot file; an unreadable one says why in `corrupt`.
pub fn snapshot(state: &SnapshotState) -> Value {
    let entries = match &state.entries {
        Ok(entries) => entries,
        Err(reason) => return json!({ "offset": state.offset, "corrupt": reason }),
    };
    let mut entries: Vec<&SnapshotEntry> = entries.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.producer_id);
    let mut digest = Sha256::new();
    for entry in &entries {
        digest.update(stored_line(entry));
    }
    let producers: Vec<Value> = entries.iter().map(|entry| stored(entry)).collect();
    json!({
        "offset": state.offset,
        "producers_count": producers.len(),
        "producers_sha256": hex::encode(digest.finalize()),
        "producers": producers,
    })
}

fn stored(entry: &SnapshotEntry) -> Value {
    json!({
        "producer_id": entry.producer_id,
        "epoch": entry.epoch,
        "last_sequence": entry.last_sequence,
        "last_offset": entry.last_offset,
        "offset_delta": entry.offset_delta,
        "timestamp": entry.timestamp,
        "coordinator_epoch": entry.coordinator_epoch,
        "current_txn_first_offset": entry.current_txn_first_offset,
    })
}

fn stored_line(entry: &SnapshotEntry) -> String {
    format!(
        "{},{},{},{},{},{},{},{}\n",
        entry.producer_id,
        entry.epoch,
        entry.last_sequence,
        entry.last_offset,
        entry.offset_delta,
        entry.timestamp,
        entry.coordinator_epoch,
        entry.current_txn_first_offset
    )
}

fn remembered_line(id: i64, entry: &ProducerEntry) -> String {
    let mut line = format!(
        "{id},{},{},{},{}",
        entry.epoch,
        entry.coordinator_epoch,
        entry.last_timestamp,
        entry.txn_first_offset.unwrap_or(-1)
    );
    for batch in entry.batches() {
        // Writing to a String cannot fail.
        let _ = write!(
            line,
            "|{}-{}@{}-{}:{}",
            batch.first_sequence, batch.last_sequence, batch.first_offset, batch.last_offset, batch.timestamp
        );
    }
    line.push('\n');
    line
}

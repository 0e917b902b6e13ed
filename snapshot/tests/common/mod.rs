//! Producers and tables for the tests.

use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{ProducerEntry, ProducerTable};
use proptest::prelude::*;

pub fn entry() -> impl Strategy<Value = ProducerEntry> {
    let batches = prop::collection::vec((any::<i32>(), 0..1000_i64, 0..9_i64, any::<i64>()), 0..8);
    (0..9_i16, -1..9_i32, any::<i64>(), 0..100_i64, prop::option::of(0..50_i64), batches).prop_map(
        |(epoch, coordinator_epoch, last_timestamp, last_append_ms, txn_first_offset, batches)| {
            let mut entry = ProducerEntry::default();
            entry.epoch = epoch;
            entry.coordinator_epoch = coordinator_epoch;
            entry.last_timestamp = last_timestamp;
            entry.last_append_ms = last_append_ms;
            entry.txn_first_offset = txn_first_offset;
            for (last_sequence, first_offset, delta, timestamp) in batches {
                entry.push_batch(batch_meta(last_sequence, first_offset, first_offset + delta, timestamp));
            }
            entry
        },
    )
}

pub fn with(mut entry: ProducerEntry, change: impl FnOnce(&mut ProducerEntry)) -> ProducerEntry {
    change(&mut entry);
    entry
}

/// Dense and sparse ids.
pub fn producer_id() -> impl Strategy<Value = i64> {
    prop_oneof![0..40_i64, any::<i64>()]
}

pub fn table_of<'a>(entries: impl IntoIterator<Item = (i64, &'a ProducerEntry)>) -> ProducerTable {
    let mut table = ProducerTable::new();
    for (producer_id, entry) in entries {
        table.put(producer_id, *entry);
    }
    table
}

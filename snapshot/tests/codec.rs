//! A table through a `.snapshot` file, and what Kafka's own files give.

mod common;

use oncelog_formats::snapshot::{SealedSegment, SnapshotFile, Trailing};
use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{Forgotten, OpenTxns, ProducerEntry, ProducerTable, SnapshotMeta, codec};
use proptest::prelude::*;

use common::{entry, producer_id, table_of, with};

const META: SnapshotMeta = SnapshotMeta {
    log_end_offset: 1200,
    durable_offset: 1100,
    sealed: Some(SealedSegment { base_offset: 1000, size_bytes: 4096, next_offset: 1200 }),
    log_id: Some([9; 16]),
};

proptest! {
    #[test]
    fn a_table_comes_back_exactly(entries in prop::collection::btree_map(producer_id(), entry(), 0..30)) {
        let mut table = table_of(entries.iter().map(|(&id, entry)| (id, entry)));
        let loaded = codec::decode(&codec::encode(&mut table, &META)).unwrap();
        prop_assert_eq!(&loaded.table, &table);
        prop_assert_eq!(loaded.table.digest(), table.digest());
        prop_assert_eq!(loaded.open_txns, OpenTxns::from_table(&table));
        prop_assert_eq!((loaded.meta, loaded.trailing), (Some(META), Trailing::Extension));
    }

    #[test]
    fn without_the_extension_one_batch_remains(entries in prop::collection::btree_map(producer_id(), entry(), 0..30)) {
        let mut table = table_of(entries.iter().map(|(&id, entry)| (id, entry)));
        let mut file = SnapshotFile::decode(&codec::encode(&mut table, &META)).unwrap();
        file.extension = None;
        let loaded = codec::decode(&file.encode()).unwrap();
        prop_assert_eq!((loaded.meta, loaded.trailing), (None, Trailing::Nothing));
        let reduced = entries.iter().map(|(&id, entry)| (id, as_kafka_restores(entry))).collect::<Vec<_>>();
        prop_assert_eq!(loaded.table, table_of(reduced.iter().map(|(id, entry)| (*id, entry))));
    }
}

fn as_kafka_restores(entry: &ProducerEntry) -> ProducerEntry {
    with(ProducerEntry::default(), |restored| {
        restored.epoch = entry.epoch;
        restored.coordinator_epoch = entry.coordinator_epoch;
        restored.last_timestamp = entry.last_timestamp;
        restored.last_append_ms = entry.last_timestamp;
        restored.txn_first_offset = entry.txn_first_offset;
        if let Some(last) = entry.last_batch() {
            let (first, last_offset) = (last.first_offset, last.last_offset);
            restored.push_batch(batch_meta(last.last_sequence, first, last_offset, entry.last_timestamp));
        }
    })
}

fn one_producer() -> ProducerTable {
    let entry = with(ProducerEntry::default(), |entry| {
        entry.epoch = 5;
        entry.last_append_ms = 70;
        entry.push_batch(batch_meta(0, 10, 10, 50));
        entry.push_batch(batch_meta(3, 11, 13, 51));
        entry.last_timestamp = 51;
    });
    table_of([(7, &entry)])
}

/// Somebody changed the entries and kept the bytes behind them.
#[test]
fn an_extension_that_does_not_fit_the_entries_does_not_count() {
    let whole = SnapshotFile::decode(&codec::encode(&mut one_producer(), &META)).unwrap();
    let changes: [fn(&mut SnapshotFile); 6] = [
        |file| file.entries[0].epoch += 1,
        |file| file.entries[0].last_sequence += 1,
        |file| file.entries[0].producer_id += 1,
        |file| file.entries.clear(),
        |file| file.extension.as_mut().unwrap().digest += 1,
        |file| file.extension.as_mut().unwrap().producers[0].batches[0].last_offset -= 1,
    ];
    for (number, change) in changes.iter().enumerate() {
        let mut file = whole.clone();
        change(&mut file);
        let loaded = codec::decode(&file.encode()).unwrap();
        assert_eq!((loaded.meta, loaded.trailing), (None, Trailing::Damaged), "change {number}");
        let producers = loaded.table.iter().map(|(_, entry)| entry.batches().len()).collect::<Vec<_>>();
        assert_eq!(producers, vec![1; file.entries.len()], "change {number}");
    }
}

#[test]
fn kafkas_own_file() {
    let text = "0001fedf4e50000000020000000000000001000200000001000000000000000200000003ffffffffffffffff00000003\
                0000000000000064000000000000000b000cffffffffffffffffffffffff00000000000000000001e2400000000dffffffffffffffff";
    let bytes: Vec<u8> =
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect();
    let loaded = codec::decode(&bytes).unwrap();
    let first = with(ProducerEntry::default(), |entry| {
        entry.epoch = 2;
        entry.coordinator_epoch = 3;
        entry.txn_first_offset = Some(100);
        entry.push_batch(batch_meta(1, -1, 2, -1));
    });
    let second = with(ProducerEntry::default(), |entry| {
        entry.epoch = 12;
        entry.coordinator_epoch = 13;
        entry.last_timestamp = 123_456;
        entry.last_append_ms = 123_456;
    });
    assert_eq!(loaded.table, table_of([(1, &first), (11, &second)]));
    assert_eq!(loaded.open_txns.ongoing().collect::<Vec<_>>(), [(1, 100)]);
    assert!(codec::decode(&bytes[..bytes.len() - 1]).is_err());
}

/// What Kafka has forgotten stays out of what Kafka reads, and comes back here.
#[test]
fn what_kafka_has_forgotten_is_remembered_behind_its_entries() {
    let whole = one_producer().get(7).expect("it is there");
    let mut table = ProducerTable::new();
    let forgotten = [Forgotten::Nothing, Forgotten::Batches, Forgotten::Producer];
    for (id, forgotten) in (1..).zip(forgotten) {
        table.put(id, with(whole, |entry| entry.forgotten = forgotten));
    }
    let bytes = codec::encode(&mut table, &META);
    let entries = SnapshotFile::decode(&bytes).expect("Kafka can read it").entries;
    let shown = |id: i64| {
        let entry = entries.iter().find(|entry| entry.producer_id == id).expect("all are there");
        (entry.last_sequence, entry.last_offset)
    };
    let known = (whole.last_sequence(), whole.last_offset());
    assert_eq!((1..=3).map(shown).collect::<Vec<_>>(), [known, (-1, -1), known]);
    assert_eq!(codec::decode(&bytes).expect("it is whole").table, table);
}

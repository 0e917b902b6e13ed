//! The table against a plain sorted map: contents, digest, frozen copies, expiry.

mod common;

use std::collections::BTreeMap;

use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{Frozen, FrozenBlock, OpenTxns, ProducerEntry, ProducerTable};
use proptest::prelude::*;

use common::{entry, producer_id, table_of, with};

fn entries() -> impl Strategy<Value = Vec<(i64, Option<ProducerEntry>)>> {
    prop::collection::vec((producer_id(), prop::option::weighted(0.8, entry())), 0..60)
}

fn contents(table: &ProducerTable) -> Vec<(i64, ProducerEntry)> {
    table.iter().collect()
}

/// What a frozen view shows, by id.
fn read_all(table: &mut ProducerTable, mut frozen: Frozen, limit: usize) -> Vec<(i64, ProducerEntry)> {
    let mut entries = Vec::new();
    loop {
        let blocks = table.read_frozen(&mut frozen, limit);
        if blocks.is_empty() {
            break;
        }
        entries.extend(blocks.iter().flat_map(FrozenBlock::entries));
    }
    table.thaw(frozen);
    entries.sort_unstable_by_key(|(id, _)| *id);
    entries
}

proptest! {
    #[test]
    fn a_table_is_a_sorted_map_with_a_digest_of_its_contents(changes in entries(), freeze_at in 0..60_usize) {
        let (mut table, mut model) = (ProducerTable::new(), BTreeMap::new());
        let mut frozen = None;
        for (step, (producer_id, entry)) in changes.iter().enumerate() {
            if step == freeze_at {
                frozen = Some((table.freeze(), contents(&table)));
            }
            match entry {
                Some(entry) => prop_assert_eq!(table.put(*producer_id, *entry), model.insert(*producer_id, *entry)),
                None => prop_assert_eq!(table.remove(*producer_id), model.remove(producer_id)),
            }
            prop_assert_eq!(table.get(*producer_id), model.get(producer_id).copied());
        }
        prop_assert_eq!(table.len(), model.len());
        prop_assert_eq!(contents(&table), model.iter().map(|(&id, &entry)| (id, entry)).collect::<Vec<_>>());
        let rebuilt = table_of(model.iter().rev().map(|(&id, entry)| (id, entry)));
        prop_assert_eq!(table.digest(), rebuilt.digest());
        prop_assert_eq!(&table, &rebuilt);
        if let Some((frozen, before)) = frozen {
            prop_assert_eq!(read_all(&mut table, frozen, 7), before);
        }
    }

    #[test]
    fn the_digest_sees_everything_but_append_times(id in producer_id(), entry in entry(), other in entry()) {
        let digest = |entry: &ProducerEntry| table_of([(id, entry)]).digest();
        let same = with(entry, |e| e.last_append_ms = other.last_append_ms);
        prop_assert_eq!(digest(&entry), digest(&same));
        let other = with(other, |e| e.last_append_ms = entry.last_append_ms);
        prop_assert_eq!(digest(&entry) == digest(&other), entry == other);
    }

    #[test]
    fn expiry_drops_the_idle_and_never_an_open_transaction(
        changes in entries(),
        now_ms in 0..200_i64,
        expiration_ms in 1..100_i64,
    ) {
        let model: BTreeMap<i64, ProducerEntry> = changes.into_iter().filter_map(|(id, e)| Some((id, e?))).collect();
        let mut table = table_of(model.iter().map(|(&id, entry)| (id, entry)));
        let mut in_steps = table.clone();
        let expired = table.expire(now_ms, expiration_ms);
        let (idle, kept): (Vec<_>, Vec<_>) = model.into_iter().partition(|(_, entry)| {
            entry.txn_first_offset.is_none() && now_ms - entry.last_append_ms >= expiration_ms
        });
        prop_assert_eq!(expired, idle);
        prop_assert_eq!(contents(&table), kept);
        let mut from = Some(0);
        while let Some(at) = from {
            from = in_steps.sweep(at, now_ms, expiration_ms, 3).next;
        }
        prop_assert_eq!(in_steps, table);
    }
}

/// Snapshots and checkpoints hold digests: other terms need another version of both formats.
#[test]
fn the_terms_of_the_digest_are_those_of_the_formats_versions() {
    let plain = with(ProducerEntry::default(), |e| {
        e.epoch = 1;
        e.last_timestamp = 51;
        e.push_batch(batch_meta(3, 4, 7, 50));
        e.push_batch(batch_meta(5, 8, 8, 51));
    });
    let in_transaction = with(plain, |e| (e.coordinator_epoch, e.txn_first_offset) = (70_000, Some(4)));
    let unsequenced = with(plain, |e| e.push_batch(batch_meta(-1, 9, 9, 52)));
    let digest = |entry: &ProducerEntry| table_of([(7, entry)]).digest();
    assert_eq!(
        [&plain, &in_transaction, &unsequenced].map(digest),
        [713509014321835474, 2734181870971359278, 6036117502487886704]
    );
}

#[test]
fn one_changed_field_changes_the_digest() {
    let entry = with(ProducerEntry::default(), |e| {
        e.epoch = 1;
        e.txn_first_offset = Some(4);
        e.push_batch(batch_meta(3, 4, 7, 50));
    });
    let digest = |id: i64, entry: &ProducerEntry| table_of([(id, entry)]).digest();
    let whole = digest(7, &entry);
    let changed = [
        with(entry, |e| e.epoch = 2),
        with(entry, |e| e.coordinator_epoch = 0),
        with(entry, |e| e.last_timestamp = 0),
        with(entry, |e| e.txn_first_offset = None),
        with(entry, |e| e.push_batch(batch_meta(4, 8, 8, 50))),
    ];
    for changed in changed {
        assert_ne!(digest(7, &changed), whole, "{changed:?}");
    }
    assert_ne!(digest(8, &entry), whole);
}

#[test]
fn open_transactions_come_back_from_a_table() {
    let open = |first| with(ProducerEntry::default(), |e| e.txn_first_offset = first);
    let table = table_of([(3, &open(Some(20))), (1, &open(None)), (2, &open(Some(5)))]);
    let txns = OpenTxns::from_table(&table);
    assert_eq!(txns.ongoing().collect::<Vec<_>>(), [(2, 5), (3, 20)]);
    assert_eq!(txns.first_unstable(), Some(5));
}

//! The producer table and what one would use instead, behind one door.

use oncelog_device::prefetch;
use oncelog_snapshot::{AdmitOptions, Incoming, Origin, ProducerEntry, ProducerTable, Verdict, admit};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

/// Something that judges a batch and remembers it.
pub(super) trait Table {
    /// The verdict on a batch, stored if it says so: the offset at which the batch stands.
    fn take(&mut self, batch: &Incoming) -> i64;

    /// The same for several known at once; the sum of the offsets.
    fn take_set(&mut self, set: &[Incoming]) -> i64 {
        set.iter().map(|batch| self.take(batch)).sum()
    }
}

/// A table by the name of its system.
pub(super) fn open(name: &str) -> Box<dyn Table> {
    match name {
        "oncelog" => Box::new(ProducerTable::new()),
        "hashbrown" => Box::new(hashbrown::HashMap::<i64, ProducerEntry>::new()),
        _ => Box::new(HashMap::<i64, ProducerEntry>::new()),
    }
}

/// Batch number `round` of a producer, of one record, as a client sends it.
pub(super) fn batch(producer_id: i64, round: i32, offset: i64) -> Incoming {
    Incoming {
        producer_id,
        epoch: 0,
        base_sequence: round,
        last_sequence: round,
        first_offset: offset,
        last_offset: offset,
        max_timestamp: 1_700_000_000_000 + offset / 1000,
        transactional: false,
        marker: None,
    }
}

/// Fixed, spread numbers.
pub(super) fn scatter(number: u64) -> u64 {
    let mixed = (number ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 29)
}

/// The numbers below `count` in an order without one.
pub(super) fn shuffled(count: u32) -> Vec<u32> {
    let mut order: Vec<u32> = (0..count).collect();
    for at in (1..order.len()).rev() {
        order.swap(at, (scatter(at as u64) % (at as u64 + 1)) as usize);
    }
    order
}

#[inline]
fn options(batch: &Incoming) -> AdmitOptions {
    let now_ms = batch.max_timestamp;
    AdmitOptions { origin: Origin::Client, verification_enabled: true, txn_version: None, guard: None, now_ms }
}

impl Table for ProducerTable {
    /// As the engine does it, in two steps: between them it makes sure of space.
    #[inline]
    fn take(&mut self, batch: &Incoming) -> i64 {
        if let Some(hint) = self.follows(batch) {
            self.follow(batch, options(batch).now_ms, hint);
            return batch.first_offset;
        }
        let id = batch.producer_id;
        let (known, hint) = self.look(id, batch.epoch, batch.base_sequence, batch.last_sequence);
        match &admit(&known, None, None, batch, &options(batch)) {
            Verdict::Append { update, .. } => {
                self.apply(id, update, hint);
                batch.first_offset
            }
            Verdict::Duplicate(meta) => meta.first_offset,
            Verdict::Refuse(_) => unreachable!("the suite sends what is right"),
        }
    }

    /// As the engine takes a set of batches from a leader.
    fn take_set(&mut self, set: &[Incoming]) -> i64 {
        for batch in set {
            prefetch(self.memory(batch.producer_id));
        }
        set.iter().map(|batch| self.take(batch)).sum()
    }
}

/// What is known of a plain entry; one search for both steps, which is the best that a map allows.
fn take_plain(entry: &mut ProducerEntry, batch: &Incoming) -> i64 {
    let known = entry.look(batch.epoch, batch.base_sequence, batch.last_sequence, 0);
    match &admit(&known, None, None, batch, &options(batch)) {
        Verdict::Append { update, .. } => {
            entry.apply(update);
            batch.first_offset
        }
        Verdict::Duplicate(meta) => meta.first_offset,
        Verdict::Refuse(_) => unreachable!("the suite sends what is right"),
    }
}

impl<S: BuildHasher> Table for HashMap<i64, ProducerEntry, S> {
    fn take(&mut self, batch: &Incoming) -> i64 {
        take_plain(self.entry(batch.producer_id).or_default(), batch)
    }
}

impl<K: From<i64> + Eq + Hash, S: BuildHasher> Table for hashbrown::HashMap<K, ProducerEntry, S> {
    fn take(&mut self, batch: &Incoming) -> i64 {
        take_plain(self.entry(K::from(batch.producer_id)).or_default(), batch)
    }
}

//! The entries of all producers of one log.
//!
//! Split by hash into parts behind reference counts: a frozen copy for a snapshot shares them all, and an append that
//! touches a part still shared copies that part alone. So neither freezing nor appending grows with the number of
//! producers, and expiry can go part by part. Chosen over one large map (whose copy and whose growth stop everyone) and
//! over an ordered tree (slower by far to look up, and order is asked for only when writing or showing). No order of a
//! hash map leaks: every iteration is sorted.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use crate::producer::ProducerEntry;

/// Number of parts of a table.
pub const PARTS: usize = 256;

type Part = HashMap<i64, ProducerEntry, BuildHasherDefault<IdHasher>>;

/// Producer entries by producer id. Cloning freezes a copy at a cost that does not depend on the number of producers.
#[derive(Debug, Clone)]
pub struct ProducerTable {
    parts: Vec<Option<Arc<Part>>>,
    len: usize,
    digest: u64,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ProducerTable {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.len == other.len
            && self.unordered().all(|(id, entry)| other.get(id).as_ref() == Some(entry))
    }
}

impl Eq for ProducerTable {}

impl ProducerTable {
    /// No producer.
    pub fn new() -> Self {
        Self { parts: vec![None; PARTS], len: 0, digest: 0 }
    }

    /// A copy of the entry of `producer_id`.
    pub fn get(&self, producer_id: i64) -> Option<ProducerEntry> {
        self.parts[part_of(producer_id)].as_ref()?.get(&producer_id).copied()
    }

    /// Stores the entry of `producer_id`; answers the one it replaces.
    pub fn put(&mut self, producer_id: i64, entry: ProducerEntry) -> Option<ProducerEntry> {
        let part = self.parts[part_of(producer_id)].get_or_insert_default();
        let before = Arc::make_mut(part).insert(producer_id, entry);
        self.digest = self.digest.wrapping_add(entry_hash(producer_id, &entry));
        match &before {
            Some(before) => self.digest = self.digest.wrapping_sub(entry_hash(producer_id, before)),
            None => self.len += 1,
        }
        before
    }

    /// Forgets `producer_id`; answers its entry.
    pub fn remove(&mut self, producer_id: i64) -> Option<ProducerEntry> {
        let part = self.parts[part_of(producer_id)].as_mut()?;
        if !part.contains_key(&producer_id) {
            return None;
        }
        let before = Arc::make_mut(part).remove(&producer_id)?;
        self.digest = self.digest.wrapping_sub(entry_hash(producer_id, &before));
        self.len -= 1;
        Some(before)
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// All entries by producer id, ascending. Sorts first: for snapshots and displays, not for the append path.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        let mut entries: Vec<_> = self.unordered().collect();
        entries.sort_unstable_by_key(|&(producer_id, _)| producer_id);
        entries.into_iter()
    }

    /// Drops the producers without an open transaction whose newest append is at least `expiration_ms` old by our
    /// clock; answers their ids, ascending. Timestamps in the log do not count: clients choose them.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> Vec<i64> {
        let mut expired: Vec<i64> = (0..PARTS).flat_map(|part| self.expire_part(part, now_ms, expiration_ms)).collect();
        expired.sort_unstable();
        expired
    }

    /// As [`Self::expire`] for one part (counted from 0, modulo [`PARTS`]), so that a sweep can go in small steps.
    pub fn expire_part(&mut self, part: usize, now_ms: i64, expiration_ms: i64) -> Vec<i64> {
        let Some(part) = &self.parts[part % PARTS] else {
            return Vec::new();
        };
        let is_expired = |entry: &ProducerEntry| {
            entry.txn_first_offset.is_none() && now_ms.saturating_sub(entry.last_append_ms) >= expiration_ms
        };
        let mut expired: Vec<i64> = part.iter().filter(|(_, e)| is_expired(e)).map(|(&id, _)| id).collect();
        expired.sort_unstable();
        for &producer_id in &expired {
            self.remove(producer_id);
        }
        expired
    }

    /// A sum over what the log says of every producer, whatever the order of events that led there: equal for two
    /// replicas with the same entries. Append times, which each replica has its own of, stay out.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    fn unordered(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        self.parts.iter().flatten().flat_map(|part| part.iter()).map(|(&id, entry)| (id, entry))
    }
}

fn part_of(producer_id: i64) -> usize {
    // Bits from the middle: the map inside the part uses the lowest and the highest ones.
    (mix(producer_id.cast_unsigned()) >> 32) as usize % PARTS
}

fn entry_hash(producer_id: i64, entry: &ProducerEntry) -> u64 {
    let mut hash = mix(producer_id.cast_unsigned());
    let mut add = |value: i64| hash = mix(hash ^ value.cast_unsigned());
    add(i64::from(entry.epoch));
    add(i64::from(entry.coordinator_epoch));
    add(entry.last_timestamp);
    add(entry.txn_first_offset.unwrap_or(-1));
    for batch in entry.batches() {
        add((i64::from(batch.first_sequence) << 32) | i64::from(batch.last_sequence.cast_unsigned()));
        add(batch.first_offset);
        add(batch.last_offset);
        add(batch.timestamp);
    }
    hash
}

/// One step of the SplitMix64 generator: every bit of the input reaches every bit of the output, and 0 does not stay 0.
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Hashes one producer id. Fixed, not keyed by chance: the same inputs must take the same course.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = mix(self.0 ^ u64::from(byte));
        }
    }

    fn write_i64(&mut self, value: i64) {
        self.0 = mix(self.0 ^ value.cast_unsigned());
    }
}

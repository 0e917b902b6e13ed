//! Verification entries: a transactional batch of a client needs a guard that was handed out before the coordinator was
//! asked whether the partition is part of the transaction.
//!
//! Guards are numbers counted from 1, not random: they need to be told apart only within one log, and the same inputs
//! must give the same answers.

use std::collections::BTreeMap;

use crate::admit::Incoming;
use crate::producer::Standing;
use crate::refusal::Refusal;

/// What is pending for one producer id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// The number that an append must present.
    pub guard: u64,
    /// Highest epoch that asked.
    pub epoch: i16,
    /// Lowest sequence asked for in this epoch; no later one may come first.
    pub lowest_sequence: i32,
    /// The client raises its epoch with every transaction (transaction version 2).
    pub bumps_epoch: bool,
    /// Our clock when the entry was made, in ms; asking again does not refresh it.
    pub created_ms: i64,
}

impl Verification {
    /// Whether this batch of the producer is what was asked for, or ends it (V4).
    #[inline]
    pub fn is_served_by(&self, batch: &Incoming) -> bool {
        let of_next_txn = batch.marker.is_some() && self.bumps_epoch && self.epoch == batch.epoch;
        batch.transactional && !of_next_txn
    }
}

/// The pending verifications of one log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verifications {
    entries: BTreeMap<i64, Verification>,
    guards_given: u64,
}

impl Verifications {
    /// None pending, no guard given yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for a guard for a batch of `producer_id` that starts at `sequence` in `epoch`; `stored` is the producer's
    /// standing (the default for an unknown one, or one that Kafka's rules have forgotten). `None`: no guard is needed,
    /// a transaction of this epoch is open already.
    ///
    /// # Errors
    /// [`Refusal::InvalidProducerEpoch`] if `epoch` is below the stored one; nothing is made then.
    pub fn start(
        &mut self,
        producer_id: i64,
        stored: &Standing,
        sequence: i32,
        epoch: i16,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> Result<Option<u64>, Refusal> {
        if epoch < stored.epoch {
            return Err(Refusal::InvalidProducerEpoch { producer_id, epoch, stored_epoch: stored.epoch });
        }
        if stored.has_open_txn_in(epoch) {
            return Ok(None);
        }
        let guards_given = &mut self.guards_given;
        let entry = self.entries.entry(producer_id).or_insert_with(|| {
            *guards_given += 1;
            Verification { guard: *guards_given, epoch, lowest_sequence: sequence, bumps_epoch, created_ms: now_ms }
        });
        if epoch > entry.epoch {
            entry.epoch = epoch;
            entry.lowest_sequence = sequence;
        } else if epoch == entry.epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(sequence);
        }
        Ok(Some(entry.guard))
    }

    /// The entry of `producer_id`.
    #[inline]
    pub fn get(&self, producer_id: i64) -> Option<&Verification> {
        self.entries.get(&producer_id)
    }

    /// Forgets the entry of `producer_id`; its guard is void from now on.
    pub fn clear(&mut self, producer_id: i64) {
        self.entries.remove(&producer_id);
    }

    /// Forgets the entries that are `expiration_ms` old at `now_ms`; answers their producer ids, ascending.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> Vec<i64> {
        let expired = self.entries.extract_if(.., |_, v| now_ms.saturating_sub(v.created_ms) >= expiration_ms);
        expired.map(|(producer_id, _)| producer_id).collect()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries by producer id, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (i64, &Verification)> {
        self.entries.iter().map(|(&producer_id, entry)| (producer_id, entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_count_from_one_and_stay_while_pending() {
        let mut pending = Verifications::new();
        assert_eq!(pending.start(7, &Standing::default(), 3, 5, false, 0), Ok(Some(1)));
        assert_eq!(pending.start(8, &Standing::default(), 0, 5, false, 0), Ok(Some(2)));
        assert_eq!(pending.start(7, &Standing::default(), 1, 5, true, 9), Ok(Some(1)));
        let entry = Verification { guard: 1, epoch: 5, lowest_sequence: 1, bumps_epoch: false, created_ms: 0 };
        assert_eq!(pending.get(7), Some(&entry));
        pending.clear(7);
        assert_eq!(pending.start(7, &Standing::default(), 1, 5, true, 9), Ok(Some(3)));
    }

    #[test]
    fn expiry_counts_from_the_first_request() {
        let mut pending = Verifications::new();
        let _ = pending.start(7, &Standing::default(), 0, 0, false, 100);
        let _ = pending.start(7, &Standing::default(), 0, 0, false, 150);
        assert_eq!(pending.expire(199, 100), []);
        assert_eq!(pending.expire(200, 100), [7]);
        assert!(pending.is_empty());
    }
}

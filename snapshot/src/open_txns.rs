//! Which transactions are open, and which are decided but not yet replicated: what holds the last stable offset back.
//!
//! Ordered by first offset, because every question asked here is for the earliest one.

use std::collections::BTreeMap;

use crate::admit::CompletedTxn;
use crate::table::ProducerTable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decided {
    producer_id: i64,
    marker_offset: i64,
}

/// The transactions of one log that have not become stable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenTxns {
    ongoing: BTreeMap<i64, i64>,
    unreplicated: BTreeMap<i64, Decided>,
}

impl OpenTxns {
    /// No transaction.
    pub fn new() -> Self {
        Self::default()
    }

    /// The transactions that `table` says are open; decided ones are not known from a table.
    pub fn from_table(table: &ProducerTable) -> Self {
        let open = table.iter().filter_map(|(id, entry)| Some((entry.txn_first_offset?, id)));
        Self { ongoing: open.collect(), unreplicated: BTreeMap::new() }
    }

    /// A transaction of `producer_id` starts at `first_offset`.
    pub fn start(&mut self, producer_id: i64, first_offset: i64) {
        self.ongoing.insert(first_offset, producer_id);
    }

    /// Decides a transaction and answers the last stable offset to be written with it into the aborted index: first
    /// offset of the earliest transaction still ongoing, else the offset behind the marker. Decided but unreplicated
    /// ones do not count there: it is a bound for later entries of the index, and they have theirs already.
    ///
    /// One that was not known to be ongoing (its beginning lies below the log start) is decided all the same.
    pub fn complete(&mut self, txn: &CompletedTxn) -> i64 {
        self.ongoing.remove(&txn.first_offset);
        let decided = Decided { producer_id: txn.producer_id, marker_offset: txn.last_offset };
        self.unreplicated.insert(txn.first_offset, decided);
        let other = self.ongoing.iter().find(|&(_, &producer_id)| producer_id != txn.producer_id);
        other.map_or(txn.last_offset.saturating_add(1), |(&first_offset, _)| first_offset)
    }

    /// Forgets the decided transactions whose marker lies below `high_watermark` (or below a new log start).
    pub fn advance_high_watermark(&mut self, high_watermark: i64) {
        self.unreplicated.retain(|_, decided| decided.marker_offset >= high_watermark);
    }

    /// Forgets the decided transactions whose marker lies below `offset`, where a producer snapshot stood: that a
    /// snapshot names a transaction no longer is all that a load knows of it.
    pub fn forget_decided_below(&mut self, offset: i64) {
        self.advance_high_watermark(offset);
    }

    /// First offset of the earliest transaction without a marker.
    pub fn first_undecided(&self) -> Option<i64> {
        self.ongoing.keys().next().copied()
    }

    /// First offset of the earliest transaction that is not stable yet: ongoing, or decided and unreplicated.
    pub fn first_unstable(&self) -> Option<i64> {
        let unreplicated = self.unreplicated.keys().next().copied();
        self.first_undecided().into_iter().chain(unreplicated).min()
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.ongoing.clear();
        self.unreplicated.clear();
    }

    /// Whether the transaction of this producer that began at this offset has no marker.
    pub fn is_ongoing(&self, producer_id: i64, first_offset: i64) -> bool {
        self.ongoing.get(&first_offset) == Some(&producer_id)
    }

    /// The ongoing ones as (producer id, first offset), by first offset.
    pub fn ongoing(&self) -> impl Iterator<Item = (i64, i64)> {
        self.ongoing.iter().map(|(&first_offset, &producer_id)| (producer_id, first_offset))
    }

    /// The decided but unreplicated ones as (producer id, first offset, marker offset), by first offset.
    pub fn unreplicated(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        self.unreplicated.iter().map(|(&first, decided)| (decided.producer_id, first, decided.marker_offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(producer_id: i64, first_offset: i64, last_offset: i64) -> CompletedTxn {
        CompletedTxn { producer_id, first_offset, last_offset, commit: false }
    }

    #[test]
    fn stable_offset_follows_the_earliest_of_another_producer() {
        let mut txns = OpenTxns::new();
        txns.start(1, 0);
        txns.start(2, 4);
        assert_eq!(txns.complete(&completed(2, 4, 8)), 0);
        txns.start(1, 12);
        assert_eq!(txns.complete(&completed(1, 0, 9)), 10);
        assert_eq!(txns.first_undecided(), Some(12));
    }

    #[test]
    fn a_marker_at_the_high_watermark_is_not_replicated() {
        let mut txns = OpenTxns::new();
        txns.start(1, 3);
        let _ = txns.complete(&completed(1, 3, 7));
        txns.advance_high_watermark(7);
        assert_eq!(txns.first_unstable(), Some(3));
        txns.advance_high_watermark(8);
        assert_eq!(txns.first_unstable(), None);
    }
}

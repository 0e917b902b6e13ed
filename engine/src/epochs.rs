//! Which leader epoch began where.
//!
//! Two truths decide every question here: epochs and start offsets both strictly increase along the list, and the last
//! write wins over what it contradicts. Held in memory only: whoever owns the cache writes `leader-epoch-checkpoint`
//! when a change is reported, so that a verdict can be reached before anything is stored
//! ([`EpochCache::would_change`]). A sorted vector was chosen over a map because entries come and go at its two ends
//! and there are few of them.

use oncelog_formats::epoch_checkpoint::EpochEntry;

/// No epoch, Kafka's -1.
pub const UNDEFINED_EPOCH: i32 = -1;
/// No offset, Kafka's -1.
pub const UNDEFINED_OFFSET: i64 = -1;

/// An epoch or offset that no leader can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("leader epoch {epoch} at offset {start_offset}: neither may be negative")]
pub struct EpochError {
    /// As given.
    pub epoch: i32,
    /// As given.
    pub start_offset: i64,
}

impl EpochError {
    /// The protocol's name for it.
    #[must_use]
    pub fn kafka_name(&self) -> &'static str {
        "INVALID_REQUEST"
    }
}

/// The epochs of one log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// A cache without epochs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Replays entries as stored through [`EpochCache::assign`]: a list that does not increase comes out repaired.
    pub fn from_entries(entries: impl IntoIterator<Item = EpochEntry>) -> Result<Self, EpochError> {
        let mut cache = Self::new();
        for entry in entries {
            cache.assign(entry.epoch, entry.start_offset)?;
        }
        Ok(cache)
    }

    /// Says that `epoch` begins at `start_offset`; whether anything changed and is to be stored.
    /// Entries of the same or a higher epoch, or with the same or a higher start, give way.
    pub fn assign(&mut self, epoch: i32, start_offset: i64) -> Result<bool, EpochError> {
        if epoch < 0 || start_offset < 0 {
            return Err(EpochError { epoch, start_offset });
        }
        if !self.would_change(epoch, start_offset) {
            return Ok(false);
        }
        while self.entries.pop_if(|last| last.epoch >= epoch || last.start_offset >= start_offset).is_some() {}
        self.entries.push(EpochEntry { epoch, start_offset });
        Ok(true)
    }

    /// Whether [`EpochCache::assign`] would change something. Negative values change nothing.
    #[must_use]
    pub fn would_change(&self, epoch: i32, start_offset: i64) -> bool {
        let repeats = self.entries.last().is_some_and(|last| last.epoch == epoch && start_offset >= last.start_offset);
        epoch >= 0 && start_offset >= 0 && !repeats
    }

    /// Where `epoch` ended, with the epoch that this speaks of: the greatest one not above `epoch`.
    /// (-1, -1) where unknown; `log_end` for the latest epoch.
    #[must_use]
    pub fn end_offset_for(&self, epoch: i32, log_end: i64) -> (i32, i64) {
        let unknown = (UNDEFINED_EPOCH, UNDEFINED_OFFSET);
        let Some(last) = self.entries.last().filter(|last| epoch != UNDEFINED_EPOCH && epoch <= last.epoch) else {
            return unknown;
        };
        if epoch == last.epoch {
            return (epoch, log_end);
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end_offset = self.entries[above].start_offset;
        (if above == 0 { epoch } else { self.entries[above - 1].epoch }, end_offset)
    }

    /// Forgets epochs that begin at or behind `end_offset`; whether anything changed. A negative offset changes
    /// nothing.
    pub fn truncate_from_end(&mut self, end_offset: i64) -> bool {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        let changes = end_offset >= 0 && kept < self.entries.len();
        if changes {
            self.entries.truncate(kept);
        }
        changes
    }

    /// Forgets what lies below `start_offset`: the epoch in force there now begins there. Whether anything changed.
    /// A negative offset changes nothing.
    pub fn truncate_from_start(&mut self, start_offset: i64) -> bool {
        let dropped = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if start_offset < 0 || dropped == 0 {
            return false;
        }
        let in_force = self.entries[dropped - 1];
        if dropped == 1 && in_force.start_offset == start_offset {
            return false;
        }
        self.entries.drain(..dropped - 1);
        self.entries[0].start_offset = start_offset;
        true
    }

    /// The epoch in force at `offset`.
    #[must_use]
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        let above = self.entries.partition_point(|entry| entry.start_offset <= offset);
        above.checked_sub(1).map(|at| self.entries[at].epoch)
    }

    /// The latest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The greatest epoch below `epoch`.
    #[must_use]
    pub fn previous(&self, epoch: i32) -> Option<EpochEntry> {
        let at = self.entries.partition_point(|entry| entry.epoch < epoch);
        at.checked_sub(1).map(|at| self.entries[at])
    }

    /// The smallest epoch above `epoch`.
    #[must_use]
    pub fn next(&self, epoch: i32) -> Option<EpochEntry> {
        self.entries.get(self.entries.partition_point(|entry| entry.epoch <= epoch)).copied()
    }

    /// All entries, oldest first: what belongs into the checkpoint.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pairs = &'static [(i32, i64)];

    fn cache(pairs: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::new();
        for &(epoch, offset) in pairs {
            let expected = cache.would_change(epoch, offset);
            assert_eq!(cache.assign(epoch, offset), Ok(expected));
        }
        cache
    }

    fn pairs(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn assigned_epochs_increase_and_the_last_write_wins() {
        let table: &[(Pairs, Pairs)] = &[
            (&[(2, 10)], &[(2, 10)]),
            (&[(2, 9), (2, 10)], &[(2, 9)]),
            (&[(2, 9), (3, 9)], &[(3, 9)]),
            (&[(2, 6), (2, 10)], &[(2, 6)]),
            (&[(2, 6), (2, 7)], &[(2, 6)]),
            (&[(2, 6), (3, 5)], &[(3, 5)]),
            (&[(2, 6), (2, 5)], &[(2, 5)]),
            (&[(2, 6), (3, 8), (4, 11), (3, 12)], &[(2, 6), (3, 12)]),
            (&[(2, 6), (3, 8), (4, 11), (1, 20)], &[(1, 20)]),
            (&[(1, 11), (1, 12), (2, 13), (2, 14), (3, 15), (3, 16)], &[(1, 11), (2, 13), (3, 15)]),
        ];
        for (assigned, expected) in table {
            let cache = cache(assigned);
            assert_eq!(pairs(&cache), *expected, "{assigned:?}");
            assert_eq!(EpochCache::from_entries(cache.entries().to_vec()), Ok(cache));
        }
    }

    #[test]
    fn a_stored_list_that_does_not_increase_is_repaired() {
        let stored = [(0, 0), (5, 10), (3, 20)].map(|(epoch, start_offset)| EpochEntry { epoch, start_offset });
        assert_eq!(pairs(&EpochCache::from_entries(stored).unwrap()), [(0, 0), (3, 20)]);
        assert!(EpochCache::from_entries([EpochEntry { epoch: -1, start_offset: 0 }]).is_err());
    }

    #[test]
    fn negative_values_are_refused_and_change_nothing() {
        let mut cache = cache(&[(2, 6)]);
        for (epoch, start_offset) in [(-1, 7), (3, -1)] {
            assert!(!cache.would_change(epoch, start_offset));
            assert_eq!(cache.assign(epoch, start_offset), Err(EpochError { epoch, start_offset }));
        }
        assert_eq!(pairs(&cache), [(2, 6)]);
    }

    #[test]
    fn end_offsets() {
        const NONE: (i32, i64) = (-1, -1);
        let table: &[(Pairs, i32, i64, (i32, i64))] = &[
            (&[(2, 10)], 2, 11, (2, 11)),
            (&[(2, 11), (2, 12)], 2, 14, (2, 14)),
            (&[(2, 11), (3, 12)], -1, 0, NONE),
            (&[], 0, 0, NONE),
            (&[], -1, 73, NONE),
            (&[], 7, 0, NONE),
            (&[(1, 11), (1, 12), (2, 13), (2, 14), (3, 15), (3, 16)], 2, 17, (2, 15)),
            (&[(2, 100)], 3, 100, NONE),
            (&[(2, 6)], 2, 7, (2, 7)),
            (&[(2, 6), (4, 9)], 1, 12, (1, 6)),
            (&[(2, 6), (4, 9)], 3, 12, (2, 9)),
            (&[(0, 0), (1, 0)], 1, 0, (1, 0)),
            (&[(0, 0), (1, 0)], 0, 0, (0, 0)),
            (&[(0, 0), (1, 0)], 1, 5, (1, 5)),
            (&[(0, 0), (1, 0), (2, 5)], 2, 10, (2, 10)),
            (&[(0, 0), (1, 0), (2, 5)], 1, 10, (1, 5)),
            (&[(0, 0), (1, 0), (2, 5)], 0, 10, (0, 0)),
            (&[(0, 0), (1, 3), (2, 6)], 2, 9, (2, 9)),
            (&[(0, 0), (1, 3), (2, 6)], 1, 9, (1, 6)),
            (&[(0, 0), (1, 3), (2, 6)], 0, 9, (0, 3)),
        ];
        for &(assigned, epoch, log_end, expected) in table {
            assert_eq!(cache(assigned).end_offset_for(epoch, log_end), expected, "{assigned:?}, epoch {epoch}");
        }
    }

    #[test]
    fn truncation_from_the_start() {
        const THREE: Pairs = &[(2, 6), (3, 8), (4, 11)];
        let table: &[(Pairs, i64, Pairs)] = &[
            (THREE, 8, &[(3, 8), (4, 11)]),
            (THREE, 1, THREE),
            (THREE, 6, THREE),
            (THREE, 7, &[(2, 7), (3, 8), (4, 11)]),
            (THREE, 11, &[(4, 11)]),
            (THREE, 9, &[(3, 9), (4, 11)]),
            (THREE, 15, &[(4, 15)]),
            (THREE, -1, THREE),
            (&[(0, 0), (1, 7), (2, 10)], 5, &[(0, 5), (1, 7), (2, 10)]),
            (&[], 7, &[]),
        ];
        for &(assigned, offset, expected) in table {
            let mut cache = cache(assigned);
            assert_eq!(cache.truncate_from_start(offset), assigned != expected, "{assigned:?} at {offset}");
            assert_eq!(pairs(&cache), expected, "{assigned:?} at {offset}");
        }
    }

    #[test]
    fn truncation_from_the_end() {
        const THREE: Pairs = &[(2, 6), (3, 8), (4, 11)];
        let table: &[(Pairs, i64, Pairs)] = &[
            (THREE, 9, &[(2, 6), (3, 8)]),
            (THREE, 11, &[(2, 6), (3, 8)]),
            (THREE, 12, THREE),
            (THREE, 0, &[]),
            (THREE, -1, THREE),
            (&[], 7, &[]),
        ];
        for &(assigned, offset, expected) in table {
            let mut cache = cache(assigned);
            assert_eq!(cache.truncate_from_end(offset), assigned != expected, "{assigned:?} at {offset}");
            assert_eq!(pairs(&cache), expected, "{assigned:?} at {offset}");
            assert_eq!(cache.latest(), expected.last().map(|last| last.0));
        }
        let mut both = cache(THREE);
        assert!(both.truncate_from_end(11) && both.truncate_from_start(8));
        assert_eq!(pairs(&both), [(3, 8)]);
        both.clear();
        assert_eq!((both.entries(), both.latest()), (&[][..], None));
    }

    #[test]
    fn neighbours_and_the_epoch_of_an_offset() {
        let epoch = |entry: Option<EpochEntry>| entry.map(|entry| entry.epoch);
        assert_eq!(epoch(EpochCache::new().previous(2)), None);
        let mut four = cache(&[(2, 10), (4, 15), (10, 20)]);
        assert_eq!([2, 4, 10].map(|of| epoch(four.previous(of))), [None, Some(2), Some(4)]);
        four.truncate_from_end(18);
        assert_eq!(epoch(four.previous(four.latest().unwrap())), Some(2));
        let three = cache(&[(0, 0), (1, 100), (2, 200)]);
        assert_eq!([-1, 0, 1, 2, 100].map(|of| epoch(three.next(of))), [Some(0), Some(1), Some(2), None, None]);
        let offsets = cache(&[(0, 10), (1, 20), (5, 30)]);
        let found = [25, 20, 30, 50, 5].map(|offset| offsets.epoch_for_offset(offset));
        assert_eq!(found, [Some(1), Some(1), Some(5), Some(5), None]);
    }
}

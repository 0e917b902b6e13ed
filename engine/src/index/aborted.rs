//! The aborted transactions of a log, held for one question: which of them overlap the offsets of a read?
//!
//! Markers only ever come behind one another, so the entries stand in order of their last offset; over the first
//! offsets lies a tree of minima, [`FANOUT`] to one. A lookup begins at the first entry that ends late enough and steps
//! over every group whose transactions all begin too late: its cost grows with the answer and the logarithm of the
//! rest, not with the number of entries or segments. Kafka reads its file from the front for every fetch, and then
//! those of the segments behind. One index for the whole log, and not one for each segment, because a transaction may
//! begin in any segment before the one that holds its marker; the part that belongs into a segment's file is a range of
//! it.

use oncelog_formats::txn_index::AbortedTxn;

/// Entries, or minima, under one minimum.
const FANOUT: usize = 32;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct AbortedIndex {
    /// By last offset, strictly increasing.
    entries: Vec<AbortedTxn>,
    /// Entries at the front that retention has taken and nobody sees any more.
    gone: usize,
    /// `minima[0][i]`: smallest first offset of group `i` of the entries; `minima[n]` the same of `minima[n - 1]`.
    minima: Vec<Vec<i64>>,
}

impl AbortedIndex {
    /// Adds one whose marker lies behind all others. Entries at or behind it are taken back: what said so was wrong.
    pub fn push(&mut self, txn: AbortedTxn) {
        if self.entries.last().is_some_and(|last| last.last_offset >= txn.last_offset) {
            self.truncate_to(txn.last_offset);
        }
        let at = self.entries.len();
        self.entries.push(txn);
        let (mut group, mut minimum) = (at / FANOUT, txn.first_offset);
        for level in 0.. {
            if level == self.minima.len() {
                // The first level stands over everything; a higher one only where there is more than one group.
                if level > 0 && self.minima[level - 1].len() <= 1 {
                    break;
                }
                let below = self.minima.last().map_or(i64::MAX, |below| least(below));
                self.minima.push(vec![below.min(minimum)]);
                continue;
            }
            let minima = &mut self.minima[level];
            match minima.get_mut(group) {
                Some(known) => *known = minimum.min(*known),
                None => minima.push(minimum),
            }
            minimum = minima[group];
            group /= FANOUT;
        }
    }

    /// Calls `visit` with every transaction that ends at or behind `from` and begins below `upper`, by last offset.
    pub fn overlapping(&self, from: i64, upper: i64, mut visit: impl FnMut(&AbortedTxn)) {
        let mut at = self.position_of(from);
        while let Some(found) = self.next_below(at, upper) {
            // Neighbours are likely to match too: the tree is asked again only at the end of a group.
            let end = ((found / FANOUT + 1) * FANOUT).min(self.entries.len());
            self.entries[found..end].iter().filter(|txn| txn.first_offset < upper).for_each(&mut visit);
            at = end;
        }
    }

    /// The entries whose markers lie in `from..to`: those of a segment's file.
    pub fn ending_in(&self, from: i64, to: i64) -> &[AbortedTxn] {
        let (from, to) = (self.position_of(from), self.position_of(to));
        &self.entries[from..to.max(from)]
    }

    /// Forgets those whose markers lie below `offset`. The space is given back when as much lies idle as is used.
    pub fn forget_below(&mut self, offset: i64) {
        self.gone = self.position_of(offset);
        if self.gone > self.entries.len() / 2 {
            let kept = self.entries.split_off(self.gone);
            *self = Self::default();
            kept.into_iter().for_each(|txn| self.push(txn));
        }
    }

    /// Forgets those whose markers lie at or behind `offset`.
    pub fn truncate_to(&mut self, offset: i64) {
        let keep = self.position_of(offset);
        self.entries.truncate(keep);
        if keep == self.gone {
            *self = Self::default();
            return;
        }
        let mut count = keep;
        for level in 0..self.minima.len() {
            let groups = count.div_ceil(FANOUT);
            let from = (groups - 1) * FANOUT;
            let last = match level {
                0 => self.entries[from..].iter().map(|txn| txn.first_offset).min().unwrap_or(i64::MAX),
                _ => least(&self.minima[level - 1][from..]),
            };
            self.minima[level].truncate(groups);
            self.minima[level][groups - 1] = last;
            count = groups;
        }
    }

    /// Place of the first entry that ends at or behind `offset`.
    fn position_of(&self, offset: i64) -> usize {
        self.gone + self.entries[self.gone..].partition_point(|txn| txn.last_offset < offset)
    }

    /// Place of the first entry at or behind `at` that begins below `upper`.
    fn next_below(&self, at: usize, upper: i64) -> Option<usize> {
        let in_group = at..at.next_multiple_of(FANOUT).min(self.entries.len());
        if let Some(near) = in_group.clone().find(|&i| self.entries[i].first_offset < upper) {
            return Some(near);
        }
        // Up while the rest of the group holds nothing, then down into the first group that does.
        let (mut level, mut group) = (0, at.div_ceil(FANOUT));
        loop {
            let minima = self.minima.get(level)?;
            let top = level + 1 == self.minima.len();
            let end = if top { minima.len() } else { group.next_multiple_of(FANOUT).min(minima.len()) };
            if let Some(found) = (group..end).find(|&i| minima[i] < upper) {
                return Some(self.descend(level, found, upper));
            }
            (level, group) = (level + 1, group.div_ceil(FANOUT));
        }
    }

    /// First entry below `upper` under a minimum that says there is one.
    fn descend(&self, level: usize, group: usize, upper: i64) -> usize {
        let mut group = group;
        for minima in self.minima[..level].iter().rev() {
            let from = group * FANOUT;
            let below = minima[from..].iter().position(|&first| first < upper);
            group = from + below.expect("the minimum above says so");
        }
        let from = group * FANOUT;
        let below = self.entries[from..].iter().position(|txn| txn.first_offset < upper);
        from + below.expect("the minimum above says so")
    }
}

fn least(minima: &[i64]) -> i64 {
    minima.iter().copied().min().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn txn(first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn { producer_id: last_offset, first_offset, last_offset, last_stable_offset: first_offset }
    }

    fn overlapping(index: &AbortedIndex, from: i64, upper: i64) -> Vec<AbortedTxn> {
        let mut found = Vec::new();
        index.overlapping(from, upper, |txn| found.push(*txn));
        found
    }

    #[test]
    fn one_long_transaction_behind_thousands_of_short_ones_is_found() {
        let mut index = AbortedIndex::default();
        (0..40_000).for_each(|i| index.push(txn(10 + 2 * i, 11 + 2 * i)));
        index.push(txn(3, 80_010));
        assert_eq!(overlapping(&index, 0, 10), [txn(3, 80_010)]);
        assert_eq!(overlapping(&index, 40_000, 40_003), [txn(40_000, 40_001), txn(40_002, 40_003), txn(3, 80_010)]);
        assert_eq!(overlapping(&index, 80_011, i64::MAX), []);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { gap: i64, length: i64 },
        Forget(i64),
        Truncate(i64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = (1..4i64, 1..400i64).prop_map(|(gap, length)| Step::Push { gap, length });
        let step = prop_oneof![
            200 => push,
            1 => (0..4000i64).prop_map(Step::Forget),
            1 => (0..4000i64).prop_map(Step::Truncate),
        ];
        prop::collection::vec(step, 0..1500)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn it_answers_what_a_scan_would(steps in steps(), asks in prop::collection::vec((0..4000i64, 0..200i64), 40)) {
            let (mut index, mut plain, mut end) = (AbortedIndex::default(), Vec::<AbortedTxn>::new(), 0);
            for step in steps {
                match step {
                    Step::Push { gap, length } => {
                        end += gap;
                        index.push(txn((end - length).max(0), end));
                        plain.push(txn((end - length).max(0), end));
                    }
                    Step::Forget(offset) => {
                        index.forget_below(offset);
                        plain.retain(|txn| txn.last_offset >= offset);
                    }
                    Step::Truncate(offset) => {
                        index.truncate_to(offset);
                        plain.retain(|txn| txn.last_offset < offset);
                    }
                }
            }
            prop_assert_eq!(index.ending_in(i64::MIN, i64::MAX), &plain[..]);
            for (from, length) in asks {
                let upper = from + length;
                let scan = |txn: &&AbortedTxn| txn.last_offset >= from && txn.first_offset < upper;
                let expected: Vec<AbortedTxn> = plain.iter().filter(scan).copied().collect();
                prop_assert_eq!(overlapping(&index, from, upper), expected);
                let ending: Vec<AbortedTxn> =
                    plain.iter().filter(|txn| (from..upper).contains(&txn.last_offset)).copied().collect();
                prop_assert_eq!(index.ending_in(from, upper), &ending[..]);
            }
        }
    }
}

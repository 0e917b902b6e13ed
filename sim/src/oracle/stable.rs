//! Where committed readers stand, and what they may be given (storage.md 3.2 to 3.5).

use oncelog::Fetched;
use std::collections::BTreeSet;

use super::Oracle;
use super::fact::{Fact, Kind, compare};

impl Oracle {
    /// The lowest and the highest last stable offset that the high watermark allows: they differ only where a restart
    /// may have taken decided transactions for replicated ones.
    pub(super) fn last_stable(&self, high_watermark: i64, lied_to: bool) -> (i64, i64) {
        let open = self.producers.known.values().filter_map(|known| known.txn_first_offset);
        let open: Vec<i64> = open.collect();
        let above = |txn: &&(i64, i64)| txn.1 >= high_watermark;
        let replayed = |txn: &&(i64, i64)| self.replayed && txn.1 < self.settled_below;
        let decided = self.decided.iter().filter(|txn| above(txn) || replayed(txn));
        let surely = self.decided.iter().filter(|txn| above(txn) && txn.1 >= self.settled_below);
        let start = self.start_promised;
        let least = |first: Option<i64>, start, at_start: i64| match first {
            Some(first) if first < start => at_start.min(high_watermark),
            Some(first) => first.min(high_watermark),
            None => high_watermark,
        };
        let first = open.iter().copied().chain(decided.map(|txn| txn.0)).min();
        let lowest = least(first, start, self.batch_base(start).min(start));
        // A call that failed may have raised the log start; and where no batch holds it, it counts as the next one's
        // base.
        let raised = self.start_possible.min(high_watermark).max(start);
        let first = open.iter().copied().chain(surely.map(|txn| txn.0)).min();
        // Nor where the batch that holds it begins, if a write of it went elsewhere.
        let at_raised = self.batch_base(raised).max(if lied_to { raised } else { 0 });
        let highest = least(first, raised, at_raised);
        (self.stable_before.map_or(lowest, |before| before.min(lowest)), highest)
    }

    /// Holds the offsets of an answer against each other.
    pub(crate) fn check_limits(&self, fetched: &Fetched, lied_to: bool) -> Result<(), String> {
        let Fetched { high_watermark, last_stable_offset, .. } = *fetched;
        if high_watermark > self.end {
            return Err(format!("high watermark {high_watermark} behind the end {}", self.end));
        }
        let (lowest, highest) = self.last_stable(high_watermark, lied_to);
        if !(lowest..=highest).contains(&last_stable_offset) {
            let expected = format!("{lowest}..={highest}");
            return Err(format!(
                "last stable offset {last_stable_offset} is outside {expected} at high watermark {high_watermark}"
            ));
        }
        Ok(())
    }

    /// Whether this answer to a read from `offset` shows whole batches below `limit`, all of them as far as it goes.
    pub(crate) fn check_read<'a>(&'a self, offset: i64, limit: i64, fetched: &Fetched) -> Result<&'a [Fact], String> {
        let from = self.from(offset);
        let (count, wrong) = compare(from, &fetched.data, false);
        if let Some(wrong) = wrong {
            return Err(format!("a read from {offset}: {wrong}"));
        }
        let shown = &from[..count];
        if let Some(beyond) = shown.iter().find(|fact| fact.last_offset >= limit) {
            return Err(format!("a read from {offset} goes beyond {limit}: {beyond}"));
        }
        if shown.is_empty() && from.first().is_some_and(|fact| fact.last_offset < limit) {
            return Err(format!("a read from {offset} shows nothing below {limit}"));
        }
        Ok(shown)
    }

    /// Whether a consumer that drops what the aborted list tells it to drop keeps exactly what was committed.
    pub(crate) fn check_committed(&self, offset: i64, fetched: &Fetched) -> Result<(), String> {
        let shown = self.check_read(offset, fetched.last_stable_offset, fetched)?;
        let mut aborted = fetched.aborted.clone();
        aborted.sort_by_key(|&(producer_id, first_offset)| (first_offset, producer_id));
        let mut coming = aborted.iter().peekable();
        let mut dropping = BTreeSet::new();
        for fact in shown {
            while let Some((producer_id, _)) = coming.next_if(|txn| txn.1 <= fact.last_offset) {
                dropping.insert(*producer_id);
            }
            let Kind::Data { transactional } = fact.kind else {
                if fact.kind.is_abort() {
                    dropping.remove(&fact.producer_id);
                }
                continue;
            };
            let kept = !(transactional && dropping.contains(&fact.producer_id));
            if fact.is_visible().is_some_and(|visible| visible != kept) {
                let was = if kept { "kept" } else { "dropped" };
                return Err(format!("committed readers {was} {fact} ({:?}), aborted list {aborted:?}", fact.ended));
            }
        }
        Ok(())
    }
}

impl Kind {
    fn is_abort(self) -> bool {
        matches!(self, Self::Marker { commit: false, .. })
    }
}

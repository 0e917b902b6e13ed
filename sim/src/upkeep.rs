//! What happens to a log besides its producers: background steps, reads, deletion, truncation.

use oncelog::Read;

use crate::story::Story;

impl Story {
    pub(crate) fn drive(&mut self, at: usize) {
        let driven = self.log(at).drive();
        self.expect(at, "a background step", driven);
    }

    /// What a reader was shown must not vanish.
    pub(crate) fn read(&mut self, at: usize) {
        let log = self.log(at);
        let fetched = log.read(Read::from(log.log_start_offset()));
        if let Some(fetched) = self.expect(at, "a read", fetched) {
            let shown = fetched.high_watermark;
            self.partitions[at].oracle.durable_below(shown);
        }
    }

    pub(crate) fn roll(&mut self, at: usize) {
        let rolled = self.log(at).roll();
        self.expect(at, "a roll", rolled);
    }

    pub(crate) fn sync(&mut self, at: usize) {
        let synced = self.log(at).sync();
        if let Some(recovery_point) = self.expect(at, "a sync", synced) {
            let end = self.partitions[at].oracle.end();
            if recovery_point != end {
                let reason = format!("a sync reached {recovery_point} instead of {end}");
                self.violation(at, &reason);
            }
            self.partitions[at].oracle.durable_below(recovery_point);
        }
    }

    pub(crate) fn snapshot(&mut self, at: usize) {
        let taken = self.log(at).snapshot();
        self.expect(at, "a snapshot", taken);
    }

    pub(crate) fn delete_records(&mut self, at: usize) {
        let log = self.log(at);
        let (start, limit) = (log.log_start_offset(), log.high_watermark());
        let before = start + self.random.below((limit - start + 1) as u64) as i64;
        self.partitions[at].oracle.start_may_be(before);
        let deleted = log.delete_records(before);
        if let Some(start) = self.expect(at, "deleting records", deleted) {
            self.partitions[at].oracle.start_is(start);
        }
    }

    pub(crate) fn apply_retention(&mut self, at: usize) {
        let log = self.log(at);
        let oracle = &mut self.partitions[at].oracle;
        oracle.start_may_be(oracle.end());
        let removed = log.apply_retention();
        if self.expect(at, "retention", removed).is_some() {
            let start = log.log_start_offset();
            self.partitions[at].oracle.start_is(start);
        }
    }

    /// Cuts at the start of some batch that is still there.
    pub(crate) fn truncate(&mut self, at: usize) {
        let log = self.log(at);
        let (start, oracle) = (log.log_start_offset(), &mut self.partitions[at].oracle);
        let first = oracle.facts.partition_point(|f| f.first_offset < start);
        let first = first.max(oracle.facts.len().saturating_sub(8));
        let choices = &oracle.facts[first..];
        if choices.is_empty() {
            return;
        }
        let offset = choices[self.random.index(choices.len())].first_offset;
        oracle.truncating(offset);
        let cut = log.truncate_to(offset);
        if let Some(end) = self.expect(at, "a truncation", cut) {
            // Tickets of batches that are no more answer for nothing.
            self.partitions[at].tickets.clear();
            self.partitions[at].oracle.truncated(offset);
            if end != offset {
                let reason = format!("truncated to {end} instead of {offset}");
                self.violation(at, &reason);
            }
        }
    }
}

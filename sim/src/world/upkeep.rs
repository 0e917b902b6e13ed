//! What happens to a log besides its producers and readers: background steps, deletion, truncation.

use oncelog_device::Clock;
use serde_json::json;

use super::World;

impl World {
    pub(super) fn drive(&mut self, at: usize) {
        let driven = self.log(at).drive();
        self.expect(at, "a background step", driven);
        if !self.setup.follows_end[at] && self.random.percent(50) {
            self.move_high_watermark(at);
        }
    }

    pub(super) fn roll(&mut self, at: usize) {
        let rolled = self.log(at).roll();
        self.note(at, || json!({"op": "roll"}));
        let end = self.oracle(at).end;
        if let Some(base) = self.expect(at, "a roll", rolled)
            && base != end
        {
            self.violation(at, &format!("rolled at {base} instead of {end}"));
        }
    }

    pub(super) fn sync(&mut self, at: usize) {
        let synced = self.log(at).sync();
        self.note(at, || json!({"op": "sync"}));
        if let Some(recovery_point) = self.expect(at, "a sync", synced) {
            let end = self.oracle(at).end;
            if recovery_point != end {
                self.violation(at, &format!("a sync reached {recovery_point} instead of {end}"));
            }
            self.oracle(at).durable_below(recovery_point);
        }
    }

    pub(super) fn snapshot(&mut self, at: usize) {
        let taken = self.log(at).snapshot();
        self.note(at, || json!({"op": "snapshot"}));
        self.expect(at, "a snapshot", taken);
    }

    pub(super) fn delete_records(&mut self, at: usize) {
        let log = self.log(at);
        let (start, limit) = (log.log_start_offset(), log.high_watermark());
        if limit < start {
            // A high watermark inside a batch counts as the batch's base, and the log start may lie in that batch.
            return;
        }
        let before = start + self.random.below((limit - start + 1) as u64) as i64;
        self.oracle(at).start_may_be(before);
        let deleted = log.delete_records(before);
        self.note(at, || json!({"op": "delete_records", "before_offset": before}));
        if let Some(answered) = self.expect(at, "deleting records", deleted) {
            if answered != before {
                self.violation(at, &format!("records were deleted up to {answered} instead of {before}"));
            }
            if before > start {
                self.log_start_is(at, before);
            }
        }
    }

    fn log_start_is(&mut self, at: usize, start: i64) {
        if self.sync_failed {
            self.oracle(at).start_is_at_least(start)
        } else {
            self.oracle(at).start_is(start)
        }
        if self.setup.follows_end[at] {
            self.oracle(at).durable_below(start);
        }
    }

    pub(super) fn apply_retention(&mut self, at: usize) {
        let log = self.log(at);
        let oracle = &mut self.partitions[at].oracle;
        let (start, possible) = (log.log_start_offset(), oracle.start_possible());
        oracle.start_may_be(oracle.end);
        let removed = log.apply_retention();
        self.note(at, || json!({"op": "apply_retention"}));
        match self.expect(at, "retention", removed) {
            // What an earlier call that failed may have stored stands.
            Some(removed) if removed.is_empty() => self.oracle(at).start_is_at_most(possible),
            Some(_) => {
                let config = &self.setup.config;
                let oldest_ms = self.clock.now_ms() - config.retention_ms;
                let limits = (config.retention_bytes as usize, oldest_ms, log.high_watermark());
                let checked = self.partitions[at].oracle.check_retained(start..log.log_start_offset(), limits);
                self.hold(at, checked);
                self.log_start_is(at, log.log_start_offset());
            }
            None => {}
        }
    }

    pub(super) fn expire(&mut self, at: usize) {
        let expired = self.log(at).expire_producers();
        self.note(at, || json!({"op": "expire_producers"}));
        let now_ms = self.clock.now_ms();
        for producer_id in self.expect(at, "expiry", expired).unwrap_or_default() {
            let checked = self.oracle(at).forgot(producer_id, now_ms);
            self.hold(at, checked);
        }
    }

    /// Cuts at the start of some batch that is still there, or inside it.
    pub(super) fn truncate(&mut self, at: usize) {
        let log = self.log(at);
        let oracle = &mut self.partitions[at].oracle;
        let choices = oracle.from(log.log_start_offset());
        let choices = &choices[choices.len().saturating_sub(8)..];
        if choices.is_empty() {
            return;
        }
        let chosen = &choices[self.random.index(choices.len())];
        let inside = self.random.percent(20);
        let offset = if inside { chosen.last_offset } else { chosen.first_offset };
        oracle.truncating(offset);
        let cut = log.truncate_to(offset);
        self.note(at, || json!({"op": "truncate_to", "offset": offset}));
        let cut = self.expect(at, "a truncation", cut);
        if cut.is_none() {
            (self.partitions[at].half_cut, self.ends_in) = (true, Some(0));
        }
        if let Some(end) = cut {
            // Tickets of batches that are no more answer for nothing.
            self.partitions[at].tickets.clear();
            self.oracle(at).truncated(offset);
            if end != offset {
                self.violation(at, &format!("truncated to {end} instead of {offset}"));
            }
            self.believe_producers(at);
            if self.random.percent(50) {
                let newest = self.partitions[at].oracle.facts.last();
                self.partitions[at].leader_epoch = newest.map_or(0, |fact| fact.leader_epoch);
            }
        }
    }

    /// The log is emptied and begins at another offset.
    pub(super) fn begin_anew(&mut self, at: usize) {
        let end = self.oracle(at).end;
        let offset = end + self.random.pick(&[0, 0, 7]);
        self.oracle(at).truncating(0);
        self.oracle(at).start_may_be(offset);
        self.partitions[at].half_anew = true;
        let begun = self.log(at).truncate_fully_and_start_at(offset, None);
        self.note(at, || json!({"op": "truncate_fully_and_start_at", "offset": offset}));
        let begun = self.expect(at, "beginning anew", begun);
        if begun.is_none() {
            (self.partitions[at].half_cut, self.ends_in) = (true, Some(0));
        } else {
            let partition = &mut self.partitions[at];
            partition.half_anew = false;
            partition.tickets.clear();
            partition.oracle.began_anew(offset);
        }
    }

    pub(super) fn move_high_watermark(&mut self, at: usize) {
        if self.setup.follows_end[at] {
            return;
        }
        let log = self.log(at);
        let (old, end) = (log.high_watermark(), log.log_end_offset());
        let room = self.oracle(at).end - old;
        let offset = if self.random.percent(40) { end } else { old + self.random.below(room.max(0) as u64 + 1) as i64 };
        let moved = log.set_high_watermark(offset);
        self.note(at, || json!({"op": "set_high_watermark", "offset": offset}));
        let offset = offset.max(log.log_start_offset());
        let Some(answer) = self.expect(at, "moving the high watermark", moved) else { return };
        self.oracle(at).high_watermark_named();
        if answer != offset {
            self.violation(at, &format!("the high watermark is {answer} instead of {offset}"));
        }
    }
}

//! What one log has promised, and whether it kept it.
//!
//! Written from `design.md` section 1, `storage.md` and `producer-vectors.md`; knows nothing of the engine but its
//! public answers. Where those pages leave a choice (where the high watermark stands, which producers a restart has let
//! expire), the log is asked and the answer held against what was possible.

mod epochs;
pub(crate) mod fact;
pub(crate) mod producers;
mod stable;

use oncelog::{Ack, Forgotten};
use std::collections::{BTreeMap, BTreeSet};

use epochs::Epochs;
use fact::{Fact, Kind, compare};
use producers::{Known, Producers};

/// What is found in a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Found {
    pub(crate) log_start: i64,
    pub(crate) log_end: i64,
    /// Stored batches from the one that holds the log start to the log end.
    pub(crate) data: Vec<u8>,
}

/// Every fact of one log in the order of offsets. Facts stay when retention deletes what they speak of, because retries
/// are answered all the same.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    pub(crate) facts: Vec<Fact>,
    pub(crate) producers: Producers,
    epochs: Epochs,
    /// The offset that the next record gets.
    pub(crate) end: i64,
    /// The log start that was promised, and the largest that an unanswered call may have left.
    start_promised: i64,
    start_possible: i64,
    /// The largest log start ever asked for.
    start_asked: i64,
    /// Producers that expired, and the log end at that moment: what they did before is remembered or not.
    forgotten: BTreeMap<i64, i64>,
    /// Transactions that are decided: first offset and offset of the marker.
    decided: Vec<(i64, i64)>,
    /// Producers of which something was cut or lost: what was stored of them since says no more what they were before.
    undone: BTreeSet<i64>,
    expiration_ms: i64,
    /// A truncation inside a batch left offsets without a batch: which epoch they are of nobody says.
    holed: bool,
    /// Below this offset a restart may have taken decided transactions for replicated ones.
    settled_below: i64,
    /// A truncation replayed decided transactions, and until the high watermark is named again none of them counts as
    /// replicated (storage.md 3.1, 3.2, 4.8).
    replayed: bool,
    /// The last stable offset as it was when the log was truncated: it is not looked at again before the log grows or
    /// its high watermark or start moves (storage.md 3.2), though the transaction that held it may be forgotten.
    stable_before: Option<i64>,
}

impl Oracle {
    pub(crate) fn new(verification_enabled: bool, expiration_ms: i64) -> Self {
        let mut oracle = Self { expiration_ms, ..Self::default() };
        oracle.producers.verification_enabled = verification_enabled;
        oracle
    }

    pub(crate) fn start(&self) -> i64 {
        self.start_promised
    }

    /// The fact that begins at this offset.
    pub(crate) fn at(&self, first_offset: i64) -> Option<&Fact> {
        let position = self.facts.binary_search_by_key(&first_offset, |fact| fact.first_offset).ok()?;
        Some(&self.facts[position])
    }

    /// A batch was given the next offsets.
    pub(crate) fn appended(&mut self, mut fact: Fact, records: i64) {
        (fact.first_offset, fact.last_offset) = (self.end, self.end + records - 1);
        self.end += records;
        self.stable_before = None;
        self.epochs.assign(fact.leader_epoch, fact.first_offset);
        self.facts.push(fact);
        self.follow(self.facts.len() - 1, true);
    }

    /// An answer was given for the batch at this offset: it holds for everything before it too.
    pub(crate) fn acknowledged(&mut self, first_offset: i64, level: Ack) {
        for fact in self.facts.iter_mut().filter(|fact| fact.first_offset <= first_offset) {
            fact.level = fact.level.max(level);
        }
    }

    /// Readers were shown everything below this offset, or it was called durable.
    pub(crate) fn durable_below(&mut self, offset: i64) {
        for fact in self.facts.iter_mut().filter(|fact| fact.last_offset < offset) {
            fact.level = Ack::Durable;
        }
    }

    /// A truncation begins: from now on what lies at or behind the offset may be lost.
    pub(crate) fn truncating(&mut self, offset: i64) {
        for fact in self.facts.iter_mut().filter(|fact| fact.last_offset >= offset) {
            fact.level = Ack::Accepted;
        }
        self.start_promised = self.start_promised.min(offset);
    }

    /// It is done: what was cut must never be seen again.
    pub(crate) fn truncated(&mut self, offset: i64) {
        let (stable, _) = self.last_stable(self.end, false);
        self.undone.extend(self.facts.iter().filter(|fact| fact.last_offset >= offset).map(|fact| fact.producer_id));
        self.facts.retain(|fact| fact.last_offset < offset);
        for fact in self.facts.iter().filter(|fact| fact.kind.is_transactional()) {
            self.producers.doubt_pending(fact.producer_id);
        }
        self.end = offset;
        self.holed |= self.facts.last().is_some_and(|fact| fact.last_offset + 1 < offset) || self.facts.is_empty();
        let possible = self.start_possible.min(offset);
        self.start_is(self.start_promised.min(offset));
        self.start_possible = possible;
        (self.settled_below, self.replayed, self.stable_before) = (offset, true, Some(stable));
        (self.producers.loaded_end, self.producers.was_cut) = (offset, true);
        self.start_asked = self.start_asked.min(offset);
        self.epochs.truncate_from_end(offset);
        self.replay();
    }

    /// The log begins anew at this offset and remembers nobody.
    pub(crate) fn began_anew(&mut self, offset: i64) {
        self.facts.clear();
        self.truncated(offset);
        self.start_is(offset);
        self.epochs = Epochs::default();
    }

    /// The high watermark was named.
    pub(crate) fn high_watermark_named(&mut self) {
        (self.replayed, self.stable_before) = (false, None);
    }

    /// The largest log start that an unanswered call may have left.
    pub(crate) fn start_possible(&self) -> i64 {
        self.start_possible
    }

    /// The log start may move up to here.
    pub(crate) fn start_may_be(&mut self, offset: i64) {
        self.start_possible = self.start_possible.max(offset);
        self.start_asked = self.start_asked.max(offset);
    }

    /// The log start was not moved: it may be what an earlier unanswered call left.
    pub(crate) fn start_is_at_most(&mut self, possible: i64) {
        self.start_possible = possible;
    }

    /// The log start was answered, after an earlier call that failed half way may have stored a larger one.
    pub(crate) fn start_is_at_least(&mut self, offset: i64) {
        let possible = self.start_possible.max(offset);
        self.start_is(offset);
        self.start_possible = possible;
    }

    /// The log start was answered.
    pub(crate) fn start_is(&mut self, offset: i64) {
        (self.start_promised, self.start_possible, self.stable_before) = (offset, offset, None);
        self.epochs.truncate_from_start(offset);
    }

    /// Base offset of the batch that holds the offset, or of the next one; the log end where there is none.
    pub(crate) fn batch_base(&self, offset: i64) -> i64 {
        self.from(offset).first().map_or(self.end, |fact| fact.first_offset)
    }

    /// The facts that a reader from this offset on may see.
    pub(crate) fn from(&self, offset: i64) -> &[Fact] {
        &self.facts[self.facts.partition_point(|fact| fact.last_offset < offset)..]
    }

    /// Retention took these offsets: what was too old, or what the log had beyond its size, and nothing that may still
    /// be taken back (storage.md 4.11).
    pub(crate) fn check_retained(
        &self,
        gone: std::ops::Range<i64>,
        (retention_bytes, oldest_ms, high_watermark): (usize, i64, i64),
    ) -> Result<(), String> {
        if !gone.is_empty() && gone.end > high_watermark {
            return Err(format!("retention took {gone:?}, the high watermark is {high_watermark}"));
        }
        let mut left_bytes: usize = self.from(gone.end).iter().map(|fact| fact.sent.len()).sum();
        let taken = self.from(gone.start).iter().take_while(|fact| fact.last_offset < gone.end);
        for fact in taken.collect::<Vec<_>>().into_iter().rev() {
            if left_bytes < retention_bytes && fact.timestamp >= oldest_ms {
                return Err(format!("retention took {gone:?}, too much: {left_bytes} bytes are left behind {fact}"));
            }
            left_bytes += fact.sent.len();
        }
        Ok(())
    }

    pub(crate) fn check_epochs(&self, answer: impl Fn(i32) -> (i32, i64)) -> Result<(), String> {
        if self.holed {
            return Ok(());
        }
        // An epoch that begins at the log end goes when the log is opened again, if its file had been written.
        let mut reopened = self.epochs.clone();
        reopened.truncate_from_end(self.end);
        // A log start that was asked for and not reached may have taken epochs with it.
        let mut raised = self.epochs.clone();
        raised.truncate_from_start(self.start_asked.min(self.end));
        for epoch in self.epochs.questions() {
            let (expected, answered) = (self.epochs.end_offset_for(epoch, self.end), answer(epoch));
            if expected != answered
                && ![&reopened, &raised].iter().any(|e| e.end_offset_for(epoch, self.end) == answered)
            {
                let epochs = &self.epochs;
                return Err(format!(
                    "the end of epoch {epoch} was answered {answered:?} instead of {expected:?} by {epochs:?}"
                ));
            }
        }
        Ok(())
    }

    /// The first record at or behind a time: its offset and timestamp. All records of a batch have one timestamp here.
    /// The log says where it starts: a call that failed may have moved that.
    pub(crate) fn at_time(&self, timestamp: i64, log_start: i64) -> Option<(i64, i64)> {
        let start = log_start.clamp(self.start_promised, self.start_possible);
        let found = self.from(start).iter().find(|fact| fact.timestamp >= timestamp)?;
        Some((found.first_offset.max(start), found.timestamp))
    }

    /// Compares what is found with what was promised to survive: every fact of `survives` or stronger. Then believes
    /// what is found; answers the facts that are gone, and everything that is wrong.
    pub(crate) fn check(&mut self, found: &Found, survives: Ack) -> (Vec<Fact>, Vec<String>) {
        let mut wrong = Vec::new();
        if !(self.start_promised..=self.start_possible).contains(&found.log_start) {
            let (promised, possible) = (self.start_promised, self.start_possible);
            wrong.push(format!("log start {} is outside {promised}..={possible}", found.log_start));
        }
        let kept = self.facts.iter().filter(|fact| fact.last_offset < found.log_end).count();
        let gone = self.facts.split_off(kept);
        self.undone.extend(gone.iter().map(|fact| fact.producer_id));
        for fact in gone.iter().filter(|fact| fact.level >= survives) {
            wrong.push(format!("lost: {fact}"));
        }
        // Offsets that a truncation inside a batch left empty are no promise of anything.
        let last = self.facts.last().map_or(0, |fact| fact.last_offset + 1);
        let end = gone.first().map_or(self.end, |fact| fact.first_offset);
        // A log whose end a crash took back below its start begins again at its start.
        if !(last..=end).contains(&found.log_end) && found.log_end != found.log_start {
            wrong.push(format!("log end {} where {last}..={end} was expected", found.log_end));
        }
        self.end = found.log_end;
        (self.settled_below, self.replayed, self.stable_before) = (found.log_end, false, None);
        (self.producers.loaded_end, self.producers.was_cut) = (found.log_end, false);
        wrong.extend(compare(self.from(found.log_start), &found.data, true).1);
        self.producers.forget_pending();
        self.replay();
        self.epochs = Epochs::default();
        self.facts.iter().for_each(|fact| self.epochs.assign(fact.leader_epoch, fact.first_offset));
        self.start_is(found.log_start);
        (gone, wrong)
    }

    /// Whether some fact need not have survived such an end.
    pub(crate) fn has_weaker(&self, survives: Ack) -> bool {
        self.facts.iter().any(|fact| fact.level < survives)
    }

    /// A producer is no longer remembered; may that be? `now_ms` is the time by our clock.
    pub(crate) fn forgot(&mut self, producer_id: i64, now_ms: i64) -> Result<(), String> {
        let Some(known) = self.producers.known.get(&producer_id) else { return Ok(()) };
        let age_ms = now_ms - known.last_append_ms;
        if age_ms < self.expiration_ms || known.txn_first_offset.is_some() {
            return Err(format!("producer {producer_id} was forgotten after {age_ms} ms: {known:?}"));
        }
        self.lost(producer_id);
        Ok(())
    }

    /// Which batches of a producer are remembered, by their first offsets. What it did before it was silent for long
    /// enough to expire may be forgotten, though no expiry was asked for.
    pub(crate) fn remembers(&mut self, producer_id: i64, offsets: &[i64]) {
        // A crash may have taken a forgetting back, though the producer has appended since.
        if self.forgotten.get(&producer_id).is_some_and(|end| offsets.iter().any(|offset| offset < end)) {
            self.forgotten.remove(&producer_id);
            self.replay();
        }
        let Some(known) = self.producers.known.get_mut(&producer_id) else { return };
        if known.window.iter().any(|batch| batch.0 < known.sure_from && !offsets.contains(&batch.0)) {
            known.window.retain(|batch| batch.0 >= known.sure_from);
            self.forgotten.insert(producer_id, known.sure_from);
        }
    }

    /// What a log that was loaded anew says of a producer: its epoch, the epoch of its coordinator, and where its open
    /// transaction begins. A load begins at a snapshot, or at the log start, or after a crash at some segment before
    /// that (storage.md 4.5 to 4.7): what lies below the log start may say no more of coordinator and transaction, nor
    /// what an expired entry of the snapshot said; of whom Kafka forgets then, batches below the log start or with old
    /// timestamps expect no sequence. The part of a transaction above the log start is known whatever happens.
    pub(crate) fn loaded(
        &mut self,
        producer_id: i64,
        (said, forgotten): ((i16, i32, Option<i64>), Forgotten),
        start: i64,
        now_ms: i64,
    ) -> Result<(), String> {
        let expired = self.has_expired(producer_id);
        let Some(known) = self.producers.known.get(&producer_id) else { return Ok(()) };
        let marker = self.facts.iter().rev().find(|fact| fact.producer_id == producer_id && fact.kind.is_marker());
        let fresh = |f: &Fact| now_ms - f.timestamp.min(f.appended_ms) < self.expiration_ms;
        let sure = |marker: &Fact| {
            let mut since = self.from(marker.last_offset).iter().filter(|fact| fact.producer_id == producer_id);
            marker.last_offset >= start && since.all(fresh)
        };
        let (epoch, coordinator_epoch, txn_first_offset) = said;
        let coordinator_known = coordinator_epoch == known.coordinator_epoch
            || expired
            || (coordinator_epoch == -1 && !marker.is_some_and(sure));
        let txn_known = txn_first_offset == known.txn_first_offset
            || match (txn_first_offset, self.txn_from(start, known, producer_id)) {
                (None, above) => above.is_none(),
                (Some(said), above) => {
                    let first = known.txn_first_offset.unwrap_or(i64::MAX);
                    let is_first = |fact: &Fact| {
                        (first..=above.unwrap_or(i64::MAX)).contains(&said) || self.counts_again(fact, start)
                    };
                    self.at(said).filter(|fact| fact.producer_id == producer_id).is_some_and(is_first)
                }
            };
        if epoch != known.epoch || !coordinator_known || !txn_known {
            return Err(format!(
                "producer {producer_id} is loaded with epoch, coordinator epoch, transaction {said:?} instead of {known:?}"
            ));
        }
        let forgets = |counts: fn(&Fact) -> bool| {
            let newest = self.facts.iter().rev().find(|fact| fact.producer_id == producer_id && counts(fact));
            newest.is_none_or(|f| f.last_offset < start || now_ms - f.timestamp >= self.expiration_ms)
        };
        let may_be = match forgotten {
            Forgotten::Nothing => true,
            Forgotten::Batches => forgets(|fact| !fact.kind.is_marker()),
            Forgotten::Producer => forgets(|_| true),
        };
        if !may_be && !expired {
            return Err(format!("producer {producer_id} counts as forgotten by Kafka ({forgotten:?}): {known:?}"));
        }
        let known = self.producers.known.get_mut(&producer_id).expect("looked at above");
        known.coordinator_epoch = if forgotten == Forgotten::Producer { -1 } else { coordinator_epoch };
        (known.txn_first_offset, known.forgotten) = (txn_first_offset, forgotten);
        Ok(())
    }

    /// First offset of an open transaction at or above the log start.
    fn txn_from(&self, start: i64, known: &Known, producer_id: i64) -> Option<i64> {
        let first = known.txn_first_offset?;
        let of_it = |fact: &&Fact| {
            fact.producer_id == producer_id && fact.kind.is_transactional() && fact.first_offset >= first
        };
        self.from(start).iter().find(of_it).map(|fact| fact.first_offset)
    }

    /// Whether this batch may open a transaction that a load before this one forgot: below the log start and never
    /// ended, in a segment that a crash makes Kafka read whole again (`LogLoader.recoverSegment`, storage.md 4.5).
    fn counts_again(&self, first: &Fact, start: i64) -> bool {
        let ends = |fact: &Fact| fact.producer_id == first.producer_id && fact.kind.is_marker();
        let is_open = !self.from(first.last_offset + 1).iter().any(ends);
        first.kind.is_transactional() && !first.kind.is_marker() && first.last_offset < start && is_open
    }

    /// A producer is not there after a load; may that be?
    pub(crate) fn not_loaded(&mut self, producer_id: i64, start: i64, now_ms: i64) -> Result<(), String> {
        let Some(known) = self.producers.known.get(&producer_id) else { return Ok(()) };
        if self.txn_from(start, known, producer_id).is_none() {
            let known = self.producers.known.get_mut(&producer_id).expect("looked at above");
            known.txn_first_offset = None;
        }
        // No promise is left to one whose markers alone were below what was cut, and were deleted: a load forgets it as
        // Kafka's does (storage.md 4.5 to 4.7).
        let is_told = |fact: &Fact| fact.producer_id == producer_id && fact.last_offset >= start;
        let has_batches = self.producers.known.get(&producer_id).is_some_and(|known| !known.window.is_empty());
        if self.undone.contains(&producer_id) && !has_batches && !self.facts.iter().any(is_told) {
            self.lost(producer_id);
            return Ok(());
        }
        self.forgot(producer_id, now_ms)
    }

    /// A producer is no longer remembered, for a good reason.
    pub(crate) fn lost(&mut self, producer_id: i64) {
        self.forgotten.insert(producer_id, self.end);
        self.producers.known.remove(&producer_id);
    }

    /// A producer that had expired is remembered after all: a crash took the forgetting back.
    pub(crate) fn remembered(&mut self, producer_id: i64) {
        if !self.producers.known.contains_key(&producer_id) && self.forgotten.remove(&producer_id).is_some() {
            self.replay();
        }
    }

    /// Whether a producer expired at some time: how much of it is remembered is then open.
    pub(crate) fn has_expired(&self, producer_id: i64) -> bool {
        self.forgotten.contains_key(&producer_id)
    }

    /// All that follows from the facts, anew.
    fn replay(&mut self) {
        // Offsets that were cut are given again.
        self.forgotten.values_mut().for_each(|end| *end = self.end.min(*end));
        self.producers.known.clear();
        self.decided.clear();
        self.facts.iter_mut().for_each(|fact| fact.ended = None);
        (0..self.facts.len()).for_each(|at| self.follow(at, false));
    }

    /// What fact number `at` means for its producer and its transaction.
    fn follow(&mut self, at: usize, live: bool) {
        let fact = &self.facts[at];
        let (id, marker) = (fact.producer_id, fact.first_offset);
        if self.forgotten.get(&id).is_some_and(|&end| marker < end) {
            return;
        }
        let Some(first_offset) = self.producers.apply(fact, live, self.expiration_ms) else { return };
        let Kind::Marker { commit, .. } = fact.kind else { return };
        self.decided.push((first_offset, marker));
        let from = self.facts.partition_point(|fact| fact.first_offset < first_offset);
        let of_it = |fact: &&mut Fact| fact.producer_id == id && fact.ended.is_none() && fact.kind.is_transactional();
        for fact in self.facts[from..at].iter_mut().filter(of_it) {
            fact.ended = Some((commit, marker));
        }
    }
}

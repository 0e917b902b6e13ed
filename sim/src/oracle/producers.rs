//! What a log must answer to a producer: the tables P, E and V of `producer-vectors.md`, over what the facts say.

use oncelog::{Error, Forgotten, Outcome, Ticket};
use std::collections::BTreeMap;

use super::fact::{Fact, Kind};

/// How many batches of a producer may be retried.
const WINDOW: usize = 5;

/// What is offered to a log.
#[derive(Debug, Clone)]
pub(crate) struct Offer {
    /// Its offsets count for nothing yet.
    pub(crate) batch: Fact,
    pub(crate) guard: Option<u64>,
    pub(crate) txn_version: i16,
}

/// The only right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Stored at the log end.
    Append,
    /// The answer that the batch at this offset was given.
    Duplicate(i64),
    /// Kafka's name of the refusal.
    Refuse(&'static str),
}

impl Verdict {
    /// Whether this is the answer, as far as its kind.
    pub(crate) fn is_given_by(self, answer: &Result<Ticket, Error>) -> bool {
        match (self, answer) {
            (Self::Refuse(name), Err(Error::Refused { refusal, .. })) => refusal.kafka_name() == name,
            (Self::Append, Ok(ticket)) => ticket.expected().outcome == Outcome::Appended,
            (Self::Duplicate(_), Ok(ticket)) => ticket.expected().outcome == Outcome::Duplicate,
            _ => false,
        }
    }
}

/// One producer, as the facts leave it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    /// First offset and sequences of the batches that may be retried, oldest first.
    pub(crate) window: Vec<(i64, i32, i32)>,
    pub(crate) txn_first_offset: Option<i64>,
    pub(crate) last_append_ms: i64,
    /// What it did before this offset it did before it was silent for long enough to expire.
    pub(crate) sure_from: i64,
    /// What a load or a truncation made Kafka forget of it: retries are answered and what was stored or fenced stays
    /// out all the same, of anything else the verdict is Kafka's.
    pub(crate) forgotten: Forgotten,
}

/// A verification that was asked for.
#[derive(Debug, Clone, Copy)]
struct Pending {
    epoch: i16,
    lowest: i32,
    bumps: bool,
    guard: u64,
    /// A truncation may have read again what it was asked for, which ends it: the next answer says so with a new guard.
    doubted: bool,
}

/// All producers of a log.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    pub(crate) known: BTreeMap<i64, Known>,
    pending: BTreeMap<i64, Pending>,
    pub(crate) verification_enabled: bool,
    /// Where the log ended when it was last loaded or cut, and whether it was cut: how much was read again then is
    /// open.
    pub(crate) loaded_end: i64,
    pub(crate) was_cut: bool,
}

impl Known {
    fn nothing() -> Self {
        Self {
            epoch: -1,
            coordinator_epoch: -1,
            window: Vec::new(),
            txn_first_offset: None,
            last_append_ms: 0,
            sure_from: 0,
            forgotten: Forgotten::Nothing,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.window.last().map_or(-1, |batch| batch.2)
    }

    /// The sequence that a client sends next in the epoch in force.
    pub(crate) fn next_sequence(&self) -> i32 {
        if self.knows_batches() { later(self.last_sequence(), 1) } else { 0 }
    }

    fn knows_batches(&self) -> bool {
        !self.window.is_empty() && self.forgotten != Forgotten::Batches
    }

    /// P7 and P8.
    fn expects(&self, epoch: i16, sequence: i32, last_sequence: i32) -> bool {
        let same_epoch = epoch == self.epoch;
        if self.forgotten == Forgotten::Producer {
            let distance = |from: i32, to: i32| (i64::from(to) - i64::from(from)).rem_euclid(1 << 31);
            let meets = |&(_, first, last): &(i64, i32, i32)| {
                let later = distance(first, sequence) > distance(first, last);
                last >= 0 && !(later && distance(sequence, first) > distance(sequence, last_sequence))
            };
            return !(same_epoch && self.window.iter().any(meets));
        }
        if same_epoch { sequence == self.next_sequence() } else { self.epoch == -1 || sequence == 0 }
    }
}

impl Producers {
    pub(crate) fn verdict(&self, offer: &Offer) -> Verdict {
        let nothing = Known::nothing();
        let batch = &offer.batch;
        if batch.producer_id < 0 {
            return Verdict::Append;
        }
        let stored = self.known.get(&batch.producer_id).unwrap_or(&nothing);
        match batch.kind {
            Kind::Data { transactional } => self.verdict_on_data(stored, offer, transactional),
            Kind::Marker { coordinator_epoch, .. } => verdict_on_marker(stored, offer, coordinator_epoch),
        }
    }

    fn verdict_on_data(&self, stored: &Known, offer: &Offer, transactional: bool) -> Verdict {
        let batch = &offer.batch;
        let (epoch, sequence) = (batch.epoch, batch.first_sequence);
        let same = |known: &&(i64, i32, i32)| (known.1, known.2) == (sequence, batch.last_sequence);
        // Of several with the same sequences the oldest since the load, which leaves Kafka only the newest before it.
        let since = |known: &&(i64, i32, i32)| same(known) && known.0 >= self.loaded_end;
        let mut window = stored.window.iter().filter(|_| epoch == stored.epoch);
        if let Some(known) = window.clone().find(since).or_else(|| window.rfind(same)) {
            return Verdict::Duplicate(known.0); // P1
        }
        let open_here = stored.txn_first_offset.is_some() && stored.epoch == epoch;
        let pending = self.pending.get(&batch.producer_id);
        let guarded = pending.is_some_and(|pending| offer.guard == Some(pending.guard));
        let from_nothing = stored.forgotten == Forgotten::Producer || !stored.knows_batches();
        let out_of_order = Verdict::Refuse("OUT_OF_ORDER_SEQUENCE_NUMBER");
        if epoch < stored.epoch {
            Verdict::Refuse("INVALID_PRODUCER_EPOCH") // P2, P4
        } else if transactional && !open_here && self.verification_enabled && !guarded {
            Verdict::Refuse("INVALID_TXN_STATE") // P3
        } else if pending.is_some_and(|p| (p.bumps && from_nothing && sequence != 0) || sequence > p.lowest)
            || !stored.expects(epoch, sequence, batch.last_sequence)
        {
            out_of_order // P5 to P8
        } else if stored.txn_first_offset.is_some() && !transactional {
            Verdict::Refuse("INVALID_TXN_STATE") // P9
        } else {
            Verdict::Append // P10, P11
        }
    }

    /// The verdict if a truncation has ended the verification that is pending, where that may be.
    pub(crate) fn verdict_if_ended(&mut self, offer: &Offer) -> Option<Verdict> {
        let pending = self.pending.remove(&offer.batch.producer_id)?;
        let verdict = pending.doubted.then(|| self.verdict(offer));
        self.pending.insert(offer.batch.producer_id, pending);
        verdict
    }

    /// A truncation has ended what was pending.
    pub(crate) fn end_pending(&mut self, producer_id: i64) {
        self.pending.remove(&producer_id);
    }

    /// Whether the batch at this offset has the same sequences, and nobody knows which of several is answered.
    pub(crate) fn may_repeat(&self, batch: &Fact, first_offset: i64) -> bool {
        let same = (first_offset, batch.first_sequence, batch.last_sequence);
        let known = self.known.get(&batch.producer_id).filter(|known| known.epoch == batch.epoch);
        self.was_cut && known.is_some_and(|known| known.window.contains(&same))
    }

    /// V1 to V3; the guard that the log answered is the one that must come again.
    pub(crate) fn verification(
        &mut self,
        (producer_id, sequence, epoch): (i64, i32, i16),
        bumps: bool,
        answered: &Result<Option<u64>, &'static str>,
    ) -> Result<(), String> {
        let nothing = Known::nothing();
        // Who is forgotten may ask.
        let known = self.known.get(&producer_id).filter(|known| known.forgotten != Forgotten::Producer);
        let stored = known.unwrap_or(&nothing);
        let expected = if !self.verification_enabled {
            Ok(None)
        } else if epoch < stored.epoch {
            Err("INVALID_PRODUCER_EPOCH")
        } else if stored.txn_first_offset.is_some() && stored.epoch == epoch {
            Ok(None)
        } else {
            let guard = answered.unwrap_or(None).unwrap_or(0);
            let fresh = Pending { epoch, lowest: sequence, bumps, guard, doubted: false };
            let pending = self.pending.entry(producer_id).or_insert(fresh);
            if std::mem::take(&mut pending.doubted) && guard > pending.guard {
                *pending = fresh;
            }
            if epoch > pending.epoch {
                (pending.epoch, pending.lowest) = (epoch, sequence);
            } else if epoch == pending.epoch {
                pending.lowest = pending.lowest.min(sequence);
            }
            Ok(Some(pending.guard))
        };
        if *answered == expected { Ok(()) } else { Err(format!("answered {answered:?} instead of {expected:?}")) }
    }

    /// What a stored batch leaves behind; the transaction that it ended, by its first offset.
    pub(crate) fn apply(&mut self, fact: &Fact, live: bool, expiration_ms: i64) -> Option<i64> {
        if fact.producer_id < 0 {
            return None;
        }
        if live && fact.kind.is_transactional() {
            let is_marker = matches!(fact.kind, Kind::Marker { .. });
            let of_next = |p: &Pending| is_marker && p.bumps && p.epoch == fact.epoch;
            if !self.pending.get(&fact.producer_id).is_some_and(of_next) {
                self.pending.remove(&fact.producer_id); // V4
            }
        }
        let known = self.known.entry(fact.producer_id).or_insert_with(Known::nothing);
        if known.epoch != fact.epoch {
            known.window.clear();
            known.epoch = fact.epoch;
        }
        let silent_ms = fact.appended_ms - known.last_append_ms;
        if known.epoch >= 0 && silent_ms >= expiration_ms && known.txn_first_offset.is_none() {
            known.sure_from = fact.first_offset;
        }
        known.last_append_ms = fact.appended_ms;
        known.forgotten = match (known.forgotten, fact.kind) {
            (Forgotten::Producer | Forgotten::Batches, Kind::Marker { .. }) if !known.window.is_empty() => {
                Forgotten::Batches
            }
            _ => Forgotten::Nothing,
        };
        match fact.kind {
            Kind::Data { transactional } => {
                known.window.push((fact.first_offset, fact.first_sequence, fact.last_sequence));
                let surplus = known.window.len().saturating_sub(WINDOW);
                known.window.drain(..surplus);
                if transactional {
                    known.txn_first_offset.get_or_insert(fact.first_offset);
                }
                None
            }
            Kind::Marker { coordinator_epoch, .. } => {
                known.coordinator_epoch = coordinator_epoch;
                known.txn_first_offset.take()
            }
        }
    }

    /// A truncation left some transactional batch of this producer.
    pub(crate) fn doubt_pending(&mut self, producer_id: i64) {
        self.pending.get_mut(&producer_id).into_iter().for_each(|pending| pending.doubted = true);
    }

    /// A new life: nothing is pending.
    pub(crate) fn forget_pending(&mut self) {
        self.pending.clear();
    }
}

/// E2, E4 and E7.
fn verdict_on_marker(stored: &Known, offer: &Offer, coordinator_epoch: i32) -> Verdict {
    let epoch = offer.batch.epoch;
    let must_bump = offer.txn_version >= 2 && epoch == stored.epoch && epoch != i16::MAX;
    if epoch < stored.epoch || (must_bump && stored.txn_first_offset.is_some()) {
        Verdict::Refuse("INVALID_PRODUCER_EPOCH")
    } else if coordinator_epoch < stored.coordinator_epoch {
        Verdict::Refuse("TRANSACTION_COORDINATOR_FENCED")
    } else {
        Verdict::Append
    }
}

/// The sequence `steps` behind `sequence`; behind the largest comes 0.
pub(crate) fn later(sequence: i32, steps: i32) -> i32 {
    ((i64::from(sequence) + i64::from(steps)) & i64::from(i32::MAX)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_start_again_at_zero() {
        assert_eq!((later(i32::MAX, 1), later(i32::MAX - 1, 3), later(-1, 1), later(5, 0)), (0, 1, 0, 5));
    }
}

//! What clients and coordinators send, and what they must be answered.

use oncelog::{Ack, Append, Appended, Error, Outcome, Ticket};
use oncelog_device::Clock;
use serde_json::json;

use super::World;
use crate::oracle::fact::{Fact, Kind};
use crate::oracle::producers::{Offer, Verdict};
use crate::plan::Wrong;
use crate::random::mix;

impl World {
    /// A producer's next batch.
    pub(super) fn send(&mut self, at: usize, client: usize, ack: Ack, wrong: Wrong) {
        let partition = &mut self.partitions[at];
        let client = &mut partition.clients[client];
        let known = partition.oracle.producers.known.get(&client.producer_id);
        if known.is_none() {
            // Who was forgotten begins under a new epoch: what it sent before would look like a retry.
            let before = partition.oracle.facts.iter().filter(|fact| fact.producer_id == client.producer_id);
            client.epoch = before.map(|fact| fact.epoch + 1).fold(client.epoch, i16::max);
        }
        let client = client.clone();
        let tame = wrong == Wrong::StaleEpoch && known.is_none_or(|known| known.epoch < 1);
        let wrong = if tame { Wrong::Gap } else { wrong };
        let mut timestamp = self.clock.now_ms();
        if self.setup.odd_timestamps {
            timestamp -= self.random.pick(&[0, 5, 30_000, 200_000_000]);
        }
        let batch = client.batch(known, wrong, timestamp, &mut self.random);
        let guarded = batch.kind.is_transactional() && wrong != Wrong::Transaction;
        let guard = if guarded { self.verify(at, &batch) } else { None };
        self.submit(at, batch, guard, ack);
    }

    /// Asks for the guard of a transaction that may begin with this batch.
    fn verify(&mut self, at: usize, batch: &Fact) -> Option<u64> {
        let version = self.setup.txn_version;
        let question = (batch.producer_id, batch.first_sequence, batch.epoch);
        let answer = self.log(at).start_verification(question.0, question.1, question.2, version);
        self.note(at, || {
            json!({"op": "start_verification", "producer_id": question.0, "sequence": question.1, "epoch": question.2})
        });
        let answered = match answer {
            Ok(guard) => Ok(guard),
            Err(Error::Refused { refusal, .. }) => Err(refusal.kafka_name()),
            Err(error) => {
                self.expect(at, "a verification", Err::<(), _>(error));
                return None;
            }
        };
        let checked = self.oracle(at).producers.verification(question, version >= 2, &answered);
        self.hold(at, checked.map_err(|reason| format!("a verification of {batch}: {reason}")));
        answered.unwrap_or(None)
    }

    /// The end of a transaction, by its coordinator.
    pub(super) fn mark(&mut self, at: usize, client: usize, commit: bool, wrong: Wrong) {
        let (now_ms, version) = (self.clock.now_ms(), self.setup.txn_version);
        let partition = &mut self.partitions[at];
        let client = &mut partition.clients[client];
        let known = partition.oracle.producers.known.get(&client.producer_id);
        let tame = known.is_none_or(|known| known.epoch < 1 || known.coordinator_epoch < 1);
        let wrong = if tame { Wrong::Nothing } else { wrong };
        let marker = client.marker(known, (commit, wrong), version, now_ms, &mut self.random);
        let ack = self.random.pick(&[Ack::Written, Ack::Durable]);
        self.submit(at, marker, None, ack);
    }

    /// One of the batches sent before again: among the last five, or older.
    pub(super) fn retry(&mut self, at: usize, client: usize, back: usize, ack: Ack) {
        let oracle = &self.partitions[at].oracle;
        let producer_id = self.partitions[at].clients[client].producer_id;
        let Some(known) = oracle.producers.known.get(&producer_id) else { return };
        let data = |fact: &&Fact| fact.producer_id == producer_id && matches!(fact.kind, Kind::Data { .. });
        let repeated = match known.window.len().checked_sub(back + 1) {
            Some(place) => oracle.at(known.window[place].0).cloned(),
            // How much of a producer that expired once is remembered is open.
            None if oracle.has_expired(producer_id) => None,
            None => oracle.facts.iter().rev().filter(data).nth(back).cloned(),
        };
        if let Some(batch) = repeated {
            self.submit(at, batch, None, ack);
        }
    }

    pub(super) fn raise_epoch(&mut self, at: usize, client: usize) {
        let partition = &mut self.partitions[at];
        let client = &mut partition.clients[client];
        let known = partition.oracle.producers.known.get(&client.producer_id);
        client.epoch = known.map_or(0, |known| known.epoch).max(client.epoch) + 1;
    }

    /// Offers a batch to a log and holds the answer against the only right one.
    pub(super) fn submit(&mut self, at: usize, batch: Fact, guard: Option<u64>, ack: Ack) {
        let offer = Offer { batch, guard, txn_version: self.setup.txn_version };
        let producers = &mut self.partitions[at].oracle.producers;
        let (mut verdict, ended) = (producers.verdict(&offer), producers.verdict_if_ended(&offer));
        let leader_epoch = self.partitions[at].leader_epoch;
        let is_marker = matches!(offer.batch.kind, Kind::Marker { .. });
        let sent = &offer.batch.sent;
        let append = if is_marker { Append::coordinator(sent) } else { Append::client(sent) };
        let append = Append { leader_epoch, txn_version: Some(offer.txn_version), guard, ..append.ack(ack) };
        let answer = self.log(at).append(append);
        self.hash(mix(offer.batch.sent.len() as u64));
        self.note_append(at, &offer.batch, guard, Ack::Accepted);
        if let Some(ended) = ended.filter(|ended| *ended != verdict && ended.is_given_by(&answer)) {
            self.oracle(at).producers.end_pending(offer.batch.producer_id);
            verdict = ended;
        }
        match answer {
            Ok(ticket) if self.partitions[at].latched => {
                let answered = *ticket.expected();
                self.violation(at, &format!("answered {answered:?} after a write or sync had failed"));
            }
            Ok(ticket) => self.answered(at, offer, verdict, ack, ticket),
            Err(Error::Refused { refusal, .. }) => {
                self.hash(3);
                let refused = Verdict::Refuse(refusal.kafka_name());
                if refused != verdict {
                    self.violation(at, &format!("{} was refused ({refusal}) instead of {verdict:?}", offer.batch));
                }
            }
            Err(error) => {
                self.expect(at, "an append", Err::<(), _>(error));
            }
        }
    }

    fn answered(&mut self, at: usize, offer: Offer, verdict: Verdict, ack: Ack, ticket: Ticket) {
        let answer = *ticket.expected();
        self.hash(answer.base_offset as u64);
        let leader_epoch = self.partitions[at].leader_epoch;
        let appended_ms = self.clock.now_ms();
        let oracle = self.oracle(at);
        let mut batch = offer.batch;
        let records = batch.records();
        let expected = match verdict {
            Verdict::Append => Some((Outcome::Appended, oracle.end, oracle.end + records - 1, -1)),
            Verdict::Duplicate(first_offset) => oracle
                .at(if oracle.producers.may_repeat(&batch, answer.base_offset) {
                    answer.base_offset
                } else {
                    first_offset
                })
                .map(|fact| (Outcome::Duplicate, fact.first_offset, fact.last_offset, fact.timestamp)),
            Verdict::Refuse(_) => None,
        };
        let Appended { outcome, base_offset, last_offset, log_append_time, .. } = answer;
        if expected != Some((outcome, base_offset, last_offset, log_append_time)) {
            let reason = format!("{batch} was answered {answer:?} instead of {verdict:?}");
            return self.violation(at, &reason);
        }
        if verdict == Verdict::Append {
            (batch.leader_epoch, batch.appended_ms, batch.level) = (leader_epoch, appended_ms, Ack::Accepted);
            batch.ended = None;
            oracle.appended(batch, records);
        }
        self.partitions[at].tickets.push((base_offset, ack, ticket));
        if self.random.percent(60) {
            self.wait(at);
        }
    }

    /// Some open append is waited for.
    pub(super) fn wait(&mut self, at: usize) {
        let count = self.partitions[at].tickets.len();
        if count == 0 {
            return;
        }
        let which = self.random.index(count);
        let (first_offset, ack, ticket) = self.partitions[at].tickets.swap_remove(which);
        if self.expect(at, "a wait", ticket.wait()).is_some() {
            self.oracle(at).acknowledged(first_offset, ack);
        }
        let waited = self.partitions[at].oracle.at(first_offset).cloned();
        if let Some(batch) = waited.filter(|batch| ack > Ack::Accepted && batch.producer_id >= 0)
            && matches!(batch.kind, Kind::Data { .. })
        {
            self.note_append(at, &batch, None, ack);
        }
    }

    /// A script's append waits: what nobody waits for goes in as `accepted`, and the wait is a retry at its level.
    fn note_append(&mut self, at: usize, batch: &Fact, guard: Option<u64>, ack: Ack) {
        let origin = if matches!(batch.kind, Kind::Marker { .. }) { "coordinator" } else { "client" };
        let leader_epoch = self.partitions[at].leader_epoch;
        self.note(at, || {
            let hex: String = batch.sent.iter().map(|byte| format!("{byte:02x}")).collect();
            let mut line = json!({"op": "append", "as": origin, "batches": [{"hex": hex}], "ack": word(ack)});
            line["leader_epoch"] = leader_epoch.into();
            if let Some(guard) = guard {
                line["guard"] = guard.into();
            }
            line
        });
    }
}

fn word(ack: Ack) -> &'static str {
    match ack {
        Ack::Accepted => "accepted",
        Ack::Written => "written",
        Ack::Durable => "durable",
    }
}

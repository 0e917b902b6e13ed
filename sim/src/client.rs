//! A producer as its program would see it: what it sends next, by what the log holds of it.

use oncelog::Ack;
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;

use crate::oracle::fact::{Fact, Kind};
use crate::oracle::producers::{Known, later};
use crate::plan::{NOBODY, TRANSACTIONAL, Wrong};
use crate::random::Random;

/// Most records of one batch.
const MOST_RECORDS: u64 = 3;
/// Most bytes of one value.
const MOST_VALUE_BYTES: u64 = 900;

/// One client of one log.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    number: usize,
    pub(crate) producer_id: i64,
    /// Raised by the client; the log's may be higher.
    pub(crate) epoch: i16,
    coordinator_epoch: i32,
}

impl Client {
    /// Each two clients have neighbouring ids, and those of one pair lie so far from the next.
    pub(crate) fn new(number: usize, pair_stride: i64) -> Self {
        let (pair, second) = (number as i64 / 2, number as i64 % 2);
        let producer_id = if number == NOBODY { -1 } else { 1000 + pair * pair_stride + second };
        Self { number, producer_id, epoch: 0, coordinator_epoch: 0 }
    }

    /// The next batch, right or wrong.
    pub(crate) fn batch(&self, known: Option<&Known>, wrong: Wrong, now_ms: i64, random: &mut Random) -> Fact {
        let transactional = self.is_transactional(known, wrong, random);
        let (epoch, sequence) = if self.producer_id < 0 { (-1, -1) } else { self.next(known, wrong) };
        let records = 1 + random.below(MOST_RECORDS) as i32;
        let mut builder = BatchBuilder::new().producer(self.producer_id, epoch, sequence).transactional(transactional);
        let length = 1 + random.below(MOST_VALUE_BYTES) as usize;
        for _ in 0..records {
            builder.append(now_ms, None, Some(&bytes(length, random)), &[]);
        }
        let sent = builder.build().expect("a few records of known size make a batch");
        let last_sequence = if sequence < 0 { -1 } else { later(sequence, records - 1) };
        Fact {
            epoch,
            first_sequence: sequence,
            last_sequence,
            last_offset: i64::from(records) - 1,
            ..self.fact(sent, now_ms)
        }
        .with_kind(Kind::Data { transactional })
    }

    /// The end of the transaction that is open, or of none.
    pub(crate) fn marker(
        &mut self,
        known: Option<&Known>,
        (commit, wrong): (bool, Wrong),
        txn_version: i16,
        now_ms: i64,
        random: &mut Random,
    ) -> Fact {
        self.coordinator_epoch += i32::from(random.percent(5));
        let in_force = known.map_or(-1, |known| known.epoch).max(self.epoch);
        let coordinator_epoch = match wrong {
            Wrong::FencedCoordinator => known.map_or(0, |known| known.coordinator_epoch) - 1,
            _ => known.map_or(0, |known| known.coordinator_epoch).max(self.coordinator_epoch),
        };
        let epoch = match wrong {
            Wrong::StaleEpoch => in_force - 1,
            _ => in_force + i16::from(txn_version >= 2),
        };
        let sent = end_txn_marker_batch(0, 0, self.producer_id, epoch, commit, coordinator_epoch, now_ms);
        Fact { epoch, first_sequence: -1, last_sequence: -1, ..self.fact(sent, now_ms) }
            .with_kind(Kind::Marker { commit, coordinator_epoch })
    }

    /// Epoch and sequence that come next, or wrong ones.
    fn next(&self, known: Option<&Known>, wrong: Wrong) -> (i16, i32) {
        let (epoch, sequence) = match known {
            Some(known) if known.epoch >= self.epoch => (known.epoch, known.next_sequence()),
            Some(_) => (self.epoch, 0),
            // The first one begins shortly before sequence numbers start again at 0.
            None if self.number == 0 => (self.epoch, i32::MAX - 20),
            None => (self.epoch, 0),
        };
        match wrong {
            Wrong::StaleEpoch => (epoch - 1, sequence),
            Wrong::Gap => (epoch, later(sequence, 1)),
            _ => (epoch, sequence),
        }
    }

    fn is_transactional(&self, known: Option<&Known>, wrong: Wrong, random: &mut Random) -> bool {
        if !(TRANSACTIONAL..NOBODY).contains(&self.number) {
            return false;
        }
        let open = known.is_some_and(|known| known.txn_first_offset.is_some());
        if open { wrong != Wrong::Transaction } else { random.percent(85) }
    }

    fn fact(&self, sent: Vec<u8>, now_ms: i64) -> Fact {
        Fact {
            producer_id: self.producer_id,
            epoch: -1,
            first_sequence: -1,
            last_sequence: -1,
            kind: Kind::Data { transactional: false },
            timestamp: now_ms,
            leader_epoch: 0,
            first_offset: 0,
            last_offset: 0,
            appended_ms: 0,
            sent,
            level: Ack::Accepted,
            ended: None,
        }
    }
}

impl Fact {
    fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }
}

/// Bytes that no two batches share.
fn bytes(length: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend(random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

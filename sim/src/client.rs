//! A producer as its program would see it: batches with sequence numbers, kept to be sent again.

use oncelog::Ack;
use oncelog_formats::BatchBuilder;

use crate::oracle::{Fact, Oracle};
use crate::random::Random;

/// Most records of one batch.
const MOST_RECORDS: u64 = 3;
/// Most bytes of one value.
const MOST_VALUE_BYTES: u64 = 900;

/// One producer of one log.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// Sequence of its very first record.
    first_sequence: i32,
}

impl Client {
    /// Producer number `number`; the first one begins shortly before sequence numbers start again at 0.
    pub(crate) fn new(number: i64) -> Self {
        let first_sequence = if number == 0 { i32::MAX - 20 } else { 0 };
        Self { producer_id: 1000 + number, epoch: 0, first_sequence }
    }

    /// The sequence that comes next, by what the log holds of this producer.
    pub(crate) fn next_sequence(&self, oracle: &Oracle) -> i32 {
        match oracle.newest(self.producer_id) {
            Some(fact) if fact.epoch == self.epoch => later(fact.last_sequence, 1),
            Some(_) => 0,
            None => self.first_sequence,
        }
    }

    /// A batch from this sequence on, and its number of records.
    pub(crate) fn batch(&self, sequence: i32, now_ms: i64, random: &mut Random) -> (Fact, i64) {
        let records = 1 + random.below(MOST_RECORDS) as i64;
        let mut builder = BatchBuilder::new().producer(self.producer_id, self.epoch, sequence);
        for _ in 0..records {
            let length = 1 + random.below(MOST_VALUE_BYTES);
            let value: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
            builder.append(now_ms, None, Some(&value), &[]);
        }
        let sent = builder.build().expect("a few records of known size make a batch");
        let fact = Fact {
            producer_id: self.producer_id,
            epoch: self.epoch,
            last_sequence: later(sequence, records as i32 - 1),
            first_offset: -1,
            last_offset: -1,
            sent,
            level: Ack::Accepted,
        };
        (fact, records)
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
        assert_eq!(later(i32::MAX, 1), 0);
        assert_eq!(later(i32::MAX - 1, 3), 1);
        assert_eq!(later(5, 0), 5);
    }
}

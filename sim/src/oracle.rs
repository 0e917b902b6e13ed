//! What one log has promised, and whether it kept it. Knows nothing of the engine but its public answers, and reads
//! stored batches by their byte positions rather than through a parser that the engine uses as well.

use oncelog::{Ack, Appended, Outcome};

/// Offset, length and leader epoch stand before this byte and may be stamped; all behind it must stay as sent.
const STAMPED_BYTES: usize = 16;
/// How many batches of a producer may be retried.
const WINDOW: usize = 5;

/// One batch that was given offsets.
#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) last_sequence: i32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    /// The bytes as the client sent them.
    pub(crate) sent: Vec<u8>,
    /// The strongest answer given so far.
    pub(crate) level: Ack,
}

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
    /// The log start that was promised, and the largest that an unanswered call may have left.
    start_promised: i64,
    start_possible: i64,
}

impl Oracle {
    /// The offset that the next record gets.
    pub(crate) fn end(&self) -> i64 {
        self.facts.last().map_or(0, |fact| fact.last_offset + 1)
    }

    /// The newest fact of a producer.
    pub(crate) fn newest(&self, producer_id: i64) -> Option<&Fact> {
        let mut newest_first = self.facts.iter().rev();
        newest_first.find(|fact| fact.producer_id == producer_id)
    }

    /// Positions of the facts of a producer under the epoch in force, newest first: the first five may be retried.
    pub(crate) fn of_producer(&self, producer_id: i64) -> Vec<usize> {
        let Some(epoch) = self.newest(producer_id).map(|fact| fact.epoch) else {
            return Vec::new();
        };
        let ours = |fact: &Fact| fact.producer_id == producer_id && fact.epoch == epoch;
        (0..self.facts.len()).rev().filter(|&at| ours(&self.facts[at])).collect()
    }

    /// The part of [`Oracle::of_producer`] that may be retried.
    pub(crate) fn window(&self, producer_id: i64) -> Vec<usize> {
        let mut all = self.of_producer(producer_id);
        all.truncate(WINDOW);
        all
    }

    /// A batch was given offsets; `records` of them.
    pub(crate) fn appended(&mut self, fact: Fact, records: i64, answer: &Appended) -> Result<(), String> {
        let (first, last) = (self.end(), self.end() + records - 1);
        let expected = (Outcome::Appended, first, last);
        let answered = (answer.outcome, answer.base_offset, answer.last_offset);
        self.facts.push(Fact { first_offset: first, last_offset: last, ..fact });
        equal("a new batch", expected, answered)
    }

    /// A batch was sent again: the first offsets are the only right answer.
    pub(crate) fn retried(&self, at: usize, answer: &Appended) -> Result<(), String> {
        let fact = &self.facts[at];
        let expected = (Outcome::Duplicate, fact.first_offset, fact.last_offset);
        let answered = (answer.outcome, answer.base_offset, answer.last_offset);
        equal("a retry", expected, answered)
    }

    /// An answer was given for the batch at this offset.
    pub(crate) fn acknowledged(&mut self, first_offset: i64, level: Ack) {
        if let Some(fact) = self.facts.iter_mut().find(|f| f.first_offset == first_offset) {
            fact.level = fact.level.max(level);
        }
    }

    /// Readers were shown everything below this offset, or it was called durable.
    pub(crate) fn durable_below(&mut self, offset: i64) {
        for fact in self.facts.iter_mut().filter(|f| f.last_offset < offset) {
            fact.level = Ack::Durable;
        }
    }

    /// A truncation begins: from now on what lies at or behind the offset may be lost.
    pub(crate) fn truncating(&mut self, offset: i64) {
        for fact in self.facts.iter_mut().filter(|f| f.last_offset >= offset) {
            fact.level = Ack::Accepted;
        }
    }

    /// It is done: what was cut must never be seen again.
    pub(crate) fn truncated(&mut self, offset: i64) {
        self.facts.retain(|fact| fact.last_offset < offset);
    }

    /// The log start may move up to here.
    pub(crate) fn start_may_be(&mut self, offset: i64) {
        self.start_possible = self.start_possible.max(offset);
    }

    /// The log start was answered.
    pub(crate) fn start_is(&mut self, offset: i64) {
        (self.start_promised, self.start_possible) = (offset, offset);
    }

    /// Compares what is found with what was promised to survive: every fact of `survives` or stronger. Then believes
    /// what is found; answers the facts that are gone, and everything that is wrong.
    pub(crate) fn check(&mut self, found: &Found, survives: Ack) -> (Vec<Fact>, Vec<String>) {
        let mut wrong = Vec::new();
        if !(self.start_promised..=self.start_possible).contains(&found.log_start) {
            let (promised, possible) = (self.start_promised, self.start_possible);
            wrong.push(format!("log start {} is outside {promised}..={possible}", found.log_start));
        }
        self.start_is(found.log_start);
        let kept = self.facts.iter().filter(|f| f.last_offset < found.log_end).count();
        let gone = self.facts.split_off(kept);
        for fact in gone.iter().filter(|fact| fact.level >= survives) {
            wrong.push(format!("lost: {fact}"));
        }
        if self.end() != found.log_end {
            wrong.push(format!("log end {} where {} was expected", found.log_end, self.end()));
        }
        let from = self.facts.partition_point(|f| f.last_offset < found.log_start);
        wrong.extend(compare(&self.facts[from..], &found.data).err());
        (gone, wrong)
    }
}

/// The stored bytes must be exactly these facts, once each and in this order.
fn compare(facts: &[Fact], mut data: &[u8]) -> Result<(), String> {
    for fact in facts {
        let (offset, length) = frame(data).ok_or_else(|| format!("not found: {fact}"))?;
        if offset != fact.first_offset {
            return Err(format!("found a batch at offset {offset} instead of {fact}"));
        }
        let same = length == fact.sent.len() && data.get(STAMPED_BYTES..length) == fact.sent.get(STAMPED_BYTES..);
        if !same {
            return Err(format!("other bytes than were sent: {fact}"));
        }
        data = &data[length..];
    }
    match data.len() {
        0 => Ok(()),
        more => Err(format!("{more} bytes behind the last batch")),
    }
}

/// First offset and length in bytes of the batch in front.
fn frame(data: &[u8]) -> Option<(i64, usize)> {
    let offset = i64::from_be_bytes(*data.first_chunk()?);
    let length = i32::from_be_bytes(*data.get(8..)?.first_chunk()?);
    Some((offset, usize::try_from(length).ok()? + 12))
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, expected: T, answered: T) -> Result<(), String> {
    if expected == answered {
        return Ok(());
    }
    Err(format!("{what} was answered {answered:?} instead of {expected:?}"))
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { producer_id, epoch, last_sequence, first_offset, last_offset, level, .. } = self;
        write!(f, "offsets {first_offset}..={last_offset} of producer {producer_id} epoch {epoch} ")?;
        write!(f, "up to sequence {last_sequence}, acknowledged {level:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(first_offset: i64, level: Ack) -> Fact {
        let mut sent = vec![first_offset as u8; 80];
        sent[..8].copy_from_slice(&first_offset.to_be_bytes());
        sent[8..12].copy_from_slice(&68i32.to_be_bytes());
        Fact {
            producer_id: 1,
            epoch: 0,
            last_sequence: first_offset as i32,
            first_offset,
            last_offset: first_offset,
            sent,
            level,
        }
    }

    fn check(order: &[i64], log_end: i64, survives: Ack) -> Vec<String> {
        let facts: Vec<Fact> = (0..3).map(|offset| fact(offset, Ack::Written)).collect();
        let data = order.iter().flat_map(|&at| facts[at as usize].sent.clone()).collect();
        let mut oracle = Oracle { facts, ..Oracle::default() };
        let found = Found { log_start: 0, log_end, data };
        oracle.check(&found, survives).1
    }

    #[test]
    fn lost_doubled_and_swapped_batches_are_found() {
        assert_eq!(check(&[0, 1, 2], 3, Ack::Written), [""; 0]);
        assert_eq!(check(&[0, 1], 2, Ack::Durable), [""; 0]);
        assert!(check(&[0, 1], 2, Ack::Written)[0].starts_with("lost: offsets 2..=2"));
        assert!(check(&[0, 1, 1, 2], 3, Ack::Durable)[0].starts_with("found a batch at offset 1"));
        assert!(check(&[0, 2, 1], 3, Ack::Durable)[0].starts_with("found a batch at offset 2"));
        assert!(check(&[0, 1, 2, 2], 3, Ack::Durable)[0].starts_with("80 bytes behind"));
        assert!(check(&[0, 1], 3, Ack::Durable)[0].starts_with("not found: offsets 2"));
    }
}

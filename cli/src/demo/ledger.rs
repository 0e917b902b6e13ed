//! What was acknowledged, kept outside the process that is killed, and what reading back finds of it.

use super::workload::{BATCH_RECORDS, numbers};

/// The books of the demo.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    /// For each producer the first offsets of its acknowledged batches, in order.
    acknowledged: Vec<Vec<i64>>,
    /// Retries of acknowledged batches, and batches sent again after a kill, that were answered as duplicates.
    pub duplicates_answered: u64,
    /// Answers that contradict the books: another offset than before, a retry stored again or refused.
    pub contradictions: Vec<String>,
}

/// How the answer to a batch came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Stored now.
    Appended,
    /// Stored before.
    Duplicate,
}

/// What reading back found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records acknowledged as durable.
    pub sent: u64,
    /// Of those, not found.
    pub lost: u64,
    /// Found more than once.
    pub doubled: u64,
    /// Found at another offset than the one acknowledged, or out of their producer's order.
    pub moved: u64,
    /// Found, and nobody wrote them like this.
    pub foreign: u64,
}

impl Tally {
    /// Whether everything is in order.
    pub fn is_fine(&self) -> bool {
        (self.lost, self.doubled, self.moved, self.foreign) == (0, 0, 0, 0)
    }
}

impl Ledger {
    /// Empty books of some producers.
    pub fn new(seed: u64, producers: usize) -> Self {
        let acknowledged = vec![Vec::new(); producers];
        Self { seed, acknowledged, duplicates_answered: 0, contradictions: Vec::new() }
    }

    /// First offsets of the acknowledged batches of each producer.
    pub fn acknowledged(&self) -> &[Vec<i64>] {
        &self.acknowledged
    }

    /// Enters an answer.
    pub fn enter(&mut self, producer: usize, batch: usize, base_offset: i64, answer: Answer) {
        self.duplicates_answered += u64::from(answer == Answer::Duplicate);
        let Some(offsets) = self.acknowledged.get_mut(producer) else {
            return self.contradictions.push(format!("an answer for producer {producer}, which there is not"));
        };
        match offsets.get(batch) {
            None if batch == offsets.len() => offsets.push(base_offset),
            None => self
                .contradictions
                .push(format!("producer {producer}: batch {batch} answered before batch {}", offsets.len())),
            Some(_) if answer == Answer::Appended => {
                self.contradictions
                    .push(format!("producer {producer}: batch {batch} was stored again at offset {base_offset}"));
            }
            Some(before) if *before != base_offset => {
                self.contradictions
                    .push(format!("producer {producer}: batch {batch} moved from offset {before} to {base_offset}"));
            }
            Some(_) => {}
        }
    }

    /// Begins to read back.
    pub fn reading(&self) -> Reading<'_> {
        let seen =
            self.acknowledged.iter().map(|offsets| Seen { bits: vec![0; offsets.len()], ..Seen::default() }).collect();
        Reading { ledger: self, seen, tally: Tally::default() }
    }
}

/// One bit for each record of each batch.
type BatchBits = u32;
const _: () = assert!(BATCH_RECORDS <= BatchBits::BITS as u64);

#[derive(Debug, Default)]
struct Seen {
    bits: Vec<BatchBits>,
    next: u64,
}

/// Reading back, record by record in offset order.
#[derive(Debug)]
pub struct Reading<'a> {
    ledger: &'a Ledger,
    seen: Vec<Seen>,
    tally: Tally,
}

impl Reading<'_> {
    /// Enters a record that was found.
    pub fn found(&mut self, offset: i64, value: &[u8]) {
        let numbers = numbers(self.ledger.seed, value).filter(|(producer, _)| *producer < self.seen.len());
        let Some((producer, record)) = numbers else {
            self.tally.foreign += 1;
            return;
        };
        let (batch, place) = ((record / BATCH_RECORDS) as usize, record % BATCH_RECORDS);
        let seen = &mut self.seen[producer];
        // What was stored and not yet answered when the process died is no mistake, and comes at most once too.
        if batch >= seen.bits.len() {
            seen.bits.resize(batch + 1, 0);
        }
        if seen.bits[batch] & (1 << place) != 0 {
            self.tally.doubled += 1;
            return;
        }
        seen.bits[batch] |= 1 << place;
        let acknowledged = self.ledger.acknowledged[producer].get(batch);
        let in_place = acknowledged.is_none_or(|base_offset| base_offset + place as i64 == offset);
        if !in_place || record != seen.next {
            self.tally.moved += 1;
        }
        seen.next = record + 1;
    }

    /// Closes the books.
    pub fn finish(mut self) -> Tally {
        for (seen, acknowledged) in self.seen.iter().zip(&self.ledger.acknowledged) {
            let found: u64 = seen.bits[..acknowledged.len()].iter().map(|bits| u64::from(bits.count_ones())).sum();
            let sent = acknowledged.len() as u64 * BATCH_RECORDS;
            self.tally.sent += sent;
            self.tally.lost += sent - found;
        }
        self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::value;
    use super::*;

    /// Two batches of one producer are acknowledged; `records` are found, in this order, from offset 0.
    fn tally(records: &[u64]) -> Tally {
        let mut ledger = Ledger::new(1, 1);
        ledger.enter(0, 0, 0, Answer::Appended);
        ledger.enter(0, 1, BATCH_RECORDS as i64, Answer::Appended);
        let mut reading = ledger.reading();
        for (offset, record) in records.iter().enumerate() {
            reading.found(offset as i64, &value(1, 0, *record));
        }
        reading.finish()
    }

    #[test]
    fn losses_doubles_and_moves_are_counted() {
        let all: Vec<u64> = (0..2 * BATCH_RECORDS).collect();
        let sent = 2 * BATCH_RECORDS;
        assert_eq!(tally(&all), Tally { sent, ..Tally::default() });
        assert_eq!(tally(&all[..all.len() - 3]), Tally { sent, lost: 3, ..Tally::default() });
        assert_eq!(tally(&[&all[..], &all[..2]].concat()), Tally { sent, doubled: 2, ..Tally::default() });
        assert!(tally(&[&all[1..], &all[..1]].concat()).moved > 0);
        assert_eq!(tally(&[&all[..], &[sent]].concat()), Tally { sent, ..Tally::default() });
    }

    #[test]
    fn answers_that_contradict_each_other_are_kept() {
        let mut ledger = Ledger::new(1, 1);
        ledger.enter(0, 0, 10, Answer::Appended);
        ledger.enter(0, 0, 10, Answer::Duplicate);
        assert_eq!((ledger.duplicates_answered, ledger.contradictions.len()), (1, 0));
        ledger.enter(0, 0, 30, Answer::Duplicate);
        ledger.enter(0, 0, 40, Answer::Appended);
        ledger.enter(0, 5, 50, Answer::Appended);
        assert_eq!(ledger.contradictions.len(), 3);
    }
}

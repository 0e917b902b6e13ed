//! Kafka's rules of transactions in their plainest form: everything is found again from the whole history each time.

/// How many records a data batch of each producer has.
pub const RECORDS: [i64; 3] = [1, 2, 1];
const TRANSACTIONS_EACH: usize = 2;

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A batch of this producer, inside a transaction.
    Data(usize),
    /// A marker of this producer.
    End { producer: usize, commit: bool },
    /// An ABORT marker of a producer that has no transaction open.
    EmptyEnd(usize),
    /// The high watermark passes one batch more.
    HighWatermark,
    /// The high watermark comes to the end.
    HighWatermarkEnd,
    /// The log is cut this many batches before its end.
    Truncate(usize),
    /// The power goes, and the log is opened again.
    Crash,
    /// The engine is closed and opened again.
    Restart,
    /// A new segment begins.
    Roll,
}

/// One stored batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    pub base_offset: i64,
    pub last_offset: i64,
    pub producer: usize,
    /// `None` for data, else whether the marker commits.
    pub marker: Option<bool>,
}

/// A transaction as the log has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Txn {
    pub producer: usize,
    pub first_offset: i64,
    /// Offset of the marker and whether it commits.
    pub end: Option<(i64, bool)>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Oracle {
    pub log: Vec<Stored>,
    pub high_watermark: i64,
    /// Base offsets of the segments behind the first.
    pub rolls: Vec<i64>,
    /// The high watermark comes to the end behind every batch, without an event of its own.
    pub follows: bool,
    /// Markers below the snapshot that the state was last rebuilt from hold nothing back: it says only who is open.
    opened_at: i64,
    /// Offsets of the producer snapshots: at each roll, and wherever the state was rebuilt to.
    snapshots: Vec<i64>,
    started: [usize; 3],
}

impl Oracle {
    pub fn end(&self) -> i64 {
        self.log.last().map_or(0, |batch| batch.last_offset + 1)
    }

    /// Everything that may happen next. Producers come in order of their numbers: who is first is only a name.
    pub fn possible(&self) -> Vec<Event> {
        let mut events = Vec::new();
        for producer in 0..3 {
            if producer > 0 && self.started[producer - 1] == 0 {
                break;
            }
            if self.open_txn(producer).is_some() {
                events.extend([true, false].map(|commit| Event::End { producer, commit }));
            } else if self.started[producer] < TRANSACTIONS_EACH {
                events.push(Event::Data(producer));
            }
        }
        if let Some(last) = self.log.last() {
            if last.marker.is_some() {
                events.push(Event::EmptyEnd(last.producer));
            }
            if self.high_watermark < self.end() {
                events.extend([Event::HighWatermark, Event::HighWatermarkEnd]);
            }
            events.extend([Event::Truncate(1), Event::Truncate(2), Event::Crash, Event::Restart]);
            if self.rolls.last() != Some(&self.end()) {
                events.push(Event::Roll);
            }
        }
        events
    }

    pub fn apply(&mut self, event: Event) {
        let end = self.end();
        match event {
            Event::Data(producer) => {
                self.started[producer] += 1;
                self.push(producer, RECORDS[producer], None);
            }
            Event::End { producer, commit } => self.push(producer, 1, Some(commit)),
            Event::EmptyEnd(producer) => self.push(producer, 1, Some(false)),
            Event::HighWatermark => self.high_watermark = self.next_high_watermark(),
            Event::HighWatermarkEnd => self.high_watermark = end,
            Event::Truncate(batches) => {
                self.log.truncate(self.log.len().saturating_sub(batches));
                let end = self.end();
                self.rolls.retain(|base| *base <= end);
                self.high_watermark = self.high_watermark.min(end);
                self.snapshots.retain(|offset| *offset <= end);
                self.opened_at = self.snapshots.iter().copied().max().unwrap_or(0);
                self.snapshots.push(end);
            }
            Event::Crash | Event::Restart => {
                let (bases, newest) = (&self.rolls, self.snapshots.iter().copied().max());
                self.snapshots.retain(|offset| bases.contains(offset) || Some(*offset) == newest);
                self.opened_at = end;
                self.snapshots.push(end);
            }
            Event::Roll => {
                self.rolls.push(end);
                self.snapshots.push(end);
            }
        }
    }

    pub fn next_high_watermark(&self) -> i64 {
        let next = self.log.iter().find(|batch| batch.last_offset >= self.high_watermark);
        next.map_or(self.end(), |batch| batch.last_offset + 1)
    }

    /// Sequence of the producer's next record: behind its newest batch in the log.
    pub fn next_sequence(&self, producer: usize) -> i32 {
        let data = self.log.iter().filter(|batch| batch.producer == producer && batch.marker.is_none());
        data.map(|batch| (batch.last_offset - batch.base_offset + 1) as i32).sum()
    }

    fn push(&mut self, producer: usize, records: i64, marker: Option<bool>) {
        let base_offset = self.end();
        self.log.push(Stored { base_offset, last_offset: base_offset + records - 1, producer, marker });
        if self.follows {
            self.high_watermark = self.end();
        }
    }

    fn open_txn(&self, producer: usize) -> Option<Txn> {
        self.txns().into_iter().find(|txn| txn.producer == producer && txn.end.is_none())
    }

    /// All transactions of the log, by first offset.
    pub fn txns(&self) -> Vec<Txn> {
        let mut txns: Vec<Txn> = Vec::new();
        for batch in &self.log {
            let open = txns.iter_mut().find(|txn| txn.producer == batch.producer && txn.end.is_none());
            match (batch.marker, open) {
                (Some(commit), Some(txn)) => txn.end = Some((batch.base_offset, commit)),
                (None, None) => txns.push(Txn { producer: batch.producer, first_offset: batch.base_offset, end: None }),
                _ => {}
            }
        }
        txns
    }

    /// Section 3.2: the earliest transaction without a marker, or with one that the high watermark has not passed.
    pub fn last_stable_offset(&self) -> i64 {
        let unstable = |txn: &Txn| match txn.end {
            None => true,
            Some((marker, _)) => marker >= self.high_watermark && marker >= self.opened_at,
        };
        let first = self.txns().into_iter().filter(unstable).map(|txn| txn.first_offset).min();
        first.unwrap_or(i64::MAX).min(self.high_watermark)
    }

    /// Section 3.5 for a read that began at `start` and ended in the segment of `segment_base`, with an offset index
    /// that is too coarse to hold an entry: producer and first offset in order of the markers.
    pub fn aborted_list(&self, start: i64, segment_base: i64) -> Vec<(i64, i64)> {
        let upper = self.rolls.iter().copied().find(|base| *base > segment_base).unwrap_or(self.end());
        let mut aborted: Vec<(i64, i64, i64)> = self
            .txns()
            .into_iter()
            .filter_map(|txn| txn.end.filter(|(_, commit)| !commit).map(|(marker, _)| (marker, txn)))
            .filter(|(marker, txn)| *marker >= start && txn.first_offset < upper)
            .map(|(marker, txn)| (marker, txn.producer as i64, txn.first_offset))
            .collect();
        aborted.sort_unstable();
        aborted.into_iter().map(|(_, producer, first)| (producer, first)).collect()
    }

    pub fn segment_of(&self, offset: i64) -> i64 {
        self.rolls.iter().copied().rfind(|base| *base <= offset).unwrap_or(0)
    }

    /// What a committed reader that begins at `start` may see: offsets of data records.
    pub fn visible(&self, start: i64) -> Vec<i64> {
        let limit = self.last_stable_offset();
        let txns = self.txns();
        let mut seen = Vec::new();
        for batch in self.log.iter().filter(|batch| batch.marker.is_none() && batch.last_offset < limit) {
            let ended = |txn: &&Txn| txn.end.is_none_or(|(marker, _)| marker > batch.base_offset);
            let of_batch = |txn: &&Txn| txn.producer == batch.producer && txn.first_offset <= batch.base_offset;
            let txn = txns.iter().filter(of_batch).find(ended).expect("every batch is part of a transaction");
            if txn.end.is_some_and(|(_, commit)| commit) {
                seen.extend((batch.base_offset..=batch.last_offset).filter(|offset| *offset >= start));
            }
        }
        seen
    }
}

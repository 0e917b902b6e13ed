//! Runs a history on a real engine over a disk in memory, and compares after each event.

use oncelog::{Append, Config, Engine, Isolation, Log, OpenOptions, Read};
use oncelog_device::MemoryDevice;
use oncelog_formats::Batches;
use oncelog_formats::batch::stamp;
use oncelog_formats::control::{ControlType, end_txn_marker_batch};

use super::oracle::{Event, Oracle, RECORDS};
use crate::common::{NAME, NOW_MS, Place, txn_batch};

/// Takes the batches of `path` from the one numbered `split` on in a single append, as a replica does: several
/// transactions may start, end and be empty in it. Then the high watermark passes batch by batch.
pub fn run_as_one_append(path: &[Event], split: usize) {
    let mut run = Run::start();
    for event in &path[..split] {
        run.perform(*event);
        run.oracle.apply(*event);
    }
    let mut set = Vec::new();
    for event in &path[split..] {
        let mut batch = run.batch(*event);
        stamp(&mut batch, run.oracle.end(), 0).expect("a whole batch");
        set.extend(batch);
        run.oracle.apply(*event);
    }
    run.log().append_wait(Append::replica(&set, 0)).expect("the set is stored");
    run.compare(path);
    while run.oracle.high_watermark < run.oracle.end() {
        run.perform(Event::HighWatermark);
        run.oracle.apply(Event::HighWatermark);
        run.compare(path);
    }
}

/// Runs `path`; the states behind the first `checked` events are compared, the others were before.
pub fn run(path: &[Event], checked: usize, follows: bool) {
    let mut run = Run::start();
    run.oracle.follows = follows;
    for (number, event) in path.iter().enumerate() {
        run.perform(*event);
        run.oracle.apply(*event);
        if number >= checked {
            run.compare(&path[..=number]);
        }
    }
    run.open.take().expect("an open log").0.kill();
}

/// An engine in the middle of a history.
struct Run {
    device: MemoryDevice,
    place: Place,
    open: Option<(Engine, Log)>,
    oracle: Oracle,
}

impl Run {
    fn start() -> Self {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let mut run = Self { device, place, open: None, oracle: Oracle::default() };
        run.open();
        run
    }

    fn open(&mut self) {
        let engine = self.place.engine();
        let config = Config {
            transaction_partition_verification_enable: false,
            // No entry is ever due: the upper bound of a read is the end of its segment.
            index_interval_bytes: 1 << 20,
            ..Config::default()
        };
        let high_watermark = Some(self.oracle.high_watermark);
        let options =
            OpenOptions { config, high_watermark, high_watermark_follows_end: false, ..OpenOptions::default() };
        let log = engine.log(NAME, options).expect("the log opens");
        self.open = Some((engine, log));
    }

    fn log(&self) -> &Log {
        &self.open.as_ref().expect("an open log").1
    }

    fn perform(&mut self, event: Event) {
        match event {
            Event::Data(_) | Event::End { .. } | Event::EmptyEnd(_) => {
                let append = |bytes: &[u8]| match event {
                    Event::Data(_) => self.log().append_wait(Append::client(bytes)),
                    _ => self.log().append_wait(Append::coordinator(bytes)),
                };
                let stored = append(&self.batch(event));
                assert!(stored.is_ok(), "{event:?} behind {:?}: {stored:?}", self.oracle);
                if self.oracle.follows {
                    self.log().set_high_watermark(i64::MAX).expect("it moves");
                }
            }
            Event::HighWatermark => {
                let to = self.oracle.next_high_watermark();
                assert_eq!(self.log().set_high_watermark(to).expect("it moves"), to);
            }
            Event::HighWatermarkEnd => drop(self.log().set_high_watermark(i64::MAX).expect("it moves")),
            Event::Truncate(batches) => {
                let keep = self.oracle.log.len().saturating_sub(batches);
                let to = self.oracle.log[..keep].last().map_or(0, |batch| batch.last_offset + 1);
                self.log().truncate_to(to).expect("the log is cut");
                // As in Kafka, what was decided below the high watermark is stable again once a leader has named it
                // anew.
                let high_watermark = self.log().high_watermark();
                self.log().set_high_watermark(high_watermark).expect("an open log");
            }
            Event::Crash => {
                self.open.take().expect("an open log").0.kill();
                self.device.power_cut(1);
                self.open();
            }
            Event::Restart => {
                self.open.take().expect("an open log").0.close().expect("a clean close");
                self.open();
            }
            Event::Roll => drop(self.log().roll().expect("a new segment")),
        }
    }

    /// The batch of an event as it is sent.
    fn batch(&self, event: Event) -> Vec<u8> {
        match event {
            Event::Data(producer) => {
                let values = vec![String::from("v"); RECORDS[producer] as usize];
                txn_batch(producer as i64, self.oracle.next_sequence(producer), &values)
            }
            Event::End { producer, commit } => end_txn_marker_batch(0, 0, producer as i64, 0, commit, 0, NOW_MS),
            Event::EmptyEnd(producer) => end_txn_marker_batch(0, 0, producer as i64, 0, false, 0, NOW_MS),
            other => panic!("{other:?} is no batch"),
        }
    }

    fn compare(&self, path: &[Event]) {
        let (log, oracle) = (self.log(), &self.oracle);
        assert_eq!(log.log_end_offset(), oracle.end(), "{path:?}");
        assert_eq!(log.high_watermark(), oracle.high_watermark, "{path:?}");
        let stable = oracle.last_stable_offset();
        assert_eq!(log.last_stable_offset(), stable, "last stable offset after {path:?}");
        let starts = oracle.log.iter().map(|batch| batch.base_offset).filter(|offset| *offset < stable);
        for (number, start) in starts.enumerate() {
            let lag = log.lag(start).expect("a lag");
            assert_eq!(lag.records, oracle.visible(start).len() as u64, "lag at {start} after {path:?}");
            // Batch by batch from the first one on reads from all others too.
            for max_bytes in if number == 0 { &[1 << 20, 1][..] } else { &[1 << 20] } {
                let seen = self.read_committed(start, *max_bytes, path);
                assert_eq!(seen, oracle.visible(start), "from {start} by {max_bytes} bytes after {path:?}");
                let left = self.read_without_list(start, *max_bytes);
                assert_eq!(left, seen, "without the list, from {start} by {max_bytes} bytes after {path:?}");
            }
        }
    }

    /// Reads as a client does that knows no list.
    fn read_without_list(&self, start: i64, max_bytes: usize) -> Vec<i64> {
        let (mut seen, mut offset) = (Vec::new(), start);
        loop {
            let read = self.log().read_committed(offset, max_bytes).expect("a read");
            for batch in read.batches() {
                let header = *batch.expect("a whole batch").header();
                seen.extend(header.base_offset..=header.last_offset());
            }
            if read.next_offset() == offset {
                return seen;
            }
            offset = read.next_offset();
        }
    }

    /// Reads as Kafka's consumer does, and holds each list against the oracle's.
    fn read_committed(&self, start: i64, max_bytes: usize, path: &[Event]) -> Vec<i64> {
        let mut seen = Vec::new();
        let mut offset = start;
        loop {
            let read = Read { offset, max_bytes, isolation: Isolation::Committed, at_least_one: true };
            let fetched = self.log().read(read).expect("a read");
            let Some(first) = Batches::new(&fetched.data).next() else { return seen };
            let segment = self.oracle.segment_of(first.expect("a batch").header().base_offset);
            let aborted = fetched.aborted.clone();
            assert_eq!(aborted, self.oracle.aborted_list(offset, segment), "read at {offset} after {path:?}");
            let mut ahead = aborted;
            ahead.sort_unstable_by_key(|(_, first)| *first);
            let mut ahead = ahead.into_iter().peekable();
            let mut dropped: Vec<i64> = Vec::new();
            for batch in Batches::new(&fetched.data).map(|batch| batch.expect("whole batches")) {
                let header = *batch.header();
                while let Some((producer, _)) = ahead.next_if(|(_, first)| *first <= header.last_offset()) {
                    dropped.push(producer);
                }
                if header.is_control() {
                    if batch.control().expect("a marker").kind == ControlType::Abort {
                        dropped.retain(|producer| *producer != header.producer_id);
                    }
                } else if !dropped.contains(&header.producer_id) {
                    seen.extend(header.base_offset..=header.last_offset());
                }
                offset = header.next_offset();
            }
        }
    }
}

//! A small history: one thread, a few appends of every level, rolls, snapshots, deletions, ends of the process.

use super::chance::Chance;
use super::run::{Mark, Recorder, Run, batch};
use oncelog::{Ack, Config, Engine, Log};

const PRODUCERS: usize = 2;

struct Story {
    chance: Chance,
    recorder: Recorder,
    /// Numbers of the batches that the log holds as far as is known, oldest first.
    held: Vec<usize>,
    /// How many of them survive the end of the process.
    written: usize,
}

/// Records the history of a seed.
pub fn record(seed: u64) -> Run {
    let mut chance = Chance(seed);
    let config = Config {
        segment_bytes: 400 + chance.below(600),
        index_interval_bytes: 128,
        transaction_partition_verification_enable: false,
        ..Config::default()
    };
    let mut story = Story { chance, recorder: Recorder::new(seed, config), held: Vec::new(), written: 0 };
    story.live();
    story.recorder.finish()
}

impl Story {
    fn live(&mut self) {
        let (mut engine, mut log) = self.recorder.open();
        for _ in 0..5 + self.chance.below(6) {
            match self.chance.below(22) {
                0 => drop(log.roll().expect("rolled")),
                1 => self.delete(&log),
                2 => log.drive().expect("driven"),
                3 => drop(log.snapshot().expect("a snapshot")),
                4 => {
                    let end = log.sync().expect("synced");
                    self.recorder.mark(Mark::Shown, end.cast_unsigned());
                }
                5 | 6 => (engine, log) = self.reopen(engine, log),
                7 => self.truncate(&log),
                _ => self.append(&log),
            }
            self.recorder.look(&log);
        }
        engine.kill();
    }

    fn append(&mut self, log: &Log) {
        let id = self.chance.below(PRODUCERS as u64) as usize;
        let records = 1 + self.chance.below(2) as i32;
        let ack = [Ack::Durable, Ack::Written, Ack::Accepted][self.chance.below(3) as usize];
        let sequence = self.next_sequence(id);
        let bytes = batch(id as i64, sequence, records, self.chance.below(120) as usize);
        let sent = self.recorder.append(log, id as i64, bytes, ack);
        self.held.push(sent.0);
        self.recorder.wait(sent, ack);
        if ack != Ack::Accepted {
            self.written = self.held.len();
        }
    }

    fn next_sequence(&self, id: usize) -> i32 {
        let sent = self.recorder.sent.lock();
        let held = self.held.iter().map(|number| &sent[*number]).filter(|batch| batch.producer == id as i64);
        held.map(|batch| (batch.last_offset - batch.first_offset + 1) as i32).sum()
    }

    fn delete(&mut self, log: &Log) {
        let limit = log.high_watermark();
        let before = self.chance.below(limit.cast_unsigned() + 1);
        self.recorder.mark(Mark::StartWanted, before);
        let start = log.delete_records(before.cast_signed()).expect("deleted");
        self.recorder.mark(Mark::Start, start.cast_unsigned());
    }

    /// The process ends, cleanly or not, and another one begins.
    fn reopen(&mut self, engine: Engine, log: Log) -> (Engine, Log) {
        if self.chance.below(2) == 0 {
            drop(log);
            engine.close().expect("closed");
        } else {
            engine.kill();
            drop(log);
        }
        let opened = self.recorder.open();
        let end = opened.1.log_end_offset();
        assert!(self.held_below(end) >= self.written, "what was written is lost");
        self.gone(end);
        opened
    }

    /// A replica finds that its leader has other batches.
    fn truncate(&mut self, log: &Log) {
        if self.held.is_empty() {
            return;
        }
        let at = self.held[self.chance.below(self.held.len() as u64) as usize];
        let offset = self.recorder.sent.lock()[at].first_offset;
        self.recorder.mark(Mark::Truncating, offset.cast_unsigned());
        log.truncate_to(offset).expect("truncated");
        self.gone(offset);
    }

    fn held_below(&self, offset: i64) -> usize {
        let sent = self.recorder.sent.lock();
        self.held.partition_point(|number| sent[*number].last_offset < offset)
    }

    fn gone(&mut self, offset: i64) {
        self.held.truncate(self.held_below(offset));
        self.written = self.held.len();
        self.recorder.mark(Mark::Truncated, offset.cast_unsigned());
    }
}

//! Stories of atomic batches: records in several logs that are all there or none, whatever happens.
//!
//! Apart from the other stories, because what is held against each other here is not one log and its facts but what
//! several logs show of one batch. Besides batches there are a producer's own records, truncations, faults and crashes
//! between any two steps of the disk, those of the openings included.

use oncelog::formats::BatchBuilder;
use oncelog::{Ack, Append, AtomicBatch, Config, Engine, EngineOptions, Error, Log, ManualClock, OpenOptions};
use oncelog_device::{Device, FaultOp, MemoryDevice};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::random::{Random, mix};
use crate::world::Outcome;

const LOGS: usize = 3;
const NOW_MS: i64 = 1_700_000_000_000;

/// What is known of a batch, or of a record of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Nobody decided yet.
    Open,
    /// It must be there.
    Stored,
    /// It must not be there.
    Never,
    /// Nobody was told.
    Unknown,
}

/// A batch: where its records stand, those left out that were cut.
struct Batch {
    fate: Fate,
    records: Vec<(usize, i64)>,
    /// A log was truncated while it was open.
    is_cut: bool,
}

struct World {
    device: MemoryDevice,
    random: Random,
    config: Config,
    engine: Option<Engine>,
    logs: Vec<Log>,
    /// By the text of their records.
    batches: BTreeMap<u64, Batch>,
    open: Vec<(u64, AtomicBatch)>,
    next: u64,
    /// Records that a truncation was to cut and that may have stayed, by log, offset and text.
    perhaps: BTreeSet<(usize, i64, u64)>,
    armed: bool,
    failed: bool,
    /// Planted faults that had struck when the engine was opened.
    struck_before: u64,
    outcome: Outcome,
}

pub(crate) fn tell(seed: u64, steps: usize) -> Outcome {
    let mut random = Random::new(seed ^ 0xa70_317c);
    let config = Config {
        segment_bytes: random.pick(&[6_000, 50_000]),
        transaction_partition_verification_enable: random.percent(50),
        ..Config::default()
    };
    let mut world = World {
        device: MemoryDevice::new(),
        random,
        config,
        engine: None,
        logs: Vec::new(),
        batches: BTreeMap::new(),
        open: Vec::new(),
        next: 0,
        perhaps: BTreeSet::new(),
        armed: false,
        failed: false,
        struck_before: 0,
        outcome: Outcome::default(),
    };
    world.reopen(0);
    for _ in 0..steps {
        if !world.outcome.violations.is_empty() {
            break;
        }
        world.outcome.operations += 1;
        world.step();
    }
    if world.outcome.violations.is_empty() {
        world.restart();
    }
    world.outcome.trace_hash = mix(world.outcome.trace_hash ^ world.device.trace_hash());
    world.outcome
}

impl World {
    fn step(&mut self) {
        let at = self.random.index(LOGS);
        match self.random.below(100) {
            0..25 => self.add(at),
            25..45 => self.commit(),
            45..50 => self.abort(),
            50..62 => self.append_alone(at),
            62..74 => {
                let driven = self.logs[at].drive().and_then(|()| self.engine().drive());
                self.expect("a step of the background", driven);
                self.look();
            }
            74..78 => {
                let done = if self.random.percent(50) { self.logs[at].sync() } else { self.logs[at].roll() };
                self.expect("a sync or roll", done);
            }
            78..81 => self.truncate(at),
            81..87 => {
                self.armed = true;
                self.device.crash_after(self.random.below(40));
            }
            87..90 => {
                let op = self.random.pick(&[FaultOp::Write, FaultOp::Sync, FaultOp::Space]);
                self.failed |= op != FaultOp::Space;
                self.device.plant(op, self.random.below(8), 1);
            }
            _ => return self.restart(),
        }
        if self.armed && self.random.percent(20) {
            self.restart();
        }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("an engine runs")
    }

    fn log(&mut self, at: usize) -> Log {
        self.logs[at].clone()
    }

    fn has_struck(&self) -> bool {
        self.device.faults_struck() > self.struck_before
    }

    /// The value, unless something planted explains the error.
    fn expect<T>(&mut self, what: &str, result: Result<T, Error>) -> Option<T> {
        let explained = self.armed || self.has_struck();
        match result {
            Ok(value) => Some(value),
            Err(_) if explained => None,
            Err(error) => {
                self.violation(format!("{what} failed: {error}"));
                None
            }
        }
    }

    fn violation(&mut self, reason: String) {
        let operation = self.outcome.operations;
        self.outcome.violations.push(format!("operation {operation}, atomic batches: {reason}"));
    }

    fn records(&mut self, number: u64) -> BatchBuilder {
        let text = format!("{number:<width$}", width = self.random.pick(&[1, 40, 900]));
        let mut builder = BatchBuilder::new();
        builder.append(NOW_MS, None, Some(text.as_bytes()), &[]);
        builder
    }

    /// One more record for an open batch, or the first of a new one.
    fn add(&mut self, at: usize) {
        if self.open.is_empty() || (self.open.len() < 3 && self.random.percent(30)) {
            let begun = self.engine().begin();
            let Some(batch) = self.expect("a beginning", begun) else { return };
            self.open.push((self.next, batch));
            self.batches.insert(self.next, Batch { fate: Fate::Open, records: Vec::new(), is_cut: false });
            self.next += 1;
        }
        let which = self.random.index(self.open.len());
        let number = self.open[which].0;
        let (log, records) = (self.log(at), self.records(number));
        let added = self.open[which].1.append(&log, records);
        if matches!(added, Err(Error::InvalidRequest(_))) && self.batches[&number].is_cut {
            return;
        }
        if let Some(offset) = self.expect("a part", added) {
            self.batches.get_mut(&number).expect("it is known").records.push((at, offset));
        }
    }

    fn commit(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (number, batch) = self.open.remove(self.random.index(self.open.len()));
        let committed = batch.commit();
        self.outcome.trace_hash = mix(self.outcome.trace_hash ^ u64::from(committed.is_ok()));
        let is_cut = self.batches[&number].is_cut;
        let fate = match committed {
            Ok(()) if is_cut => return self.violation(format!("batch {number} is committed though a log was cut")),
            Ok(()) => Fate::Stored,
            Err(Error::Storage(_) | Error::Device(_)) => Fate::Unknown,
            Err(Error::InvalidRequest(_)) if is_cut => Fate::Never,
            Err(error) => {
                self.expect("a commit", Err::<(), _>(error));
                Fate::Never
            }
        };
        self.batches.get_mut(&number).expect("it is known").fate = fate;
    }

    fn abort(&mut self) {
        if let Some((number, batch)) = self.open.pop() {
            batch.abort();
            self.batches.get_mut(&number).expect("it is known").fate = Fate::Never;
        }
    }

    /// A record of a producer's own, of nobody's transaction.
    fn append_alone(&mut self, at: usize) {
        let (log, number) = (self.log(at), self.next);
        self.next += 1;
        let bytes = self.records(number).build().expect("a batch");
        let ack = self.random.pick(&[Ack::Accepted, Ack::Written, Ack::Durable]);
        let Some(ticket) = self.expect("an append", log.append(Append::client(&bytes).ack(ack))) else { return };
        let records = vec![(at, ticket.expected().base_offset)];
        let answered = ticket.wait();
        let is_sure = self.expect("an answer", answered).is_some() && ack == Ack::Durable;
        let fate = if is_sure { Fate::Stored } else { Fate::Unknown };
        self.batches.insert(number, Batch { fate, records, is_cut: false });
    }

    fn truncate(&mut self, at: usize) {
        let log = self.log(at);
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let offset = end - (self.random.below(6) as i64).min(end - start);
        let done = log.truncate_to(offset);
        if offset < end {
            // Where it has cut the marker of a batch, and that shows, its records may go or stay.
            let sure_below = if done.is_ok() { log.last_stable_offset() } else { -1 };
            let perhaps_below = if done.is_ok() { offset } else { i64::MAX };
            let cut = self.forget_from(at, sure_below.min(offset));
            self.perhaps.extend(cut.into_iter().filter(|(_, offset, _)| *offset < perhaps_below));
        }
        if self.expect("a truncation", done).is_none() {
            self.restart();
        }
    }

    /// Nothing is expected of what stands in a log from an offset on; answers what it was.
    fn forget_from(&mut self, at: usize, offset: i64) -> Vec<(usize, i64, u64)> {
        let open: Vec<u64> = self.open.iter().map(|(number, _)| *number).collect();
        let mut cut = Vec::new();
        for (number, batch) in &mut self.batches {
            batch.is_cut |= batch.records.iter().any(|record| record.0 == at) && open.contains(number);
            let gone = batch.records.extract_if(.., |record| record.0 == at && record.1 >= offset);
            cut.extend(gone.map(|(at, offset)| (at, offset, *number)));
        }
        cut
    }

    /// What committed readers see below the offsets up to which every batch is whole or not there.
    fn look(&mut self) {
        let logs = self.logs.clone();
        let ends = self.engine().stable_ends(&logs.iter().collect::<Vec<_>>());
        let Some(seen) = self.seen() else { return };
        let below = |record: &(usize, i64)| record.1 < ends[record.0];
        let mut torn = Vec::new();
        for (number, batch) in &self.batches {
            let visible = |record: &&(usize, i64)| below(record) && seen.get(record) == Some(number);
            let count = batch.records.iter().filter(visible).count();
            if count > 0 && (count < batch.records.len() || matches!(batch.fate, Fate::Open | Fate::Never)) {
                torn.push(format!(
                    "{count} of {} records of batch {number}, {:?}, are seen",
                    batch.records.len(),
                    batch.fate
                ));
            }
        }
        torn.into_iter().for_each(|reason| self.violation(reason));
    }

    /// All that committed readers see, by log and offset.
    fn seen(&mut self) -> Option<BTreeMap<(usize, i64), u64>> {
        let mut seen = BTreeMap::new();
        for (at, log) in self.logs.clone().into_iter().enumerate() {
            let read = read_committed(&log, at, &mut seen);
            self.expect("a read", read)?;
        }
        Some(seen)
    }

    fn restart(&mut self) {
        let left_open = std::mem::take(&mut self.open);
        for batch in self.batches.values_mut().filter(|batch| batch.fate == Fate::Open) {
            batch.fate = Fate::Never;
        }
        self.logs.clear();
        let engine = self.engine.take().expect("an engine runs");
        let well = !self.armed && !self.has_struck();
        match self.random.below(4) {
            0 if well => {
                let closed = engine.close();
                self.expect("a close", closed);
            }
            _ => engine.kill(),
        }
        // Too late to abort them.
        drop(left_open);
        self.end();
        self.reopen(25);
        self.check();
    }

    fn end(&mut self) {
        if self.failed || self.random.percent(60) {
            self.outcome.power_cuts += 1;
            self.device.power_cut(self.random.next() >> 1);
        } else {
            self.device.kill();
        }
        self.device.clear_faults();
        (self.armed, self.failed) = (false, false);
        self.struck_before = self.device.faults_struck();
    }

    fn reopen(&mut self, crashes: u64) {
        while self.random.percent(crashes) {
            self.armed = true;
            self.device.crash_after(self.random.below(60));
            let opened = self.try_open();
            if let Some((engine, _)) = self.expect("an opening", opened) {
                engine.kill();
            }
            self.end();
        }
        let opened = self.try_open();
        if let Some((engine, logs)) = self.expect("an opening", opened) {
            (self.engine, self.logs) = (Some(engine), logs);
        }
    }

    fn try_open(&self) -> Result<(Engine, Vec<Log>), Error> {
        let options = EngineOptions {
            device: Some(Arc::new(self.device.clone()) as Arc<dyn Device>),
            clock: Some(Arc::new(ManualClock::new(NOW_MS))),
            driver: false,
            ..EngineOptions::default()
        };
        let engine = Engine::open("/data", options)?;
        let open = |at| {
            engine.log(&format!("part-{at}"), OpenOptions { config: self.config.clone(), ..OpenOptions::default() })
        };
        let logs = (0..LOGS).map(open).collect::<Result<_, _>>()?;
        Ok((engine, logs))
    }

    /// Every batch is there as a whole, at the offsets that were answered, or not at all; then what is found is
    /// believed.
    fn check(&mut self) {
        if self.engine.is_none() {
            return;
        }
        let Some(seen) = self.seen() else { return };
        let mut wrong = Vec::new();
        for (number, batch) in &mut self.batches {
            let found = batch.records.iter().filter(|record| seen.get(record) == Some(number)).count();
            let whole = found == batch.records.len();
            let fits = match batch.fate {
                Fate::Stored => whole,
                Fate::Never | Fate::Open => found == 0,
                Fate::Unknown => whole || found == 0,
            };
            if !fits {
                wrong.push(format!("{found} of {:?} of batch {number}, {:?}, are there", batch.records, batch.fate));
            }
            batch.fate = if found > 0 { Fate::Stored } else { Fate::Never };
        }
        for (&(at, offset), number) in &seen {
            let is_known = self.batches.get(number).is_some_and(|batch| batch.records.contains(&(at, offset)));
            if !is_known && !self.perhaps.contains(&(at, offset, *number)) {
                wrong.push(format!("log {at} has batch {number} at offset {offset}, where it was not stored"));
            }
        }
        for (at, log) in self.logs.iter().enumerate() {
            if log.last_stable_offset() != log.log_end_offset() {
                wrong.push(format!("log {at} is held back at {}", log.last_stable_offset()));
            }
        }
        wrong.into_iter().for_each(|reason| self.violation(reason));
        self.batches.retain(|_, batch| batch.fate == Fate::Stored);
        self.perhaps.retain(|(at, offset, number)| seen.get(&(*at, *offset)) == Some(number));
    }
}

fn read_committed(log: &Log, at: usize, seen: &mut BTreeMap<(usize, i64), u64>) -> Result<(), Error> {
    let wrong = |source| Error::Format { path: log.dir().to_path_buf(), source };
    let mut offset = log.log_start_offset();
    loop {
        let read = log.read_committed(offset, 1 << 20)?;
        for batch in read.batches() {
            for record in batch.map_err(wrong)?.decode(1 << 20).map_err(wrong)?.records() {
                let record = record.map_err(wrong)?;
                let text = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
                seen.insert((at, record.offset), text.trim_end().parse().unwrap_or(u64::MAX));
            }
        }
        if read.next_offset() == offset {
            return Ok(());
        }
        offset = read.next_offset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_hundred_stories_keep_every_batch_whole() {
        for seed in 0..500 {
            assert_eq!(tell(seed, 50).violations, Vec::<String>::new(), "seed {seed}");
        }
    }
}

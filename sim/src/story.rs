//! One story: what happens is drawn from the seed, what must hold is asked of the oracle.
//!
//! The engine runs without its driver thread; the story drives the logs by hand, so that crashes fall between any two
//! steps of the disk.

use oncelog::{
    Ack, Append, Config, Engine, EngineOptions, Error, Isolation, Log, ManualClock, OpenOptions, Read, Ticket,
};
use oncelog_device::{Clock, Device, MemoryDevice};
use std::sync::Arc;

use crate::client::{Client, later};
use crate::oracle::{Found, Oracle};
use crate::random::Random;

const DATA_DIR: &str = "/data";
const LOGS: usize = 2;
const PRODUCERS: i64 = 4;

/// What one story came to.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) operations: u64,
    pub(crate) power_cuts: u64,
    pub(crate) violations: Vec<String>,
    pub(crate) trace_hash: u64,
}

/// How the engine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Close,
    Kill,
    PowerCut,
}

/// One log and what is known of it.
pub(crate) struct Partition {
    pub(crate) name: String,
    pub(crate) log: Option<Log>,
    pub(crate) oracle: Oracle,
    pub(crate) clients: Vec<Client>,
    /// Appends that nobody has waited for.
    pub(crate) tickets: Vec<(i64, Ack, Ticket)>,
}

/// The story while it is told.
pub(crate) struct Story {
    pub(crate) random: Random,
    device: MemoryDevice,
    clock: Arc<ManualClock>,
    config: Config,
    engine: Option<Engine>,
    pub(crate) partitions: Vec<Partition>,
    /// The power will go at some step of the disk.
    armed: bool,
    /// Something failed because it has gone.
    failed: bool,
    outcome: Outcome,
}

/// Tells the story of this seed.
pub(crate) fn run(seed: u64, operations: u64) -> Outcome {
    let mut story = Story::new(seed);
    story.reopen(Ack::Accepted);
    while story.outcome.operations < operations && story.outcome.violations.is_empty() {
        story.outcome.operations += 1;
        story.step();
        if story.failed {
            story.end_somehow();
        }
    }
    for end in [End::PowerCut, End::Kill, End::Close] {
        if story.outcome.violations.is_empty() {
            story.restart(end);
        }
    }
    story.outcome.trace_hash = story.device.trace_hash();
    story.outcome
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let config = Config {
            segment_bytes: [6_000, 16_384, 50_000][random.index(3)],
            index_interval_bytes: [0, 1_000, 4_096][random.index(3)],
            retention_bytes: [20_000, 60_000][random.index(2)],
            file_delete_delay_ms: 2_000,
            ..Config::default()
        };
        let partition = |number: usize| Partition {
            name: format!("story-{number}"),
            log: None,
            oracle: Oracle::default(),
            clients: (0..PRODUCERS).map(Client::new).collect(),
            tickets: Vec::new(),
        };
        Self {
            device: MemoryDevice::new().with_clock(clock.clone()),
            random,
            clock,
            config,
            engine: None,
            partitions: (0..LOGS).map(partition).collect(),
            armed: false,
            failed: false,
            outcome: Outcome::default(),
        }
    }

    /// One thing happens.
    fn step(&mut self) {
        let at = self.random.index(LOGS);
        match self.random.below(100) {
            0..46 => self.send(at),
            46..60 => self.retry(at),
            60..62 => self.retry_too_old(at),
            62..64 => self.skip_a_sequence(at),
            64..69 => self.wait(at),
            69..74 => self.drive(at),
            74..78 => self.read(at),
            78..80 => self.roll(at),
            80..82 => self.sync(at),
            82..84 => self.snapshot(at),
            84..86 => self.delete_records(at),
            86..88 => self.apply_retention(at),
            88..90 => self.truncate(at),
            90..91 => self.bump_epoch(at),
            91..94 => self.clock.advance(self.random.below(1_500)),
            94..98 => self.arm(),
            _ => self.end_somehow(),
        }
    }

    pub(crate) fn violation(&mut self, at: usize, reason: &str) {
        let name = &self.partitions[at].name;
        let operation = self.outcome.operations;
        let reason = format!("operation {operation}, {name}: {reason}");
        self.outcome.violations.push(reason);
    }

    pub(crate) fn log(&self, at: usize) -> Log {
        let log = self.partitions[at].log.clone();
        log.expect("logs are open while a story is told")
    }

    /// The value, or a note of what the error means: the power is out, or something is wrong.
    pub(crate) fn expect<T>(&mut self, at: usize, what: &str, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Storage(_) | Error::Device(_)) if self.armed => {
                self.failed = true;
                None
            }
            Err(error) => {
                self.violation(at, &format!("{what} failed: {error}"));
                None
            }
        }
    }

    /// A producer's next batch.
    fn send(&mut self, at: usize) {
        let client = self.random.index(PRODUCERS as usize);
        let client = self.partitions[at].clients[client].clone();
        let sequence = client.next_sequence(&self.partitions[at].oracle);
        let (fact, records) = client.batch(sequence, self.clock.now_ms(), &mut self.random);
        self.append(at, fact, records);
    }

    /// A batch that must be stored at the end of the log, at a level drawn now and waited for now or later.
    fn append(&mut self, at: usize, fact: crate::oracle::Fact, records: i64) {
        let ack = self.draw_ack();
        let ticket = self.log(at).append(Append::client(&fact.sent).ack(ack));
        let Some(ticket) = self.expect(at, "an append", ticket) else {
            return;
        };
        let oracle = &mut self.partitions[at].oracle;
        let checked = oracle.appended(fact, records, ticket.expected());
        let first_offset = ticket.expected().base_offset;
        self.hold(at, checked);
        self.wait_now_or_later(at, first_offset, ack, ticket);
    }

    /// One of the last five again.
    fn retry(&mut self, at: usize) {
        let client = self.random.index(PRODUCERS as usize);
        let producer_id = self.partitions[at].clients[client].producer_id;
        let window = self.partitions[at].oracle.window(producer_id);
        if !window.is_empty() {
            let fact = window[self.random.index(window.len())];
            self.retry_fact(at, fact);
        }
    }

    fn retry_fact(&mut self, at: usize, fact: usize) {
        let ack = self.draw_ack();
        let sent = self.partitions[at].oracle.facts[fact].sent.clone();
        let ticket = self.log(at).append(Append::client(&sent).ack(ack));
        let Some(ticket) = self.expect(at, "a retry", ticket) else {
            return;
        };
        let checked = self.partitions[at].oracle.retried(fact, ticket.expected());
        let first_offset = ticket.expected().base_offset;
        self.hold(at, checked);
        self.wait_now_or_later(at, first_offset, ack, ticket);
    }

    /// One older than the last five: it may be refused, but never stored.
    fn retry_too_old(&mut self, at: usize) {
        let client = self.random.index(PRODUCERS as usize);
        let producer_id = self.partitions[at].clients[client].producer_id;
        let older = self.partitions[at].oracle.of_producer(producer_id);
        if let Some(&fact) = older.get(5) {
            let sent = self.partitions[at].oracle.facts[fact].sent.clone();
            self.must_be_refused(at, "a batch older than the last five", &sent);
        }
    }

    fn skip_a_sequence(&mut self, at: usize) {
        let client = self.partitions[at].clients[1].clone();
        let oracle = &self.partitions[at].oracle;
        if oracle.newest(client.producer_id).is_some() {
            let sequence = later(client.next_sequence(oracle), 1);
            let (fact, _) = client.batch(sequence, self.clock.now_ms(), &mut self.random);
            self.must_be_refused(at, "a batch behind a gap", &fact.sent);
        }
    }

    fn must_be_refused(&mut self, at: usize, what: &str, sent: &[u8]) {
        match self.log(at).append(Append::client(sent)) {
            Err(Error::Refused { .. }) => {}
            Err(error) => {
                self.expect(at, what, Err::<(), _>(error));
            }
            Ok(ticket) => {
                let answer = *ticket.expected();
                self.violation(at, &format!("{what} was answered {answer:?}"));
            }
        }
    }

    fn draw_ack(&mut self) -> Ack {
        [Ack::Accepted, Ack::Written, Ack::Durable][self.random.index(3)]
    }

    pub(crate) fn hold(&mut self, at: usize, checked: Result<(), String>) {
        if let Err(reason) = checked {
            self.violation(at, &reason);
        }
    }

    fn wait_now_or_later(&mut self, at: usize, first_offset: i64, ack: Ack, ticket: Ticket) {
        self.partitions[at].tickets.push((first_offset, ack, ticket));
        if self.random.percent(60) {
            self.wait(at);
        }
    }

    /// Some open append is waited for.
    fn wait(&mut self, at: usize) {
        let count = self.partitions[at].tickets.len();
        if count == 0 {
            return;
        }
        let which = self.random.index(count);
        let (first_offset, ack, ticket) = self.partitions[at].tickets.swap_remove(which);
        if self.expect(at, "a wait", ticket.wait()).is_some() {
            self.partitions[at].oracle.acknowledged(first_offset, ack);
        }
    }

    fn bump_epoch(&mut self, at: usize) {
        let client = self.random.index(PRODUCERS as usize);
        let client = &mut self.partitions[at].clients[client];
        client.epoch += 1;
    }

    fn arm(&mut self) {
        if !self.armed {
            self.armed = true;
            self.device.crash_after(self.random.below(60));
        }
    }

    /// The engine ends, in a way drawn now, and comes back.
    fn end_somehow(&mut self) {
        let end = match self.random.below(10) {
            0 if !self.armed => End::Close,
            0..4 => End::Kill,
            _ => End::PowerCut,
        };
        self.restart(end);
    }

    fn restart(&mut self, end: End) {
        let engine = self.engine.take().expect("an engine runs");
        for partition in &mut self.partitions {
            partition.tickets.clear();
            partition.log = None;
        }
        if end == End::Close && !self.armed {
            let closed = engine.close();
            self.expect(0, "a close", closed);
        } else {
            engine.kill();
        }
        let survives = self.pull_plug(end);
        self.reopen(survives);
    }

    /// What the world does to the disk; answers the level that survives it.
    fn pull_plug(&mut self, end: End) -> Ack {
        (self.armed, self.failed) = (false, false);
        match end {
            End::PowerCut => {
                self.outcome.power_cuts += 1;
                self.device.power_cut(self.random.next());
                Ack::Durable
            }
            End::Kill => {
                self.device.kill();
                Ack::Written
            }
            End::Close => Ack::Accepted,
        }
    }

    /// Opens everything, with a crash in the middle now and then, and asks the oracle.
    fn reopen(&mut self, mut survives: Ack) {
        while self.random.percent(20) {
            self.armed = true;
            self.device.crash_after(self.random.below(80));
            let opened = self.open();
            self.expect(0, "an opening", opened);
            self.drop_engine();
            let end = [End::Kill, End::PowerCut][self.random.index(2)];
            survives = survives.max(self.pull_plug(end));
        }
        let opened = self.open();
        if self.expect(0, "an opening", opened).is_none() {
            return;
        }
        for at in 0..LOGS {
            self.check(at, survives);
        }
    }

    fn drop_engine(&mut self) {
        self.partitions.iter_mut().for_each(|p| p.log = None);
        if let Some(engine) = self.engine.take() {
            engine.kill();
        }
    }

    fn open(&mut self) -> Result<(), Error> {
        let options = EngineOptions {
            device: Some(Arc::new(self.device.clone()) as Arc<dyn Device>),
            clock: Some(self.clock.clone()),
            driver: false,
            ..EngineOptions::default()
        };
        let engine = Engine::open(DATA_DIR, options)?;
        let engine = self.engine.insert(engine);
        for partition in &mut self.partitions {
            let options = OpenOptions { config: self.config.clone(), ..OpenOptions::default() };
            partition.log = Some(engine.log(&partition.name, options)?);
        }
        Ok(())
    }

    /// Everything that was promised to survive must be there, once and in order, and every retry known.
    fn check(&mut self, at: usize, survives: Ack) {
        let log = self.log(at);
        if let Some(damage) = log.report().damage.first() {
            self.violation(at, &format!("opened with damage: {damage}"));
            return;
        }
        let found = read_all(&log);
        let Some(found) = self.expect(at, "reading everything", found) else {
            return;
        };
        let (gone, wrong) = self.partitions[at].oracle.check(&found, survives);
        for reason in &wrong {
            self.violation(at, &format!("after an end that {survives:?} survives: {reason}"));
        }
        if !wrong.is_empty() {
            return;
        }
        self.partitions[at].oracle.durable_below(log.high_watermark());
        for client in 0..PRODUCERS as usize {
            let producer_id = self.partitions[at].clients[client].producer_id;
            for fact in self.partitions[at].oracle.window(producer_id) {
                self.retry_fact(at, fact);
            }
        }
        // A client that never got its answer sends again what was lost, as far as it gets.
        let again = self.random.index(gone.len() + 1);
        for fact in gone.into_iter().take(again) {
            let records = fact.last_offset - fact.first_offset + 1;
            let level = Ack::Accepted;
            self.append(at, crate::oracle::Fact { level, ..fact }, records);
        }
    }
}

/// All batches that a log holds.
pub(crate) fn read_all(log: &Log) -> Result<Found, Error> {
    let (log_start, log_end) = (log.log_start_offset(), log.log_end_offset());
    let mut found = Found { log_start, log_end, data: Vec::new() };
    let mut offset = log_start;
    while offset < log_end {
        let fetched = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(offset) })?;
        let batches = oncelog_formats::Batches::new(&fetched.data);
        let Some(last) = batches.filter_map(Result::ok).last() else {
            break;
        };
        offset = last.header().next_offset();
        found.data.extend_from_slice(&fetched.data);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// A story of durable batches only, and the engine killed behind it.
    fn told() -> Story {
        let mut story = Story::new(1);
        story.random = Random::new(1);
        let opened = story.open();
        opened.expect("a new directory opens");
        for _ in 0..3 {
            let client = story.partitions[0].clients[1].clone();
            let sequence = client.next_sequence(&story.partitions[0].oracle);
            let (fact, records) = client.batch(sequence, 0, &mut story.random);
            let answer = story.log(0).append_wait(Append::client(&fact.sent));
            let answer = answer.expect("an append to a new log");
            let oracle = &mut story.partitions[0].oracle;
            oracle.appended(fact, records, &answer).expect("the first offsets");
            oracle.acknowledged(answer.base_offset, Ack::Durable);
        }
        story.drop_engine();
        story.device.kill();
        story
    }

    fn checked(mut story: Story) -> Vec<String> {
        match story.open() {
            Ok(()) => story.check(0, Ack::Durable),
            Err(error) => story.violation(0, &error.to_string()),
        }
        story.outcome.violations
    }

    #[test]
    fn a_batch_removed_from_the_disk_is_found_lost() {
        assert_eq!(checked(told()), [""; 0]);
        let story = told();
        let path = Path::new("/data/story-0/00000000000000000000.log");
        let contents = story.device.contents(path).expect("a healthy disk");
        let mut contents = contents.expect("the first segment");
        let facts = &story.partitions[0].oracle.facts;
        let from = facts[0].sent.len() + facts[1].sent.len();
        contents[from..].fill(0);
        story.device.put(path, &contents).expect("a healthy disk");
        let violations = checked(story);
        assert!(violations.iter().any(|reason| reason.contains("lost: ")), "{violations:?}");
    }

    #[test]
    fn a_retry_that_the_log_does_not_know_is_found() {
        let mut story = told();
        story.partitions[0].oracle.facts[1].first_offset += 1;
        let violations = checked(story);
        assert!(!violations.is_empty());
    }
}

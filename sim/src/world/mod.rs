//! The world of one story: a disk, a clock, an engine with its logs, and what each log has promised.
//!
//! The engine runs without its driver thread; the story drives the logs by hand, so that crashes fall between any two
//! steps of the disk.

mod appends;
mod damage;
mod damage_while_open;
mod reads;
mod restart;
mod upkeep;

use oncelog::{Ack, Engine, Error, Log, ManualClock, Ticket};
use oncelog_device::{Clock, FaultOp, MemoryDevice};
use serde_json::Value;
use std::sync::Arc;

use crate::client::Client;
use crate::oracle::Oracle;
use crate::plan::{CLIENTS, Deed, End, LOGS, Plan, Setup, Step};
use crate::random::{Random, mix};

/// Where the logs are.
pub(crate) const DATA_DIR: &str = "/data";

/// What one story came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Steps that were done.
    pub operations: u64,
    /// How often the power was cut.
    pub power_cuts: u64,
    /// What was found wrong.
    pub violations: Vec<String>,
    /// A hash of every call of the disk and of every answer of the logs.
    pub trace_hash: u64,
}

/// One log and what is known of it.
pub(crate) struct Partition {
    name: String,
    log: Option<Log>,
    oracle: Oracle,
    clients: Vec<Client>,
    /// Appends that nobody has waited for.
    tickets: Vec<(i64, Ack, Ticket)>,
    leader_epoch: i32,
    /// A write or sync failed: nothing may be acknowledged.
    latched: bool,
    /// The log was to begin anew, and that failed half way.
    half_anew: bool,
    /// A truncation failed half way.
    half_cut: bool,
}

/// See the module.
pub(crate) struct World {
    device: MemoryDevice,
    clock: Arc<ManualClock>,
    setup: Setup,
    engine: Option<Engine>,
    partitions: Vec<Partition>,
    /// Details of the step that is being done.
    random: Random,
    /// The power will go at some step of the disk.
    armed: bool,
    /// Planted faults that had struck when the engine was opened.
    struck_before: u64,
    /// Something planted struck in the life before this one.
    hurt: bool,
    /// A write or sync was planted to fail in this life.
    sync_failed: bool,
    /// The disk may be full.
    cramped: bool,
    /// After so many steps the engine ends: something has failed.
    ends_in: Option<u32>,
    /// The disk has lied: this life is the last.
    over: bool,
    outcome: Outcome,
    /// The story as a `play` script of one log, if anybody wants it.
    script: Option<(usize, Vec<Value>)>,
}

/// Tells a story.
pub(crate) fn tell(plan: &Plan) -> Outcome {
    World::new(plan).told(plan).outcome
}

/// The lines of a `play` script that tell the part of one log, as far as they can.
pub(crate) fn script(plan: &Plan, log: usize) -> Vec<Value> {
    let mut world = World::new(plan);
    world.script = Some((log, Vec::new()));
    world.told(plan).script.map(|(_, lines)| lines).unwrap_or_default()
}

impl World {
    pub(crate) fn new(plan: &Plan) -> Self {
        let clock = Arc::new(ManualClock::new(1_700_000_000_000));
        let expiration_ms = plan.setup.config.producer_id_expiration_ms;
        let verified = plan.setup.config.transaction_partition_verification_enable;
        let partition = |number: usize| Partition {
            name: format!("story-{number}"),
            log: None,
            oracle: Oracle::new(verified, expiration_ms),
            clients: (0..CLIENTS).map(|client| Client::new(client, plan.setup.pair_stride)).collect(),
            tickets: Vec::new(),
            leader_epoch: 0,
            latched: false,
            half_anew: false,
            half_cut: false,
        };
        Self {
            device: MemoryDevice::new().with_clock(clock.clone()),
            clock,
            setup: plan.setup.clone(),
            engine: None,
            partitions: (0..LOGS).map(partition).collect(),
            random: Random::new(0),
            armed: false,
            struck_before: 0,
            hurt: false,
            sync_failed: false,
            cramped: false,
            ends_in: None,
            over: false,
            outcome: Outcome::default(),
            script: None,
        }
    }

    fn told(mut self, plan: &Plan) -> Self {
        self.reopen(Ack::Accepted, 0);
        for step in &plan.steps {
            if self.is_done() {
                break;
            }
            self.outcome.operations += 1;
            self.random = Random::new(step.chance);
            self.step(step);
        }
        self.random = Random::new(plan.chance);
        for end in [End::PowerCut, End::Kill] {
            if !self.is_done() {
                self.restart(end);
            }
        }
        if !self.is_done() {
            self.finish(plan.finale);
        }
        self.outcome.trace_hash = mix(self.outcome.trace_hash ^ self.device.trace_hash());
        self
    }

    fn is_done(&self) -> bool {
        self.over || !self.outcome.violations.is_empty()
    }

    /// One thing happens.
    fn step(&mut self, step: &Step) {
        let at = step.log;
        match step.deed {
            Deed::Send { client, ack, wrong } => self.send(at, client, ack, wrong),
            Deed::Retry { client, back, ack } => self.retry(at, client, back, ack),
            Deed::Mark { client, commit, wrong } => self.mark(at, client, commit, wrong),
            Deed::RaiseEpoch { client } => self.raise_epoch(at, client),
            Deed::Wait => self.wait(at),
            Deed::Drive => self.drive(at),
            Deed::Read => self.read(at),
            Deed::ReadCommitted => self.read_committed(at),
            Deed::LookUpTime => self.look_up_time(at),
            Deed::Roll => self.roll(at),
            Deed::Sync => self.sync(at),
            Deed::Snapshot => self.snapshot(at),
            Deed::DeleteRecords => self.delete_records(at),
            Deed::Retain => self.apply_retention(at),
            Deed::Expire => self.expire(at),
            Deed::Truncate => self.truncate(at),
            Deed::BeginAnew => self.begin_anew(at),
            Deed::MoveHighWatermark => self.move_high_watermark(at),
            Deed::RaiseLeaderEpoch => self.partitions[at].leader_epoch += 1 + self.random.below(2) as i32,
            Deed::Advance { ms } => self.advance(ms),
            Deed::Arm { after } => self.arm(after),
            Deed::Fail { op, after, times } => self.fail(op, after, times),
            Deed::Room { blocks } => self.make_room(blocks),
            Deed::End(end) => return self.restart(end),
        }
        self.end_if_something_failed();
    }

    fn end_if_something_failed(&mut self) {
        match &mut self.ends_in {
            Some(0) => {
                // A file system that has failed to sync comes back by a new start of the machine.
                let end = if self.sync_failed { End::PowerCut } else { self.random.pick(&[End::Kill, End::Close]) };
                self.restart(end);
            }
            Some(steps) => *steps -= 1,
            None => {}
        }
    }

    fn advance(&mut self, ms: u64) {
        self.clock.advance(ms);
        let now_ms = self.clock.now_ms();
        self.note_all(|| serde_json::json!({"op": "clock", "ms": now_ms}));
    }

    fn arm(&mut self, after: u64) {
        if !self.armed {
            self.armed = true;
            self.device.crash_after(after);
        }
    }

    fn fail(&mut self, op: FaultOp, after: u64, times: u64) {
        self.sync_failed |= matches!(op, FaultOp::Write | FaultOp::Sync);
        self.device.plant(op, after, times);
        let word = match op {
            FaultOp::Write => "write",
            FaultOp::Sync => "sync",
            FaultOp::Read => "read",
            FaultOp::Space => "space",
            _ => return,
        };
        self.note_all(|| serde_json::json!({"op": "fail", "device_op": word, "after": after, "times": times}));
    }

    fn make_room(&mut self, blocks: Option<u64>) {
        self.cramped = blocks.is_some();
        self.device.set_capacity_bytes(blocks.map(|blocks| self.device.used_bytes() + blocks * 4096));
        if self.cramped {
            self.ends_in.get_or_insert(12);
        }
    }

    fn violation(&mut self, at: usize, reason: &str) {
        let name = &self.partitions[at].name;
        let operation = self.outcome.operations;
        self.outcome.violations.push(format!("operation {operation}, {name}: {reason}"));
    }

    fn hold(&mut self, at: usize, checked: Result<(), String>) {
        if let Err(reason) = checked {
            self.violation(at, &reason);
        }
    }

    fn log(&self, at: usize) -> Log {
        self.partitions[at].log.clone().expect("logs are open while a story is told")
    }

    fn oracle(&mut self, at: usize) -> &mut Oracle {
        &mut self.partitions[at].oracle
    }

    /// Whether the disk has lied about a write.
    fn was_lied_to(&self) -> bool {
        self.device.has_misplaced_writes()
    }

    /// The value, or a note of what the error means: something was planted, or something is wrong.
    fn expect<T>(&mut self, at: usize, what: &str, result: Result<T, Error>) -> Option<T> {
        let error = match result {
            Ok(value) => {
                self.hash(1);
                return Some(value);
            }
            Err(error) => error,
        };
        self.hash(2);
        let struck = self.armed || self.device.faults_struck() > self.struck_before;
        let planted = match &error {
            Error::StorageFull(_) => self.cramped || struck,
            Error::Storage(_) | Error::Device(_) | Error::Closed => struck || self.was_lied_to(),
            Error::Damaged(_) => self.was_lied_to(),
            _ => false,
        };
        if !planted {
            self.violation(at, &format!("{what} failed: {error}"));
            return None;
        }
        if matches!(error, Error::Storage(_)) {
            self.partitions[at].latched = true;
        }
        if !matches!(error, Error::StorageFull(_)) {
            let steps = if self.armed { 0 } else { self.random.below(6) as u32 };
            self.ends_in = Some(self.ends_in.map_or(steps, |others| others.min(steps)));
        }
        None
    }

    /// Lets an answer count for the trace.
    fn hash(&mut self, word: u64) {
        self.outcome.trace_hash = mix(self.outcome.trace_hash ^ word);
    }

    /// A line for the script of this log.
    fn note(&mut self, at: usize, line: impl FnOnce() -> Value) {
        if let Some((log, lines)) = &mut self.script
            && *log == at
        {
            lines.push(line());
        }
    }

    /// A line for the script whatever its log.
    fn note_all(&mut self, line: impl FnOnce() -> Value) {
        if let Some((_, lines)) = &mut self.script {
            lines.push(line());
        }
    }
}

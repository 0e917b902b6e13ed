//! The process that is killed: several producers append at once and tell each answer as soon as it is theirs.
//!
//! It reads one line of JSON from standard input, its plan, and stops cleanly when that ends. It writes one line for
//! each answer, in one system call, so that whoever kills it has every answer that it got:
//!
//! ```text
//! open MS                 the log is open, recovered in MS milliseconds
//! ack P B OFFSET          batch B of producer P is stored from OFFSET on
//! dup P B OFFSET          the same, and it had been stored before
//! bad P B TEXT            an append that had to succeed did not
//! ```

use super::ledger::Answer;
use super::workload::{Chance, batch};
use crate::common::{CliError, CliResult, DeviceArg, Outcome, Place, open_for_writing};
use clap::ValueEnum;
use oncelog::{Ack, Append, Appended, Clock, Config, Log, OpenOptions, SystemClock, Ticket};
use oncelog_snapshot::WINDOW;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches of one producer under way at a time.
const IN_FLIGHT: usize = 2;
/// Acknowledged batches of each producer that are sent again after every start.
const RETRIED_AFTER_START: usize = WINDOW - IN_FLIGHT;
/// One append in this many is followed by a retry that nobody needed.
const RETRY_EVERY: u64 = 8;

/// What a writer is to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Partition directory.
    pub directory: PathBuf,
    /// How to reach the disk.
    pub device: DeviceArg,
    /// From which the records follow.
    pub seed: u64,
    /// When appends are answered; `None`: producers take turns at `Written` and `Durable`.
    pub ack: Option<Ack>,
    /// Segments are rolled at this size.
    pub segment_bytes: u64,
    /// First batch of each producer that is not acknowledged.
    pub next: Vec<u64>,
}

impl Plan {
    /// As one line for the writer's standard input.
    pub fn to_json(&self) -> Value {
        let ack = match self.ack {
            Some(Ack::Durable) => "durable",
            Some(_) => "written",
            None => "mixed",
        };
        json!({
            "dir": self.directory.to_string_lossy(), "device": self.device.name(), "seed": self.seed, "ack": ack,
            "segment_bytes": self.segment_bytes, "next": self.next,
        })
    }

    fn from_json(text: &str) -> Option<Self> {
        let plan: Value = serde_json::from_str(text).ok()?;
        let next = plan["next"].as_array()?.iter().map(Value::as_u64).collect::<Option<_>>()?;
        Some(Self {
            directory: plan["dir"].as_str()?.into(),
            device: DeviceArg::from_str(plan["device"].as_str()?, false).ok()?,
            seed: plan["seed"].as_u64()?,
            ack: match plan["ack"].as_str()? {
                "durable" => Some(Ack::Durable),
                "written" => Some(Ack::Written),
                "mixed" => None,
                _ => return None,
            },
            segment_bytes: plan["segment_bytes"].as_u64()?,
            next,
        })
    }
}

/// Runs the hidden command that the demo and the kill test start.
pub fn run() -> CliResult {
    let mut line = String::new();
    let mut input = std::io::stdin().lock();
    input.read_line(&mut line).map_err(|e| CliError::io("standard input", e))?;
    let plan = Plan::from_json(&line).ok_or_else(|| CliError::Refused("standard input: no plan".into()))?;
    let mut config = Config::default();
    config.set("segment_bytes", &plan.segment_bytes.to_string()).map_err(|e| CliError::Refused(e.to_string()))?;
    let place = Place::created(&plan.directory)?;
    let started = Instant::now();
    let (engine, log) = open_for_writing(&place, plan.device.into(), OpenOptions { config, ..OpenOptions::default() })?;
    tell(format_args!("open {:.3}", started.elapsed().as_secs_f64() * 1000.0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (producer, next) in plan.next.iter().enumerate() {
            let (log, stop, plan) = (&log, &stop, &plan);
            scope.spawn(move || Producer::new(log, plan, producer, *next).run(stop));
        }
        // Nothing more is said there: its end means stop, also when the other side has died.
        let _ = input.read_line(&mut line);
        stop.store(true, Ordering::Relaxed);
    });
    drop(log);
    engine.close()?;
    Ok(Outcome::Fine)
}

fn tell(line: std::fmt::Arguments<'_>) {
    let line = format!("{line}\n");
    if std::io::stdout().write_all(line.as_bytes()).is_err() {
        // Nobody listens any more.
        std::process::exit(2);
    }
}

struct Producer<'a> {
    log: &'a Log,
    plan: &'a Plan,
    producer: usize,
    ack: Ack,
    acknowledged: u64,
    next: u64,
    under_way: VecDeque<(u64, Ticket)>,
    chance: Chance,
    clock: SystemClock,
}

impl<'a> Producer<'a> {
    fn new(log: &'a Log, plan: &'a Plan, producer: usize, next: u64) -> Self {
        let ack = plan.ack.unwrap_or(if producer.is_multiple_of(2) { Ack::Written } else { Ack::Durable });
        let chance = Chance::new(plan.seed ^ next << 8 ^ producer as u64);
        let (under_way, clock) = (VecDeque::new(), SystemClock::new());
        Self { log, plan, producer, ack, acknowledged: next, next, under_way, chance, clock }
    }

    /// Appends until told to stop, with retries in between; a refusal ends it and is told.
    fn run(mut self, stop: &AtomicBool) {
        if let Err((number, error)) = self.work(stop) {
            tell(format_args!("bad {} {number} {error}", self.producer));
        }
    }

    fn work(&mut self, stop: &AtomicBool) -> Result<(), (u64, CliError)> {
        let retried = self.acknowledged.min(RETRIED_AFTER_START as u64);
        for number in self.acknowledged - retried..self.acknowledged {
            self.send_and_wait(number)?;
        }
        while !stop.load(Ordering::Relaxed) {
            while self.under_way.len() < IN_FLIGHT {
                let ticket = self.send(self.next)?;
                self.under_way.push_back((self.next, ticket));
                self.next += 1;
            }
            match self.chance.below(RETRY_EVERY) {
                // A retry of a batch that is still under way: answered when the first one is, with the same offsets.
                0 => self.send_and_wait(self.next - 1)?,
                1 => {
                    self.drain()?;
                    let back = self.chance.below(self.acknowledged.min(WINDOW as u64));
                    self.send_and_wait(self.acknowledged - 1 - back)?;
                }
                _ => self.wait_for_oldest()?,
            }
        }
        self.drain()
    }

    fn send(&self, number: u64) -> Result<Ticket, (u64, CliError)> {
        let bytes = batch(self.plan.seed, self.producer, number, self.clock.now_ms());
        let bytes = bytes.map_err(|e| (number, CliError::format("batch", e)))?;
        self.log.append(Append::client(&bytes).ack(self.ack)).map_err(|e| (number, e.into()))
    }

    /// Sends a batch that may be stored already. Those before it are answered first: the books know only an order.
    fn send_and_wait(&mut self, number: u64) -> Result<(), (u64, CliError)> {
        let ticket = self.send(number)?;
        self.drain()?;
        self.answered(number, ticket)
    }

    fn drain(&mut self) -> Result<(), (u64, CliError)> {
        while !self.under_way.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn wait_for_oldest(&mut self) -> Result<(), (u64, CliError)> {
        let Some((number, ticket)) = self.under_way.pop_front() else { return Ok(()) };
        self.answered(number, ticket)?;
        self.acknowledged = self.acknowledged.max(number + 1);
        Ok(())
    }

    fn answered(&self, number: u64, ticket: Ticket) -> Result<(), (u64, CliError)> {
        let Appended { outcome, base_offset, .. } = ticket.wait().map_err(|e| (number, e.into()))?;
        let word = match outcome {
            oncelog::Outcome::Duplicate => "dup",
            _ => "ack",
        };
        tell(format_args!("{word} {} {number} {base_offset}", self.producer));
        Ok(())
    }
}

/// A line of a writer, understood.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The log is open after so many ms.
    Open(f64),
    /// An answer for a producer's batch, with its first offset.
    Answer(usize, usize, i64, Answer),
    /// Something that must not happen.
    Bad(String),
}

impl Told {
    /// Understands a line; a torn one, the last of a killed writer, is nothing.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n')?;
        let (word, rest) = line.split_once(' ')?;
        let answer = match word {
            "open" => return Some(Self::Open(rest.parse().ok()?)),
            "bad" => return Some(Self::Bad(rest.to_owned())),
            "ack" => Answer::Appended,
            "dup" => Answer::Duplicate,
            _ => return None,
        };
        let mut numbers = rest.split(' ');
        let (producer, batch, offset) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(Self::Answer(producer.parse().ok()?, batch.parse().ok()?, offset.parse().ok()?, answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_line_is_nothing() {
        assert_eq!(Told::parse("ack 1 22 333\n"), Some(Told::Answer(1, 22, 333, Answer::Appended)));
        assert_eq!(Told::parse("ack 1 22 333"), None);
        assert_eq!(Told::parse("ack 1 2"), None);
        assert_eq!(Told::parse("open 1.5\n"), Some(Told::Open(1.5)));
    }

    #[test]
    fn a_plan_survives_its_line() {
        let plan = Plan {
            directory: "a/events-0".into(),
            device: DeviceArg::Blocking,
            seed: u64::MAX,
            ack: None,
            segment_bytes: 5,
            next: vec![1, 2],
        };
        let again = Plan::from_json(&plan.to_json().to_string()).unwrap();
        assert_eq!(again.to_json(), plan.to_json());
    }
}

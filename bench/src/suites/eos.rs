//! `eos`: what exactly-once costs: the same durable appends from no producer, from an idempotent one, and inside
//! transactions with a marker behind each hundred batches.

use oncelog::{Append, Config, Engine, EngineOptions, Log, OpenOptions, Ticket};
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;
use oncelog_formats::crc32c::crc32c;
use std::collections::VecDeque;
use std::time::Instant;

use super::Suite;
use crate::Failure;
use crate::bench::Bench;
use crate::report::Metric;

pub(super) const SUITE: Suite = Suite {
    name: "eos",
    about: "durable appends from no producer, an idempotent one, and in transactions of a hundred batches",
    systems: &[PLAIN, "oncelog-idempotent", TRANSACTIONAL],
    run,
};

const PLAIN: &str = "oncelog-plain";
const TRANSACTIONAL: &str = "oncelog-transactional";
const BATCHES_OF_TXN: u64 = 100;
const PRODUCER: i64 = 7;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    for (bytes, tickets) in [(4096, 1), (65_536, 1), (4096, 16), (65_536, 16)] {
        let case = format!("bytes={bytes} tickets={tickets}");
        let span = bench.options.span();
        bench.compare(&case, |name, turn| {
            let folder = turn.folder(8 << 30)?;
            let engine = Engine::open(folder.path(), EngineOptions::default())?;
            let config = Config { transaction_partition_verification_enable: false, ..Config::default() };
            let log = engine.log("bench-0", OpenOptions { config, ..OpenOptions::default() })?;
            let mut source = Source::new(name, bytes)?;
            source.send(&log, tickets, 200)?;
            let (started, mut done) = (Instant::now(), 0);
            while started.elapsed() < span {
                source.send(&log, tickets, BATCHES_OF_TXN)?;
                done += BATCHES_OF_TXN;
            }
            Ok(vec![(Metric::AcksPerS, done as f64 / started.elapsed().as_secs_f64())])
        })?;
    }
    Ok(())
}

struct Source {
    batch: Vec<u8>,
    transactional: bool,
    sequence: Option<i32>,
    waiting: VecDeque<Ticket>,
}

impl Source {
    fn new(system: &str, bytes: usize) -> Result<Self, Failure> {
        let (plain, transactional) = (system == PLAIN, system == TRANSACTIONAL);
        let mut builder = BatchBuilder::new();
        if !plain {
            builder = builder.producer(PRODUCER, 0, 0).transactional(transactional);
        }
        builder.append(0, None, Some(&vec![0x5a; bytes - 80]), &[]);
        let sequence = (!plain).then_some(0);
        Ok(Self { batch: builder.build()?, transactional, sequence, waiting: VecDeque::new() })
    }

    /// Batches that are all answered when it returns, with a marker behind them in a transaction.
    fn send(&mut self, log: &Log, tickets: usize, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            if let Some(sequence) = &mut self.sequence {
                self.batch[53..57].copy_from_slice(&sequence.to_be_bytes());
                *sequence += 1;
            }
            // The same work for all: what a client does for each batch.
            let crc = crc32c(&self.batch[21..]);
            self.batch[17..21].copy_from_slice(&crc.to_be_bytes());
            self.waiting.push_back(log.append(Append::client(&self.batch))?);
            if self.waiting.len() >= tickets {
                self.wait_for_one()?;
            }
        }
        if self.transactional {
            let marker = end_txn_marker_batch(0, 0, PRODUCER, 0, true, 0, 0);
            self.waiting.push_back(log.append(Append::coordinator(&marker))?);
        }
        while !self.waiting.is_empty() {
            self.wait_for_one()?;
        }
        Ok(())
    }

    fn wait_for_one(&mut self) -> Result<(), Failure> {
        if let Some(ticket) = self.waiting.pop_front() {
            ticket.wait()?;
        }
        Ok(())
    }
}

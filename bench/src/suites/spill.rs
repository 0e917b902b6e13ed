//! `spill`: more producers than memory may hold, and each comes back once.
//!
//! Every producer sends a batch; then all return, in an order without pattern, with a retry of it and half of them with
//! what comes next. Each answer is checked. Timed is the retry's way to its verdict: of those whose block had to be
//! read back, and of all where memory has no limit.

use oncelog::{Ack, Append, Config, Engine, EngineOptions, Log, OpenOptions, Outcome};
use std::path::Path;
use std::time::{Duration, Instant};

use super::Suite;
use super::recovery::{template, with};
use super::tables::shuffled;
use crate::Failure;
use crate::bench::Bench;
use crate::report::{Measured, Metric};

pub(super) const SUITE: Suite = Suite {
    name: "spill",
    about: "producers that do not fit into memory return; the bytes are the most that they took",
    systems: &[LIMITED, UNLIMITED],
    run,
};

const LIMITED: &str = "oncelog";
const UNLIMITED: &str = "oncelog-unlimited";

const MILLION: u32 = 1_000_000;
/// For each ten million producers.
const MEMORY_BYTES: i64 = 256 << 20;
/// Answers between two looks at the memory.
const LOOK_EACH: usize = 4096;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let producers = if bench.options.brief() { MILLION / 5 } else { bench.options.amount(10 * MILLION, MILLION) };
    let memory_bytes = MEMORY_BYTES / i64::from(10 * MILLION / producers);
    let case = format!("producers={producers} memory={memory_bytes}");
    bench.compare(&case, |name, turn| {
        let folder = turn.folder(u64::from(producers) * 512)?;
        let limit = if name == LIMITED { memory_bytes } else { i64::MAX };
        measure(folder.path(), producers, limit)
    })
}

fn measure(dir: &Path, producers: u32, limit: i64) -> Result<Measured, Failure> {
    let config = Config { producer_memory_bytes: limit, ..Config::default() };
    let engine = Engine::open(dir, EngineOptions::default())?;
    let log = engine.log("bench-0", OpenOptions { config, ..OpenOptions::default() })?;
    let mut most_bytes = 0;
    let mut small = template(8)?;
    for producer in 0..producers {
        let offset = send(&log, with(&mut small, producer.into(), 0), Outcome::Appended)?.1;
        check(producer, offset, producer.into())?;
        look(&log, producer as usize, &mut most_bytes);
    }
    let (mut waits, mut next_offset) = (Vec::new(), i64::from(producers));
    for (turn, producer) in shuffled(producers).into_iter().enumerate() {
        let returned = log.producer_usage().returned_blocks;
        let (wait, offset) = send(&log, with(&mut small, producer.into(), 0), Outcome::Duplicate)?;
        check(producer, offset, producer.into())?;
        if limit == i64::MAX || log.producer_usage().returned_blocks > returned {
            waits.push(wait);
        }
        if producer % 2 == 0 {
            let (_, offset) = send(&log, with(&mut small, producer.into(), 1), Outcome::Appended)?;
            check(producer, offset, next_offset)?;
            next_offset += 1;
        }
        look(&log, turn, &mut most_bytes);
    }
    if waits.len() < producers as usize / 10 {
        return Err(format!("only {} of {producers} producers were out of memory", waits.len()).into());
    }
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    Ok(vec![
        (Metric::P50Us, at(0.5)),
        (Metric::P99Us, at(0.99)),
        (Metric::P999Us, at(0.999)),
        (Metric::Bytes, most_bytes as f64),
    ])
}

/// How long until the verdict is there, and the first offset told.
fn send(log: &Log, batch: &[u8], wanted: Outcome) -> Result<(Duration, i64), Failure> {
    let began = Instant::now();
    let answer = log.append_wait(Append::client(batch).ack(Ack::Accepted))?;
    let took = began.elapsed();
    if answer.outcome != wanted {
        return Err(format!("{answer:?} instead of {wanted:?}").into());
    }
    Ok((took, answer.base_offset))
}

fn check(producer: u32, offset: i64, wanted: i64) -> Result<(), Failure> {
    if offset == wanted { Ok(()) } else { Err(format!("producer {producer} at {offset}, not {wanted}").into()) }
}

fn look(log: &Log, turn: usize, most_bytes: &mut usize) {
    if turn.is_multiple_of(LOOK_EACH) {
        *most_bytes = log.producer_usage().memory_bytes.max(*most_bytes);
    }
}

//! `snapshot`: does anyone wait while a million producers are written down, and what does a checkpoint write?
//!
//! One thread appends durably while another rolls the log each second. With few producers the snapshot at a roll is a
//! few bytes; with a million it is some hundred megabytes, read from a frozen view and written behind the appends.

use oncelog::{Ack, Append, Config, Engine, EngineOptions, Log, OpenOptions};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Suite;
use super::recovery::{template, with};
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::Bench;
use crate::report::{Measured, Metric};

pub(super) const SUITE: Suite = Suite {
    name: "snapshot",
    about: "appends while a million producers are snapshotted, a roll each second; bytes that a checkpoint writes",
    systems: &["oncelog", KAFKA, KRABKA],
    run,
};

/// Apache Kafka 4.3, an append that rolls at a million producers with five batches: median of 61-284 ms, measured in
/// process.
const KAFKA: &str = "kafka";
const KAFKA_ROLL_MS: f64 = 166.0;
/// krabka-log 1.0, the same: the lower end of 93-373 ms.
const KRABKA: &str = "krabka-log";
const KRABKA_ROLL_MS: f64 = 93.0;

const MILLION: u64 = 1_000_000;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    for producers in [1, MILLION] {
        let case = format!("producers={producers} batches=5 bytes=4096 rolls_per_s=1");
        if producers == MILLION {
            bench.quote(&case, KAFKA, Metric::Ms, KAFKA_ROLL_MS);
            bench.quote(&case, KRABKA, Metric::Ms, KRABKA_ROLL_MS);
        }
        let span = bench.options.amount(Duration::from_secs(20), Duration::from_secs(6));
        bench.compare_some(&case, ours, |_, turn| {
            let folder = turn.folder(8 << 30)?;
            while_rolling(folder.path(), producers, span)
        })?;
    }
    for (changed, what) in [(MILLION, "everything"), (MILLION / 100, "changes")] {
        let case = format!("producers={MILLION} batches=5 changed={changed} checkpoint={what}");
        bench.compare_some(&case, ours, |_, turn| {
            let folder = turn.folder(4 << 30)?;
            checkpoint_bytes(folder.path(), changed < MILLION)
        })?;
    }
    Ok(())
}

fn ours(system: &str) -> bool {
    system == "oncelog"
}

fn filled(dir: &Path, producers: u64, rounds: i32, driver: bool, config: Config) -> Result<(Engine, Log), Failure> {
    let engine = Engine::open(dir, EngineOptions { driver, ..EngineOptions::default() })?;
    let log = engine.log("bench-0", OpenOptions { config, ..OpenOptions::default() })?;
    let mut small = template(8)?;
    for round in 0..rounds {
        for producer in 0..producers {
            log.append_wait(Append::client(with(&mut small, producer, round)).ack(Ack::Accepted))?;
        }
    }
    log.sync()?;
    Ok((engine, log))
}

fn while_rolling(dir: &Path, producers: u64, span: Duration) -> Result<Measured, Failure> {
    let (engine, log) = filled(dir, producers, 5, true, Config::default())?;
    let mut source = BatchSource::new(1 << 40, 4096)?;
    let stop = AtomicBool::new(false);
    let (mut waits, mut longest_call) = (Vec::new(), Duration::ZERO);
    thread::scope(|scope| {
        let roller = scope.spawn(|| -> Result<(), oncelog::Error> {
            while !stop.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_secs(1));
                log.roll()?;
            }
            Ok(())
        });
        let started = Instant::now();
        let mut append = || -> Result<(), oncelog::Error> {
            while started.elapsed() < span {
                let began = Instant::now();
                let ticket = log.append(Append::client(source.next()))?;
                longest_call = longest_call.max(began.elapsed());
                ticket.wait()?;
                waits.push(began.elapsed());
            }
            Ok(())
        };
        let appended = append();
        stop.store(true, Ordering::Relaxed);
        let rolled = roller.join().map_err(|_panic| "the roller panicked")?;
        appended.and(rolled).map_err(Failure::from)
    })?;
    drop(engine);
    waits.sort_unstable();
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let longest = longest_call.as_secs_f64() * 1e3;
    Ok(vec![(Metric::P50Us, at(0.5)), (Metric::P99Us, at(0.99)), (Metric::P999Us, at(0.999)), (Metric::Ms, longest)])
}

/// Bytes of the checkpoint files written after every producer or one of a hundred was changed.
fn checkpoint_bytes(dir: &Path, changes: bool) -> Result<Measured, Failure> {
    // A budget that lets each step of the upkeep write one.
    let config = Config { recovery_budget_ms: 1, ..Config::default() };
    let (_engine, log) = filled(dir, MILLION, 5, false, config)?;
    log.drive()?;
    let before = checkpoint_files(&dir.join("bench-0"))?;
    let mut small = template(8)?;
    if changes {
        for turn in 0..MILLION / 100 {
            let producer = super::tables::scatter(turn) % MILLION;
            // Some are met twice: those are duplicates then, and change nothing.
            log.append_wait(Append::client(with(&mut small, producer, 5)).ack(Ack::Accepted))?;
        }
    }
    let started = Instant::now();
    log.drive()?;
    let took = started.elapsed().as_secs_f64() * 1e3;
    let after = checkpoint_files(&dir.join("bench-0"))?;
    Ok(vec![(Metric::Bytes, if changes { after - before } else { before } as f64), (Metric::Ms, took)])
}

fn checkpoint_files(log: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    for entry in fs::read_dir(log)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".checkpoint-oncelog") {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

//! `transactions`: what aborted transactions cost a committed reader, what an atomic batch costs beside an append, and
//! what markers cost everyone else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use oncelog::{Ack, Append, Config, Engine, EngineOptions, Isolation, Log, OpenOptions, Read};
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;

use super::Suite;
use crate::Failure;
use crate::bench::{Bench, Turn};
use crate::clients::quantile_us;
use crate::place::Folder;
use crate::report::{Measured, Metric};

pub(super) const SUITE: Suite = Suite {
    name: "transactions",
    about: "committed reads over aborted transactions, atomic batches, markers beside other producers",
    systems: &[UNCOMMITTED, COMMITTED, WITHOUT_LIST, KAFKA, APPEND, BATCH, ALONE, MARKERS, MARKER, DATA],
    run,
};

const UNCOMMITTED: &str = "oncelog-uncommitted";
const COMMITTED: &str = "oncelog-committed";
const WITHOUT_LIST: &str = "oncelog-committed-only";
/// Apache Kafka's committed read scans its index anew for each fetch: best seen on the machine of
/// `docs/performance.md`.
const KAFKA: &str = "kafka-committed";
const KAFKA_MB_PER_S: f64 = 29.0;
const APPEND: &str = "oncelog-append";
const BATCH: &str = "oncelog-atomic-batch";
const ALONE: &str = "oncelog-no-markers";
const MARKERS: &str = "oncelog-markers";
const MARKER: &str = "oncelog-marker";
const DATA: &str = "oncelog-data";

/// Producers that take turns in aborting.
const PRODUCERS: i64 = 50;
const READ_BYTES: usize = 1 << 20;
/// Records of other producers beside markers are this long.
const BESIDE_BYTES: usize = 1024;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    reads(bench)?;
    batches(bench)?;
    markers_beside(bench)?;
    marker_alone(bench)
}

fn reads(bench: &mut Bench) -> Result<(), Failure> {
    let transactions: i64 = 100_000;
    for record_bytes in [2000, 100] {
        let case = format!("aborted={transactions} bytes={record_bytes} max_bytes={READ_BYTES}");
        if record_bytes == 2000 {
            bench.quote(&case, KAFKA, Metric::MbPerS, KAFKA_MB_PER_S);
        }
        let takes_part = |system: &str| [UNCOMMITTED, COMMITTED, WITHOUT_LIST].contains(&system);
        bench.compare_some(&case, takes_part, |name, turn| {
            let folder = turn.folder(1 << 30)?;
            let engine = open_engine(&folder)?;
            let log = engine.log("aborted-0", unverified())?;
            abort_many(&log, transactions, record_bytes)?;
            folder.settle()?;
            let mut rates = Vec::new();
            let until = Instant::now() + turn.options.span();
            while rates.is_empty() || Instant::now() < until {
                let started = Instant::now();
                let bytes = read_all(&log, name)?;
                rates.push(bytes as f64 / 1e6 / started.elapsed().as_secs_f64());
            }
            rates.sort_by(f64::total_cmp);
            engine.close()?;
            Ok(vec![(Metric::MbPerS, rates[rates.len() / 2])])
        })?;
    }
    Ok(())
}

fn read_all(log: &Log, name: &str) -> Result<u64, Failure> {
    let (mut offset, end, mut bytes) = (0, log.high_watermark(), 0);
    while offset < end {
        if name == WITHOUT_LIST {
            let read = log.read_committed(offset, READ_BYTES)?;
            bytes += read.read_bytes() as u64;
            offset = read.next_offset();
            continue;
        }
        let isolation = if name == COMMITTED { Isolation::Committed } else { Isolation::Uncommitted };
        let fetched = log.read(Read { max_bytes: READ_BYTES, isolation, ..Read::from(offset) })?;
        if name == COMMITTED && fetched.aborted.is_empty() {
            return Err("a read over aborted transactions came without their list".into());
        }
        bytes += fetched.data.len() as u64;
        offset = last_offset(&fetched.data)? + 1;
    }
    Ok(bytes)
}

/// Offset of the last record, by the batches' lengths alone.
fn last_offset(data: &[u8]) -> Result<i64, Failure> {
    let mut at = 0;
    let mut last = -1;
    while at < data.len() {
        let header = oncelog_formats::BatchHeader::parse(&data[at..])?;
        last = header.last_offset();
        at += header.size_bytes();
    }
    Ok(last)
}

fn abort_many(log: &Log, transactions: i64, record_bytes: usize) -> Result<(), Failure> {
    let value = vec![1; record_bytes];
    for number in 0..transactions {
        let producer = number % PRODUCERS;
        let mut builder = BatchBuilder::new().producer(producer, 0, (number / PRODUCERS) as i32).transactional(true);
        builder.append(0, None, Some(&value), &[]);
        let _ordered = log.append(Append::client(&builder.build()?).ack(Ack::Accepted))?;
        let marker = end_txn_marker_batch(0, 0, producer, 0, false, 0, 0);
        let _ordered = log.append(Append::coordinator(&marker).ack(Ack::Accepted))?;
    }
    log.sync()?;
    Ok(())
}

fn batches(bench: &mut Bench) -> Result<(), Failure> {
    const LOGS: usize = 4;
    for record_bytes in [1024, 16384] {
        let case = format!("logs={LOGS} bytes={record_bytes} writers=1");
        let takes_part = |system: &str| [APPEND, BATCH].contains(&system);
        bench.compare_some(&case, takes_part, |name, turn| {
            let folder = turn.folder(1 << 30)?;
            let engine = open_engine(&folder)?;
            let names: Vec<String> = (0..LOGS).map(|number| format!("part-{number}")).collect();
            let logs: Vec<Log> = names.iter().map(|name| engine.log(name, unverified())).collect::<Result<_, _>>()?;
            let value = vec![1; record_bytes];
            let records = || {
                let mut builder = BatchBuilder::new();
                builder.append(0, None, Some(&value), &[]);
                builder
            };
            let mut sequence = 0;
            let waits = waits(turn, || {
                if name == BATCH {
                    let mut batch = engine.begin()?;
                    for log in &logs {
                        batch.append(log, records())?;
                    }
                    return Ok(batch.commit()?);
                }
                let bytes = records().producer(1, 0, sequence).build()?;
                sequence += 1;
                logs[0].append_wait(Append::client(&bytes))?;
                Ok(())
            })?;
            engine.close()?;
            Ok(latencies(&waits))
        })?;
    }
    Ok(())
}

/// Other producers' answers while one producer ends transaction after transaction as fast as it can.
fn markers_beside(bench: &mut Bench) -> Result<(), Failure> {
    const WRITERS: i64 = 4;
    let case = format!("bytes={BESIDE_BYTES} writers={WRITERS} beside=1");
    let takes_part = |system: &str| [ALONE, MARKERS].contains(&system);
    bench.compare_some(&case, takes_part, |name, turn| {
        let folder = turn.folder(2 << 30)?;
        let engine = open_engine(&folder)?;
        let log = engine.log("shared-0", unverified())?;
        let stop = AtomicBool::new(false);
        let answers = std::thread::scope(|scope| {
            // The same load from the one beside, with markers or without.
            let beside = scope.spawn(|| beside(&log, name == MARKERS, &stop));
            let write = |id| write(&log, turn, id);
            let writers: Vec<_> = (0..WRITERS).map(|id| scope.spawn(move || write(id))).collect();
            let answers: Result<Vec<Vec<Duration>>, Failure> =
                writers.into_iter().map(|writer| writer.join().map_err(|_| "a writer panicked")?).collect();
            stop.store(true, Ordering::Relaxed);
            beside.join().map_err(|_| "the one beside panicked")??;
            answers
        })?;
        engine.close()?;
        let mut waits: Vec<Duration> = answers.into_iter().flatten().collect();
        waits.sort_unstable();
        Ok(latencies(&waits))
    })
}

fn write(log: &Log, turn: &Turn<'_>, id: i64) -> Result<Vec<Duration>, Failure> {
    let value = vec![1; BESIDE_BYTES];
    let mut sequence = 0;
    waits(turn, || {
        let mut builder = BatchBuilder::new().producer(id, 0, sequence);
        sequence += 1;
        builder.append(0, None, Some(&value), &[]);
        log.append_wait(Append::client(&builder.build()?))?;
        Ok(())
    })
}

/// A batch and then a marker, or two batches, durable both, over and over.
fn beside(log: &Log, markers: bool, stop: &AtomicBool) -> Result<(), Failure> {
    let value = vec![1; BESIDE_BYTES];
    let id = 1_000;
    let mut sequence = 0;
    while !stop.load(Ordering::Relaxed) {
        for turn in 0..2 {
            if markers && turn == 1 {
                let marker = end_txn_marker_batch(0, 0, id, 0, sequence % 2 == 0, 0, 0);
                log.append_wait(Append::coordinator(&marker))?;
                continue;
            }
            let mut builder = BatchBuilder::new().producer(id, 0, sequence).transactional(markers);
            sequence += 1;
            builder.append(0, None, Some(&value), &[]);
            log.append_wait(Append::client(&builder.build()?))?;
        }
    }
    Ok(())
}

/// One durable marker beside one durable batch of the same size: a marker costs no sync of its own.
fn marker_alone(bench: &mut Bench) -> Result<(), Failure> {
    let case = "bytes=78 writers=1";
    bench.compare_some(
        case,
        |system| [MARKER, DATA].contains(&system),
        |name, turn| {
            let folder = turn.folder(1 << 30)?;
            let engine = open_engine(&folder)?;
            let log = engine.log("single-0", unverified())?;
            let mut sequence = 0;
            let waits = waits(turn, || {
                let marker = end_txn_marker_batch(0, 0, 1, 0, true, 0, 0);
                let mut builder = BatchBuilder::new().producer(1, 0, sequence).transactional(name == MARKER);
                builder.append(0, None, Some(&[1; 9]), &[]);
                let data = builder.build()?;
                sequence += 1;
                if name == MARKER {
                    // The transaction that it ends goes to the disk with it.
                    let _ordered = log.append(Append::client(&data).ack(Ack::Accepted))?;
                    log.append_wait(Append::coordinator(&marker))?;
                } else {
                    log.append_wait(Append::client(&data))?;
                }
                Ok(())
            })?;
            engine.close()?;
            Ok(latencies(&waits))
        },
    )
}

/// How long each of `step` took within the measured span, sorted; a quarter more in front does not count.
fn waits(turn: &Turn<'_>, mut step: impl FnMut() -> Result<(), Failure>) -> Result<Vec<Duration>, Failure> {
    let (warm, span) = (turn.options.span() / 4, turn.options.span());
    let mut waits = Vec::with_capacity(1 << 16);
    let began = Instant::now();
    while began.elapsed() < warm + span {
        let sent = Instant::now();
        step()?;
        if began.elapsed() >= warm {
            waits.push(sent.elapsed());
        }
    }
    if waits.is_empty() {
        return Err("nothing was answered in time".into());
    }
    waits.sort_unstable();
    Ok(waits)
}

fn latencies(waits: &[Duration]) -> Measured {
    vec![(Metric::P50Us, quantile_us(waits, 0.5)), (Metric::P99Us, quantile_us(waits, 0.99))]
}

fn open_engine(folder: &Folder) -> Result<Engine, Failure> {
    Ok(Engine::open(folder.path(), EngineOptions::default())?)
}

fn unverified() -> OpenOptions {
    let config = Config { transaction_partition_verification_enable: false, ..Config::default() };
    OpenOptions { config, ..OpenOptions::default() }
}

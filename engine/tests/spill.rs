//! Producers beyond the memory that they may have stand in a file, and nobody is forgotten for it.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};

use common::{Place, copy_tree, put_as, single, small_segments};
use oncelog::{Ack, Append, Config, Engine, Log, Outcome};
use oncelog_device::MemoryDevice;

const PRODUCERS: i64 = 10_000;
const FILE: &str = "producers.spill-oncelog";

fn with_memory(bytes: i64) -> Config {
    Config { producer_memory_bytes: bytes, producer_id_expiration_ms: 60_000, ..small_segments(1 << 20) }
}

fn metric(engine: &Engine, name: &str) -> u64 {
    let text = engine.metrics_text();
    let line = text.lines().find(|line| line.starts_with(&format!("{name}{{"))).expect("a metric of the one log");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

/// Batch `sequence` of every producer.
fn fill(log: &Log, sequence: i32) {
    for producer in 0..PRODUCERS {
        put_as(log, &single(producer, sequence, 10), Ack::Accepted);
    }
    log.sync().expect("a sync");
}

/// Steps until nothing more goes.
fn spill(engine: &Engine, log: &Log) -> u64 {
    for _ in 0..3 {
        log.drive().expect("a step");
    }
    metric(engine, "oncelog_producer_blocks_spilled")
}

/// A retry is answered with its first offset.
fn is_known(log: &Log, producer: i64, sequence: i32) {
    let again = put_as(log, &single(producer, sequence, 10), Ack::Accepted);
    let first = i64::from(sequence) * PRODUCERS + producer;
    assert_eq!((again.outcome, again.base_offset), (Outcome::Duplicate, first), "{producer}");
}

/// Every producer is known exactly: a retry of each batch, a gap, what comes next.
fn answers_are_right(log: &Log, next: i32) {
    for producer in 0..PRODUCERS {
        for sequence in 0..next {
            is_known(log, producer, sequence);
        }
        let gap = single(producer, next + 1, 10);
        let refused = log.append(Append::client(&gap)).expect_err("a gap");
        assert_eq!(refused.kafka_name(), "OUT_OF_ORDER_SEQUENCE_NUMBER");
    }
}

#[test]
fn whoever_returns_is_answered_exactly() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&with_memory(300_000));
    fill(&log, 0);
    fill(&log, 1);
    assert!(spill(&engine, &log) > 50, "of 157 blocks");
    assert!(metric(&engine, "oncelog_producer_bytes") <= 300_000);
    answers_are_right(&log, 2);
    assert!(metric(&engine, "oncelog_producer_blocks_returned_total") > 50);
    assert!(spill(&engine, &log) > 50);
    fill(&log, 2);
    spill(&engine, &log);
    let digest = log.describe().expect("a description").digest;
    let plain_place = Place::on_disk();
    let (_plain_engine, plain) = plain_place.open(&with_memory(i64::MAX));
    (0..3).for_each(|round| fill(&plain, round));
    assert_eq!(digest, plain.describe().expect("a description").digest);
    engine.close().expect("a clean close");
    assert!(!place.file(FILE).exists());
    let (_engine, log) = place.open(&with_memory(300_000));
    answers_are_right(&log, 3);
}

#[test]
fn snapshots_and_checkpoints_say_what_is_out_of_memory_too() {
    let place = Place::on_disk();
    let config = Config { recovery_budget_ms: 1, ..with_memory(200_000) };
    let (engine, log) = place.open(&config);
    fill(&log, 0);
    assert!(spill(&engine, &log) > 50);
    log.roll().expect("a roll with its snapshot");
    fill(&log, 1);
    assert!(spill(&engine, &log) > 50);
    let brought_back = metric(&engine, "oncelog_producer_blocks_returned_total");
    log.snapshot().expect("a snapshot");
    log.drive().expect("a checkpoint");
    assert_eq!(metric(&engine, "oncelog_producer_blocks_returned_total"), brought_back, "nothing needs to come back");
    assert!(place.file(FILE).exists());
    // As a kill leaves it.
    let left = Place::on_disk();
    copy_tree(&place.dir, &left.dir);
    assert!(left.file(FILE).exists());
    let (_engine, log) = left.open(&config);
    assert!(!left.file(FILE).exists(), "what a life before left is gone");
    answers_are_right(&log, 2);
    drop((log, engine));
}

/// All of the file is gone, or one bit of each block's lines is another.
#[test]
fn what_cannot_be_read_is_not_taken_for_unknown() {
    for damage in [|bytes: &mut [u8]| bytes.fill(0), |bytes: &mut [u8]| bytes[100] ^= 4] {
        let place = Place::on_disk();
        let (engine, log) = place.open(&with_memory(100_000));
        fill(&log, 0);
        assert!(spill(&engine, &log) > 100);
        let mut bytes = std::fs::read(place.file(FILE)).expect("the file");
        bytes.chunks_mut(4096).for_each(damage);
        std::fs::write(place.file(FILE), bytes).expect("damage");
        let mut damaged = 0;
        for producer in 0..PRODUCERS {
            let retry = single(producer, 0, 10);
            match log.append(Append::client(&retry)) {
                Ok(_) => is_known(&log, producer, 0),
                Err(error) => {
                    assert!(error.is_corruption(), "{error}");
                    damaged += 1;
                }
            }
        }
        assert!(damaged > PRODUCERS / 2, "{damaged}");
        let new = single(PRODUCERS, 0, 10);
        assert!(log.append(Append::client(&new)).expect_err("the log is read-only").is_corruption());
        drop((log, engine));
        let (_engine, log) = place.open(&with_memory(i64::MAX));
        answers_are_right(&log, 1);
    }
}

#[test]
fn a_sweep_forgets_those_out_of_memory_in_small_steps() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&with_memory(100_000));
    fill(&log, 0);
    spill(&engine, &log);
    assert_eq!(log.sweep_producers().expect("a step"), []);
    place.clock.advance(59_999);
    let late = single(77, 1, 10);
    put_as(&log, &late, Ack::Written);
    place.clock.advance(1);
    let mut forgotten = Vec::new();
    for _ in 0..1000 {
        let step = log.sweep_producers().expect("a step");
        assert!(step.len() < 200, "{}", step.len());
        forgotten.extend(step);
    }
    forgotten.sort_unstable();
    assert!(forgotten.into_iter().eq((0..PRODUCERS).filter(|producer| *producer != 77)));
    assert_eq!(metric(&engine, "oncelog_producers"), 1);
    assert_eq!(metric(&engine, "oncelog_producers_expired_total"), PRODUCERS as u64 - 1);
}

/// Threads that bring the same producers back at once, views that read on while places become free, and all of it going
/// out of memory again at once.
#[test]
fn nobody_reads_what_has_come_to_stand_in_his_place() {
    let place = Place::in_memory(&MemoryDevice::new());
    let config = Config { producer_id_expiration_ms: i64::MAX, ..with_memory(1) };
    let (_engine, log) = place.open(&config);
    fill(&log, 0);
    fill(&log, 1);
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let workers = [0, 0, 5_000].map(|first| {
            let log = &log;
            threads.spawn(move || {
                for turn in 0..20_000 {
                    let producer = (first + turn * 67) % PRODUCERS;
                    is_known(log, producer, 1);
                }
            })
        });
        threads.spawn(|| {
            for newcomer in PRODUCERS.. {
                put_as(&log, &single(newcomer, 0, 10), Ack::Accepted);
                log.snapshot().expect("a snapshot of another offset");
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        threads.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                place.clock.advance(1_000);
                log.drive().expect("a step");
            }
        });
        let ended = workers.map(|worker| worker.join());
        over.store(true, Ordering::Relaxed);
        for ended in ended {
            ended.expect("all answers were right");
        }
    });
    assert!(log.report().repaired.is_empty());
    answers_are_right(&log, 2);
}

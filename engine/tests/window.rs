//! Five batches of a producer are remembered, each retry gets its first offsets, whatever lies between.
//!
//! Kafka keeps one of the five through a restart (its `.snapshot` has room for the newest only): a retry of one of the
//! other four would be refused there as out of order, or stored twice once the producer has been forgotten.

mod common;

use common::{Place, expect_duplicate, put, read_all, single, small_segments, value};
use oncelog::{Appended, Config, Engine, Log};
use oncelog_device::MemoryDevice;

const PRODUCERS: [i64; 3] = [5, 6, 4_000];

fn config() -> Config {
    small_segments(4000)
}

/// Nine batches of each producer by turns, of one to three records; answers the last five of each.
fn fill(log: &Log) -> Vec<(Vec<u8>, Appended)> {
    let mut sent = Vec::new();
    let mut sequence = 0;
    for round in 0..9 {
        let records = 1 + round % 3;
        for producer in PRODUCERS {
            let values: Vec<String> = (0..records).map(|i| value(producer, sequence + i, 60)).collect();
            let bytes = common::batch(producer, sequence, &values);
            let answer = put(log, &bytes);
            sent.push((bytes, answer));
        }
        sequence += records;
    }
    sent.split_off(sent.len() - 5 * PRODUCERS.len())
}

/// Oldest first, newest first, twice: a retry changes nothing about the next one.
#[track_caller]
fn all_are_remembered(log: &Log, sent: &[(Vec<u8>, Appended)]) {
    let end = log.log_end_offset();
    for (bytes, first) in sent.iter().chain(sent.iter().rev()) {
        expect_duplicate(log, bytes, first);
    }
    assert_eq!(log.log_end_offset(), end, "nothing was stored");
    for producer in PRODUCERS {
        assert_eq!(log.producer(producer).expect("known").batches().len(), 5);
    }
}

fn story(place: &Place, between: impl Fn(Engine, Log) -> Option<Engine>) {
    let (engine, log) = place.open(&config());
    let sent = fill(&log);
    all_are_remembered(&log, &sent);
    let records = read_all(&log);
    drop(between(engine, log).map(Engine::close));
    let (engine, log) = place.open(&config());
    all_are_remembered(&log, &sent);
    let left = read_all(&log);
    assert!(records.ends_with(&left), "what is left is the end of what was there");
    engine.close().expect("a clean close");
    all_are_remembered(&place.open(&config()).1, &sent);
}

#[test]
fn five_batches_survive_a_clean_restart() {
    story(&Place::on_disk(), |engine, _| {
        engine.close().expect("a clean close");
        None
    });
}

#[test]
fn five_batches_survive_a_kill() {
    story(&Place::on_disk(), |engine, _| {
        engine.kill();
        None
    });
}

#[test]
fn five_batches_survive_a_power_cut() {
    for seed in 0..30 {
        let device = MemoryDevice::new();
        story(&Place::in_memory(&device), |engine, _| {
            engine.kill();
            device.power_cut(seed);
            None
        });
    }
}

#[test]
fn five_batches_survive_rolls() {
    story(&Place::on_disk(), |engine, log| {
        log.roll().expect("a roll");
        log.roll().expect("nothing to roll");
        engine.kill();
        None
    });
}

/// The log holds no record any more, and no batch to take the producers from: only snapshots know them.
fn empty_it(log: &Log) {
    log.delete_records(-1).expect("all records go");
    assert!(!log.apply_retention().expect("retention").is_empty());
    assert_eq!(read_all(log), [], "the log is empty");
}

#[test]
fn five_batches_survive_an_emptied_log_and_a_clean_restart() {
    story(&Place::on_disk(), |engine, log| {
        empty_it(&log);
        Some(engine)
    });
}

#[test]
fn five_batches_survive_an_emptied_log_and_a_kill() {
    story(&Place::on_disk(), |engine, log| {
        empty_it(&log);
        engine.kill();
        None
    });
}

#[test]
fn five_batches_survive_an_emptied_log_and_a_power_cut() {
    for seed in 0..30 {
        let device = MemoryDevice::new();
        story(&Place::in_memory(&device), |engine, log| {
            empty_it(&log);
            engine.kill();
            device.power_cut(seed);
            None
        });
    }
}

#[test]
fn retention_by_size_forgets_no_batch() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&config());
    let sent = fill(&log);
    let tight = Config { retention_bytes: 0, ..config() };
    log.configure(tight.clone()).expect("configured");
    log.apply_retention().expect("retention");
    all_are_remembered(&log, &sent);
    engine.kill();
    all_are_remembered(&place.open(&tight).1, &sent);
}

#[test]
fn what_is_left_of_the_window_survives_a_truncation() {
    for crash in [true, false] {
        let place = Place::on_disk();
        let (engine, log) = place.open(&config());
        let sent = fill(&log);
        // The newest batch of each producer goes, the four before it stay.
        let (kept, cut) = sent.split_at(sent.len() - PRODUCERS.len());
        log.truncate_to(cut[0].1.base_offset).expect("truncated");
        for (bytes, first) in kept {
            expect_duplicate(&log, bytes, first);
        }
        if crash {
            engine.kill();
        } else {
            engine.close().expect("a clean close");
        }
        let (_engine, log) = place.open(&config());
        for (bytes, first) in kept {
            expect_duplicate(&log, bytes, first);
        }
        for (bytes, first) in cut {
            let again = put(&log, bytes);
            assert_eq!((again.outcome, again.base_offset), (oncelog::Outcome::Appended, first.base_offset));
        }
        all_are_remembered(&log, &sent);
    }
}

#[test]
fn the_sixth_batch_back_is_out_of_order() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&config());
    for sequence in 0..6 {
        put(&log, &single(5, sequence, 10));
    }
    let error = log.append(oncelog::Append::client(&single(5, 0, 10))).map(|_| ()).expect_err("no longer remembered");
    assert!(matches!(error.kafka_name(), "OUT_OF_ORDER_SEQUENCE_NUMBER" | "DUPLICATE_SEQUENCE_NUMBER"), "{error}");
}

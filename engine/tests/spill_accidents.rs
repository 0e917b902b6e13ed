//! What may happen while producers go out of memory and come back: the power goes between any two steps, a write or a
//! read fails, once or for long, a write is lost or goes elsewhere, a life before has left its file. Nobody is taken
//! for unknown, and nobody is answered with what he was before.
#![allow(missing_docs)]

mod common;

use common::{Place, put_as, single, small_segments};
use oncelog::{Ack, Append, Config, Engine, Log, Outcome};
use oncelog_device::{FaultOp, MemoryDevice};
use std::collections::BTreeMap;

const PRODUCERS: i64 = 1_000;
/// For a third of them.
const MEMORY_BYTES: i64 = 16_000;
const FILE: &str = "producers.spill-oncelog";

fn config() -> Config {
    Config { producer_memory_bytes: MEMORY_BYTES, recovery_budget_ms: 1, ..small_segments(1 << 20) }
}

/// Where each producer's batches are, by sequence.
type Stored = BTreeMap<(i64, i32), i64>;

/// A log whose producers have stored batches `from..to`, durably.
fn fill(log: &Log, rounds: std::ops::Range<i32>, stored: &mut Stored) {
    for sequence in rounds {
        for producer in 0..PRODUCERS {
            let answer = put_as(log, &single(producer, sequence, 10), Ack::Accepted);
            stored.insert((producer, sequence), answer.base_offset);
        }
    }
    log.sync().expect("a sync");
}

/// A log whose producers are all in memory, about to spill.
fn about_to_spill(device: &MemoryDevice) -> (Place, Engine, Log, Stored) {
    let place = Place::in_memory(device);
    let limited = Config { recovery_budget_ms: 1 << 30, ..config() };
    let (engine, log) = place.open(&Config { producer_memory_bytes: i64::MAX, ..limited.clone() });
    let mut stored = Stored::new();
    fill(&log, 0..2, &mut stored);
    assert_eq!(spill(&engine, &log), 0);
    log.configure(limited).expect("settings");
    (place, engine, log, stored)
}

fn spilled(engine: &Engine) -> u64 {
    let text = engine.metrics_text();
    let line = text.lines().find(|line| line.starts_with("oncelog_producer_blocks_spilled{")).expect("one log");
    line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number")
}

fn spill(engine: &Engine, log: &Log) -> u64 {
    (0..3).for_each(|_| log.drive().expect("a step"));
    spilled(engine)
}

/// Every batch that was stored is a duplicate at its place, the five of a producer at most.
fn all_is_known(log: &Log, stored: &Stored, what: &str) {
    for (&(producer, sequence), &offset) in stored {
        let again = put_as(log, &single(producer, sequence, 10), Ack::Accepted);
        assert_eq!((again.outcome, again.base_offset), (Outcome::Duplicate, offset), "{what}: {producer}/{sequence}");
    }
}

/// Retries and appends of all producers, in an order without pattern, with the upkeep in between, until something
/// fails. What was answered is entered; whether all of it went well.
fn live(log: &Log, sequence: i32, stored: &mut Stored) -> bool {
    for turn in 0..PRODUCERS {
        let producer = turn * 617 % PRODUCERS;
        let known = (producer, turn as i32 % sequence);
        let Ok(again) = log.append_wait(Append::client(&single(producer, known.1, 10)).ack(Ack::Written)) else {
            return false;
        };
        assert_eq!((again.outcome, again.base_offset), (Outcome::Duplicate, stored[&known]), "{known:?}");
        let ack = if turn % 40 == 0 { Ack::Durable } else { Ack::Written };
        match log.append_wait(Append::client(&single(producer, sequence, 10)).ack(ack)) {
            Ok(answer) if ack == Ack::Durable => {
                // Everything before it is durable too.
                stored.insert((producer, sequence), answer.base_offset);
            }
            Ok(_) => {}
            Err(_) => return false,
        }
        if turn % 50 == 49 && log.drive().is_err() {
            return false;
        }
    }
    true
}

#[test]
fn the_power_goes_between_any_two_steps() {
    let (mut crash_at, mut step, mut with_file, mut crashes) = (0, 1, 0, 0);
    loop {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let (engine, log) = place.open(&config());
        let mut stored = Stored::new();
        fill(&log, 0..2, &mut stored);
        device.crash_after(crash_at);
        let done = live(&log, 2, &mut stored);
        with_file += usize::from(device.contents(&place.file(FILE)).expect("a look").is_some());
        engine.kill();
        drop(log);
        if crash_at % 2 == 0 {
            device.power_cut(crash_at)
        } else {
            device.kill()
        }
        let (engine, log) = place.open(&config());
        assert_eq!(device.contents(&place.file(FILE)).expect("a look"), None, "a life before means nothing");
        all_is_known(&log, &stored, &format!("crash at {crash_at}"));
        assert!(spill(&engine, &log) > 0, "crash at {crash_at}: it goes on");
        all_is_known(&log, &stored, &format!("spilled again behind a crash at {crash_at}"));
        if done {
            break;
        }
        (crash_at, step, crashes) = (crash_at + step, step + crashes / 12, crashes + 1);
    }
    assert!(crashes > 40 && with_file > 30, "{crashes} crashes, {with_file} with blocks out of memory");
}

/// As on a disk without space: growing the file takes none, so that each write is refused.
#[test]
fn while_nothing_can_be_written_it_costs_memory() {
    let device = MemoryDevice::new();
    let (place, engine, log, mut stored) = about_to_spill(&device);
    device.plant(FaultOp::Write, 0, u64::MAX);
    assert_eq!(spill(&engine, &log), 0);
    assert!(log.producer_usage().memory_bytes > MEMORY_BYTES as usize);
    all_is_known(&log, &stored, "no space");
    let answer = put_as(&log, &single(3, 2, 10), Ack::Accepted);
    stored.insert((3, 2), answer.base_offset);
    assert_eq!(device.faults_struck(), 1, "it is not tried again at once");
    place.clock.advance(5_000);
    put_as(&log, &single(4, 2, 10), Ack::Accepted);
    assert_eq!(device.faults_struck(), 2, "but later");
    device.clear_faults();
    place.clock.advance(5_000);
    assert!(spill(&engine, &log) > 0);
    assert!(log.producer_usage().memory_bytes <= MEMORY_BYTES as usize);
    all_is_known(&log, &stored, "space again");
    engine.close().expect("a clean close");
}

#[test]
fn a_failed_write_leaves_the_producers_where_they_are() {
    for after in 0..12 {
        let device = MemoryDevice::new();
        let (place, engine, log, mut stored) = about_to_spill(&device);
        device.plant(FaultOp::Write, after, 1);
        let gone = spill(&engine, &log);
        assert_eq!(device.faults_struck(), 1, "{after}");
        assert!(gone <= after, "only what was written went, {gone} after {after}");
        all_is_known(&log, &stored, "a write failed");
        place.clock.advance(5_000);
        assert!(spill(&engine, &log) > 0, "{after}");
        fill(&log, 2..3, &mut stored);
        all_is_known(&log, &stored, "and later ones did not");
        engine.close().expect("a clean close");
    }
}

#[test]
fn a_failed_read_is_answered_and_may_be_tried_again() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, log) = place.open(&config());
    let mut stored = Stored::new();
    fill(&log, 0..2, &mut stored);
    assert!(spill(&engine, &log) > 0);
    let mut failed = 0;
    for producer in 0..PRODUCERS {
        device.plant(FaultOp::Read, 0, 1);
        let retry = single(producer, 1, 10);
        if let Err(error) = log.append_wait(Append::client(&retry).ack(Ack::Accepted)) {
            assert!(!error.is_corruption() && error.kafka_name() == "KAFKA_STORAGE_ERROR", "{error}");
            failed += 1;
        }
        device.clear_faults();
        let again = put_as(&log, &retry, Ack::Accepted);
        assert_eq!((again.outcome, again.base_offset), (Outcome::Duplicate, stored[&(producer, 1)]));
    }
    assert!(failed > 5, "{failed}");
    engine.close().expect("a clean close");
}

/// A disk that lies: each producer is answered right, or its block is found to be wrong. Another life knows all.
#[test]
fn a_write_that_was_lost_or_went_elsewhere_is_noticed() {
    for lie in [FaultOp::LostWrite, FaultOp::MisdirectedWrite] {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let (engine, log) = place.open(&Config { recovery_budget_ms: 1 << 30, ..config() });
        let mut stored = Stored::new();
        fill(&log, 0..2, &mut stored);
        assert!(spill(&engine, &log) > 0);
        // Back, changed, and out again: to places where others stood, or they themselves as they were.
        all_is_known(&log, &stored, "back");
        fill(&log, 2..3, &mut stored);
        device.plant(lie, 0, 1000);
        assert!(spill(&engine, &log) > 0);
        device.clear_faults();
        let mut noticed = 0;
        for producer in 0..PRODUCERS {
            match log.append_wait(Append::client(&single(producer, 2, 10)).ack(Ack::Accepted)) {
                Ok(again) => {
                    let place = (again.outcome, again.base_offset);
                    assert_eq!(place, (Outcome::Duplicate, stored[&(producer, 2)]), "{lie:?}: {producer}");
                }
                Err(error) => {
                    assert!(error.is_corruption(), "{error}");
                    noticed += 1;
                }
            }
        }
        assert!(noticed > 100, "{lie:?}: {noticed}");
        engine.kill();
        drop(log);
        device.kill();
        let (_engine, log) = place.open(&config());
        all_is_known(&log, &stored, "another life");
    }
}

/// One block, whose place is free again each time it goes.
#[test]
fn a_lost_write_does_not_bring_back_what_was() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, log) = place.open(&Config { producer_memory_bytes: 1, recovery_budget_ms: 1 << 30, ..config() });
    let answers = |sequence: i32| -> Vec<_> {
        let append = |producer| log.append_wait(Append::client(&single(producer, sequence, 10)).ack(Ack::Accepted));
        (0..64).map(append).collect()
    };
    (0..4).for_each(|sequence| drop(answers(sequence)));
    place.clock.advance(5_000);
    assert_eq!(spill(&engine, &log), 1);
    assert!(answers(4).iter().all(Result::is_ok), "back, and changed");
    place.clock.advance(5_000);
    device.plant(FaultOp::LostWrite, 0, 1000);
    assert_eq!(spill(&engine, &log), 1);
    device.clear_faults();
    for answer in answers(4) {
        let error = answer.expect_err("what the block was before cannot tell that this is stored");
        assert!(error.is_corruption(), "{error}");
    }
}

#[test]
fn what_a_life_before_has_left_is_not_looked_at() {
    let noise: Vec<u8> = (0..300_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for left in [&noise[..], &noise[..4097], &[]] {
        let place = Place::on_disk();
        let (engine, log) = place.open(&config());
        let mut stored = Stored::new();
        fill(&log, 0..2, &mut stored);
        assert!(spill(&engine, &log) > 0);
        engine.kill();
        drop(log);
        // Torn, as a kill in the middle of a write may leave it, or of somebody else.
        let mut torn = std::fs::read(place.file(FILE)).expect("the file");
        let length = torn.len().min(left.len());
        torn[..length].copy_from_slice(&left[..length]);
        torn.truncate(length);
        std::fs::write(place.file(FILE), torn).expect("written");
        let (engine, log) = place.open(&config());
        all_is_known(&log, &stored, "opened again");
        assert!(spill(&engine, &log) > 0);
        all_is_known(&log, &stored, "spilled again");
        engine.close().expect("a clean close");
        assert!(!place.file(FILE).exists());
    }
}

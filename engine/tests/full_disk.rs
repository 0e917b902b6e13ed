//! A full disk is no failure: appends answer so, reads go on, and the same append works once there is space.

mod common;

use common::{Place, expect_duplicate, put, read_all, single, small_segments};
use oncelog::{Ack, Append, Appended, Config, Log};
use oncelog_device::{FaultOp, MemoryDevice};

const ROUNDS: i32 = 3;

fn config() -> Config {
    small_segments(50_000)
}

/// Appends until the disk is full; answers the first sequence that was not stored.
fn fill(log: &Log, mut sequence: i32, ack: Ack, sent: &mut Vec<Appended>) -> i32 {
    loop {
        match log.append_wait(Append::client(&single(7, sequence, 900)).ack(ack)) {
            Ok(answer) => sent.push(answer),
            Err(error) => {
                assert!(error.is_full() && error.is_retriable(), "{error}");
                assert_eq!(error.kafka_name(), "STORAGE_FULL");
                return sequence;
            }
        }
        sequence += 1;
        assert!(sequence < 10_000, "the disk is never full");
    }
}

fn story(ack: Ack) {
    let device = MemoryDevice::new().with_capacity_bytes(400_000);
    let place = Place::in_memory(&device);
    let (engine, log) = place.open(&config());
    let (mut sent, mut sequence) = (Vec::new(), 0);
    for round in 1..=ROUNDS {
        sequence = fill(&log, sequence, ack, &mut sent);
        for _ in 0..3 {
            let again = log.append_wait(Append::client(&single(7, sequence, 900)).ack(ack)).expect_err("still full");
            assert!(again.is_full(), "{again}");
        }
        assert_eq!(read_all(&log).len(), sent.len(), "reads go on");
        if let Some(newest) = sent.last() {
            expect_duplicate(&log, &single(7, sequence - 1, 900), newest);
        }
        device.set_capacity_bytes(Some(400_000 + u64::try_from(round).expect("small") * 300_000));
        let answer = log.append_wait(Append::client(&single(7, sequence, 900)).ack(ack)).expect("there is space again");
        assert_eq!(answer.base_offset, i64::from(sequence));
        sent.push(answer);
        sequence += 1;
    }
    device.set_capacity_bytes(None);
    engine.close().expect("a clean close");
    let (_engine, log) = place.open(&config());
    let offsets: Vec<i64> = read_all(&log).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..i64::from(sequence)).collect::<Vec<_>>(), "nothing lost, nothing doubled");
    assert_eq!(put(&log, &single(7, sequence, 900)).base_offset, i64::from(sequence));
}

#[test]
fn durable_appends_resume_when_space_returns() {
    story(Ack::Durable);
}

#[test]
fn written_appends_resume_when_space_returns() {
    story(Ack::Written);
}

#[test]
fn accepted_appends_resume_when_space_returns() {
    story(Ack::Accepted);
}

#[test]
fn what_was_answered_on_a_full_disk_survives_a_power_cut() {
    for seed in 0..20 {
        let device = MemoryDevice::new().with_capacity_bytes(300_000);
        let place = Place::in_memory(&device);
        let (engine, log) = place.open(&config());
        let mut sent = Vec::new();
        let sequence = fill(&log, 0, Ack::Durable, &mut sent);
        engine.kill();
        device.power_cut(seed);
        device.set_capacity_bytes(None);
        let (_engine, log) = place.open(&config());
        assert_eq!(read_all(&log).len(), sent.len(), "seed {seed}");
        assert_eq!(put(&log, &single(7, sequence, 900)).base_offset, i64::from(sequence), "seed {seed}");
    }
}

#[test]
fn space_returns_by_retention() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let config = Config { file_delete_delay_ms: 0, ..config() };
    let (_engine, log) = place.open(&config);
    device.set_capacity_bytes(Some(400_000));
    let sequence = fill(&log, 0, Ack::Durable, &mut Vec::new());
    device.set_capacity_bytes(Some(device.used_bytes() + 200_000));
    log.delete_records(i64::from(sequence) / 2).expect("moved");
    assert!(!log.apply_retention().expect("retention").is_empty());
    log.drive().expect("files go");
    device.set_capacity_bytes(Some(400_000));
    assert_eq!(put(&log, &single(7, sequence, 900)).base_offset, i64::from(sequence));
}

#[test]
fn one_refused_preparation_is_not_remembered() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (_engine, log) = place.open(&config());
    device.plant(FaultOp::Space, 0, 1);
    let error = log.append_wait(Append::client(&single(7, 0, 900))).expect_err("full");
    assert!(error.is_full(), "{error}");
    assert_eq!(put(&log, &single(7, 0, 900)).base_offset, 0);
    assert_eq!(read_all(&log).len(), 1);
}

//! A log start that delete-records moved stays where it is through whatever comes.

mod common;

use common::{Place, put, read_all, single, small_segments, txn_batch};
use oncelog::{Append, Config, Error, Isolation, Read};
use oncelog_device::MemoryDevice;

fn config() -> Config {
    small_segments(2000)
}

fn story(place: &Place, end: impl FnOnce(oncelog::Engine)) {
    let (engine, log) = place.open(&config());
    for sequence in 0..100 {
        put(&log, &single(7, sequence, 50));
    }
    assert_eq!(log.delete_records(37).expect("moved"), 37);
    end(engine);
    let (engine, log) = place.open(&config());
    assert_eq!(log.log_start_offset(), 37);
    let offsets: Vec<i64> = read_all(&log).iter().map(|(offset, _)| *offset).filter(|offset| *offset >= 37).collect();
    assert_eq!(offsets, (37..100).collect::<Vec<_>>());
    let error = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(36) }).expect_err("below the start");
    assert!(matches!(error, Error::OffsetOutOfRange { log_start_offset: 37, .. }), "{error}");
    engine.close().expect("a clean close");
    assert_eq!(place.open(&config()).1.log_start_offset(), 37);
}

#[test]
fn a_moved_log_start_survives_a_clean_close() {
    story(&Place::on_disk(), |engine| engine.close().expect("a clean close"));
}

#[test]
fn a_moved_log_start_survives_a_kill() {
    story(&Place::on_disk(), oncelog::Engine::kill);
}

#[test]
fn a_moved_log_start_survives_a_power_cut() {
    for seed in 0..50 {
        let device = MemoryDevice::new();
        story(&Place::in_memory(&device), |engine| {
            engine.kill();
            device.power_cut(seed);
        });
    }
}

#[test]
fn a_moved_log_start_survives_retention_and_a_power_cut() {
    for seed in 0..20 {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let (engine, log) = place.open(&config());
        for sequence in 0..100 {
            put(&log, &single(7, sequence, 50));
        }
        log.delete_records(-1).expect("moved to the end");
        assert!(log.apply_retention().expect("retention").len() > 3);
        engine.kill();
        device.power_cut(seed);
        let (_engine, log) = place.open(&config());
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (100, 100), "seed {seed}");
        assert_eq!(put(&log, &single(7, 100, 50)).base_offset, 100, "seed {seed}");
    }
}

/// The log start stands in a gap between two segments, and a transaction began below it: after a crash Kafka loads the
/// second segment with nothing before it (asked of its own loader).
#[test]
fn a_transaction_begun_below_a_gap_at_the_log_start_begins_behind_it_after_a_crash() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (engine, log) = place.open(&config());
    // Too far from the first for its segment.
    let behind = (1i64 << 31) + 100;
    for (sequence, offset) in [(0, 0), (1, behind)] {
        let mut bytes = txn_batch(3, sequence, &["value".to_string()]);
        bytes[..8].copy_from_slice(&offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&0i32.to_be_bytes());
        log.append_wait(Append::replica(&bytes, 0)).expect("a leader's batch");
    }
    assert_eq!(log.delete_records(50).expect("moved"), 50);
    assert_eq!(log.open_transactions().expect("one")[0].first_offset, 0);
    engine.kill();
    let (_engine, log) = place.open(&config());
    assert_eq!(log.log_start_offset(), 50);
    assert_eq!(log.open_transactions().expect("one")[0].first_offset, behind);
}

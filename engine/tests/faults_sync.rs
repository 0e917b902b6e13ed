//! A failed write or sync is not forgotten: nothing is acknowledged until the log is opened again.

mod common;

use common::{Place, put, read_all, single, small_segments};
use oncelog::{Ack, Append, Config, Error, Log};
use oncelog_device::{FaultOp, MemoryDevice};

fn config() -> Config {
    small_segments(20_000)
}

fn refused(log: &Log, bytes: &[u8], ack: Ack) -> Error {
    log.append_wait(Append::client(bytes).ack(ack)).expect_err("must not be acknowledged")
}

fn story(op: FaultOp, after: u64, times: u64, cut: bool) {
    let what = format!("{op:?} number {after}, {times} times, power cut {cut}");
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, log) = place.open(&config());
    put(&log, &single(7, 0, 50));
    device.plant(op, after, times);
    let mut acknowledged = 1;
    while acknowledged < 20 && log.append_wait(Append::client(&single(7, acknowledged, 50))).is_ok() {
        acknowledged += 1;
    }
    assert!(acknowledged < 20, "{what}: the fault never struck");
    device.clear_faults();
    for ack in [Ack::Durable, Ack::Written] {
        let error = refused(&log, &single(7, acknowledged, 50), ack);
        assert!(matches!(error, Error::Storage(_)), "{what}: {error}");
        assert_eq!((error.kafka_name(), error.is_retriable()), ("KAFKA_STORAGE_ERROR", true), "{what}");
    }
    assert!(matches!(log.sync(), Err(Error::Storage(_))), "{what}: a later sync must not succeed");
    engine.kill();
    if cut {
        device.power_cut(acknowledged as u64);
    } else {
        device.kill();
    }
    let (_engine, log) = place.open(&config());
    let kept = read_all(&log).len() as i32;
    assert!(kept >= acknowledged && kept <= acknowledged + 1, "{what}: {acknowledged} acknowledged, {kept} kept");
    for sequence in (acknowledged - 4).max(0)..=acknowledged {
        let retry = put(&log, &single(7, sequence, 50));
        assert_eq!(retry.base_offset, i64::from(sequence), "{what}");
    }
    assert_eq!(read_all(&log).len() as i32, acknowledged + 1, "{what}: nothing lost, nothing doubled");
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    for after in [0, 1, 5] {
        for cut in [true, false] {
            story(FaultOp::Sync, after, 1, cut);
        }
    }
}

#[test]
fn a_failed_write_is_not_forgotten() {
    for after in [0, 3] {
        for cut in [true, false] {
            story(FaultOp::Write, after, 1, cut);
        }
    }
}

#[test]
fn a_close_behind_a_failed_sync_leaves_no_clean_mark() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, log) = place.open(&config());
    put(&log, &single(7, 0, 50));
    device.plant(FaultOp::Sync, 0, 1);
    let _ = refused(&log, &single(7, 1, 50), Ack::Durable);
    assert!(engine.close().is_err(), "a latched log cannot be closed cleanly");
    assert_eq!(device.contents(&place.dir.join(".kafka_cleanshutdown")).expect("looked up"), None);
}

#[test]
fn reads_of_what_is_durable_go_on_behind_a_latch() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (_engine, log) = place.open(&config());
    put(&log, &single(7, 0, 50));
    device.plant(FaultOp::Sync, 0, 1);
    let _ = refused(&log, &single(7, 1, 50), Ack::Durable);
    assert_eq!(log.high_watermark(), 1, "what failed is not shown");
    match log.read(oncelog::Read::from(0)) {
        Ok(fetched) => assert!(!fetched.data.is_empty()),
        Err(error) => assert!(matches!(error, Error::Storage(_)), "{error}"),
    }
}

/// A second attempt would believe what the first one could not make durable.
#[test]
fn an_opening_that_failed_is_not_tried_again_by_the_same_engine() {
    let mut struck = 0;
    for op in [FaultOp::Write, FaultOp::Sync] {
        for after in 0.. {
            let device = MemoryDevice::new();
            let place = Place::in_memory(&device);
            let engine = place.engine();
            device.plant(op, after, 1);
            let Err(error) = engine.log(common::NAME, common::options(&config())) else { break };
            assert!(matches!(error, Error::Storage(_)), "{op:?} {after}: {error}");
            struck += 1;
            device.clear_faults();
            let again = engine.log(common::NAME, common::options(&config())).expect_err("nobody knows what is there");
            assert!(matches!(again, Error::Storage(_)), "{op:?} {after}: {again}");
            engine.log("another-0", common::options(&config())).expect("another log opens");
            engine.kill();
            device.power_cut(after);
            assert_eq!(put(&place.open(&config()).1, &single(7, 0, 50)).base_offset, 0, "{op:?} {after}");
        }
    }
    assert!(struck > 3, "only {struck} faults");
}

#[test]
fn an_opening_that_a_full_disk_refused_is_tried_again() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let engine = place.engine();
    device.set_capacity_bytes(Some(device.used_bytes()));
    let full = engine.log(common::NAME, common::options(&config())).expect_err("no space");
    assert!(full.is_full(), "{full}");
    device.set_capacity_bytes(None);
    put(&engine.log(common::NAME, common::options(&config())).expect("it opens"), &single(7, 0, 50));
}

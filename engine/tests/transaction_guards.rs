//! Threads race for the end of a transaction: nothing late opens it again, nobody fenced gets in, and what hangs is
//! seen.

mod common;

use common::{NAME, NOW_MS, Place, options};
use oncelog::{Append, Config, Error, Log, Refusal};
use oncelog_device::MemoryDevice;
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;
use std::sync::Barrier;

const ROUNDS: i64 = 300;

fn data(producer: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new().producer(producer, epoch, sequence).transactional(true);
    builder.append(NOW_MS, None, Some(b"v"), &[]);
    builder.build().expect("a batch")
}

fn marker(producer: i64, epoch: i16, coordinator_epoch: i32) -> Vec<u8> {
    end_txn_marker_batch(0, 0, producer, epoch, false, coordinator_epoch, NOW_MS)
}

fn open() -> (Place, oncelog::Engine, Log) {
    let place = Place::in_memory(&MemoryDevice::new());
    let engine = place.engine();
    let log = engine.log(NAME, options(&Config::default())).expect("the log opens");
    (place, engine, log)
}

/// The accident that guards are for: a producer was verified, its coordinator aborts, and the batch comes afterwards.
#[test]
fn a_late_batch_opens_no_transaction_behind_its_abort_marker() {
    let (_place, _engine, log) = open();
    let (mut before, mut behind) = (0, 0);
    for producer in 0..ROUNDS {
        let guard = log.start_verification(producer, 0, 0, 0).expect("a guard");
        assert!(guard.is_some());
        let start = Barrier::new(2);
        let late = std::thread::scope(|scope| {
            let append = scope.spawn(|| {
                let batch = data(producer, 0, 0);
                start.wait();
                log.append_wait(Append { guard, ..Append::client(&batch) })
            });
            let end = marker(producer, 0, 0);
            start.wait();
            log.append_wait(Append::coordinator(&end)).expect("the marker is stored");
            append.join().expect("no panic")
        });
        match late {
            Ok(_) => before += 1,
            Err(Error::Refused { refusal: Refusal::InvalidTxnState { .. }, .. }) => behind += 1,
            Err(other) => panic!("{other}"),
        }
        assert_eq!(log.open_transactions().expect("a list"), [], "producer {producer} is open behind its marker");
        let again = log.append(Append { guard, ..Append::client(&data(producer, 0, 1)) });
        assert!(again.is_err(), "the guard is void behind the marker");
    }
    println!("{before} batches before the marker, {behind} behind it");
    assert_eq!(log.last_stable_offset(), log.log_end_offset());
}

/// Many threads verify one producer: they get one guard, and its transaction opens once.
#[test]
fn one_guard_opens_one_transaction() {
    let (_place, _engine, log) = open();
    for producer in 0..ROUNDS / 10 {
        let start = Barrier::new(4);
        let append = || {
            let batch = data(producer, 0, 0);
            start.wait();
            let guard = log.start_verification(producer, 0, 0, 0).expect("a guard or none needed");
            log.append_wait(Append { guard, ..Append::client(&batch) }).is_ok()
        };
        let opened: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(append)).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().expect("no panic"))).sum()
        });
        assert!(opened >= 1);
        let open = log.open_transactions().expect("a list");
        assert_eq!(open.iter().filter(|txn| txn.producer_id == producer).count(), 1);
        let last_offset = log.producer(producer).expect("it is known").last_offset();
        assert_eq!(last_offset, log.log_end_offset() - 1, "the others were retries of the first");
        log.append_wait(Append::coordinator(&marker(producer, 0, 0))).expect("the marker is stored");
    }
}

/// An old instance of a producer and the new one: behind the new one's first batch the old one gets nothing in.
#[test]
fn a_zombie_is_fenced_whatever_the_order() {
    let (_place, _engine, log) = open();
    for producer in 0..ROUNDS / 3 {
        let guard = log.start_verification(producer, 0, 0, 0).expect("a guard");
        let start = Barrier::new(2);
        let old = std::thread::scope(|scope| {
            let zombie = scope.spawn(|| {
                let batch = data(producer, 0, 0);
                start.wait();
                log.append_wait(Append { guard, ..Append::client(&batch) })
            });
            let end = marker(producer, 1, 5);
            start.wait();
            log.append_wait(Append::coordinator(&end)).expect("the new epoch's marker");
            zombie.join().expect("no panic")
        });
        if let Err(error) = old {
            assert!(error.is_fenced(), "{error}");
        }
        let fenced = log.append(Append { guard, ..Append::client(&data(producer, 0, 1)) }).expect_err("an old epoch");
        assert!(fenced.is_fenced(), "{fenced}");
        let coordinator = log.append(Append::coordinator(&marker(producer, 1, 4))).expect_err("an old coordinator");
        assert_eq!(coordinator.kafka_name(), "TRANSACTION_COORDINATOR_FENCED");
        assert_eq!(log.open_transactions().expect("a list"), []);
    }
}

#[test]
fn a_late_transaction_is_counted_once_and_until_it_ends() {
    let (place, engine, log) = open();
    let guard = log.start_verification(7, 0, 0, 0).expect("a guard");
    log.append_wait(Append { guard, ..Append::client(&data(7, 0, 0)) }).expect("it is stored");
    let at = |minutes: i64| {
        place.clock.set_ms(NOW_MS + minutes * 60_000);
        log.drive().expect("it moves on");
        log.late_transactions()
    };
    assert_eq!(at(19), (0, 0));
    assert_eq!(at(20), (1, 1));
    assert_eq!(at(30), (1, 1));
    log.append_wait(Append::coordinator(&marker(7, 0, 0))).expect("the marker is stored");
    assert_eq!(at(31), (0, 1));
    let text = engine.metrics_text();
    let told = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.rsplit(' ').next());
    assert_eq!(told("oncelog_late_transactions{"), Some("0"));
    assert_eq!(told("oncelog_late_transactions_total{"), Some("1"));
}

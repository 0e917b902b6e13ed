//! Records in several logs are all there or none, whenever the power goes.

mod common;

use common::{Place, options, small_segments};
use oncelog::{Append, DECISIONS_LOG, Engine, Error, Log, PRODUCER_IDS};
use oncelog_device::MemoryDevice;
use oncelog_formats::BatchBuilder;

/// What a cut leaves of unsynced writes is drawn so often for each step.
const SEEDS: u64 = 8;
const LOGS: [&str; 4] = ["orders-0", "orders-1", "bills-0", "positions-0"];

fn record(text: &str) -> BatchBuilder {
    let mut builder = BatchBuilder::new();
    builder.append(common::NOW_MS, None, Some(text.as_bytes()), &[]);
    builder
}

fn open(place: &Place) -> Result<(Engine, Vec<Log>), Error> {
    let engine = place.try_engine()?;
    let config = small_segments(1 << 20);
    let logs = LOGS.iter().map(|name| engine.log(name, options(&config))).collect::<Result<_, _>>()?;
    Ok((engine, logs))
}

/// Batch `number`, one record in each log.
fn store(engine: &Engine, logs: &[Log], number: usize) -> Result<(), Error> {
    store_padded(engine, logs, number, 0)
}

/// The same with records that are filled up with spaces.
fn store_padded(engine: &Engine, logs: &[Log], number: usize, bytes: usize) -> Result<(), Error> {
    let mut batch = engine.begin()?;
    for log in logs {
        batch.append(log, record(&(number.to_string() + &" ".repeat(bytes))))?;
    }
    batch.commit()
}

/// What committed readers see in each log.
fn seen(logs: &[Log]) -> Vec<Vec<String>> {
    logs.iter()
        .map(|log| common::read_committed(log).into_iter().map(|(_, text)| text.trim_end().to_owned()).collect())
        .collect()
}

fn drive(engine: &Engine, logs: &[Log]) {
    logs.iter().for_each(|log| log.drive().expect("it moves on"));
    engine.drive().expect("it moves on");
}

#[test]
fn a_batch_is_seen_whole_or_not_at_all() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (engine, logs) = open(&place).expect("it opens");
    let mut batch = engine.begin().expect("a batch");
    for log in &logs {
        batch.append(log, record("a")).expect("it is stored");
        batch.append(log, record("b")).expect("it is stored");
    }
    drive(&engine, &logs);
    assert_eq!(seen(&logs), vec![Vec::<String>::new(); 4], "nobody decided yet");
    batch.commit().expect("it is decided");
    drive(&engine, &logs);
    assert_eq!(seen(&logs), vec![vec!["a", "b"]; 4]);
    let mut dropped = engine.begin().expect("a batch");
    dropped.append(&logs[0], record("c")).expect("it is stored");
    drop(dropped);
    drive(&engine, &logs);
    assert_eq!(seen(&logs), vec![vec!["a", "b"]; 4]);
    assert_eq!(logs[0].last_stable_offset(), logs[0].log_end_offset(), "a dropped batch holds nobody back");
}

/// How the batches before the cut one are stored, and how large a record is.
#[derive(Clone, Copy, Debug)]
struct Case {
    before: usize,
    /// They have come to the logs' own files when the cut one begins; else they stand among the decisions alone.
    driven: bool,
    /// With 100,000 bytes in each log the decision cannot carry all of it.
    bytes: usize,
    /// Steps that the device makes at least.
    least: u64,
}

/// The power goes at every operation of a batch and of what follows it, and then some more times while it comes back.
#[test]
fn the_power_goes_at_every_step() {
    // The first one ever makes the log of the decisions.
    for case in [
        Case { before: 0, driven: true, bytes: 0, least: 20 },
        Case { before: 1, driven: true, bytes: 0, least: 10 },
        Case { before: 3, driven: false, bytes: 0, least: 10 },
        Case { before: 1, driven: true, bytes: 100_000, least: 12 },
    ] {
        let mut committed_unanswered = 0;
        for cut in 0.. {
            let (operations, seed) = (cut / SEEDS, cut);
            let device = MemoryDevice::new();
            let place = Place::in_memory(&device);
            let (engine, logs) = open(&place).expect("it opens");
            (0..case.before).for_each(|number| store(&engine, &logs, number).expect("it is stored"));
            if case.driven {
                drive(&engine, &logs);
            }
            device.crash_after(operations);
            let answered = store_padded(&engine, &logs, case.before, case.bytes).is_ok();
            let _ = engine.drive();
            let done = logs.iter().filter(|log| log.sync().is_ok()).count() == logs.len();
            engine.kill();
            device.power_cut(seed);
            let committed = recover(&place, &device, seed, case.before);
            assert!(committed || !answered, "{case:?}: an answered batch is gone after {operations} operations");
            committed_unanswered += u32::from(committed && !answered);
            if done {
                assert!(operations > case.least, "{case:?}: only {operations} steps");
                break;
            }
        }
        assert!(committed_unanswered > 0, "{case:?}: no cut fell between decision and answer");
    }
}

/// Opens with the power going again at some operations, then for good. Answers whether batch `number` was committed.
fn recover(place: &Place, device: &MemoryDevice, seed: u64, number: usize) -> bool {
    for again in [3, 11, 29, 53] {
        device.crash_after(seed % 7 + again);
        if let Ok((engine, _)) = open(place) {
            engine.kill();
        }
        device.power_cut(seed + again);
    }
    let (engine, logs) = open(place).expect("it opens");
    let found = seen(&logs);
    assert!(found.iter().all(|texts| *texts == found[0]), "a part of a batch after {seed} operations: {found:?}");
    for log in &logs {
        assert_eq!(log.last_stable_offset(), log.log_end_offset(), "nothing is left open");
    }
    let stored: Vec<usize> = found[0].iter().map(|text| text.parse().expect("a number")).collect();
    assert_eq!(stored, (0..stored.len()).collect::<Vec<_>>());
    let committed = stored.len() == number + 1;
    assert!(committed || stored.len() == number, "neither with it nor without it: {stored:?}");
    store(&engine, &logs, 9).expect("the next batch is stored");
    drive(&engine, &logs);
    assert!(seen(&logs).iter().all(|texts| texts.last().is_some_and(|text| text == "9")));
    engine.close().expect("a clean close");
    let (_engine, logs) = open(place).expect("it opens");
    assert_eq!(seen(&logs).concat().len(), 4 * (found[0].len() + 1));
    committed
}

/// Logs are finished one by one as they are opened, in any order and in different lives of the engine.
#[test]
fn a_decision_waits_for_the_log_that_is_opened_last() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, logs) = open(&place).expect("it opens");
    store(&engine, &logs, 0).expect("it is decided");
    engine.kill();
    device.power_cut(9);
    for name in LOGS {
        // Each life opens one log, and begins batches of its own under the same producer ids.
        let engine = place.engine();
        let log = engine.log(name, options(&small_segments(1 << 20))).expect("it opens");
        let texts = seen(std::slice::from_ref(&log));
        assert_eq!(texts[0], ["0"], "{name}");
        let mut left_open = engine.begin().expect("a batch");
        left_open.append(&log, record("never")).expect("it is stored");
        log.sync().expect("it is durable");
        engine.kill();
        std::mem::forget(left_open);
        device.power_cut(10);
    }
    let (engine, logs) = open(&place).expect("it opens");
    assert_eq!(seen(&logs), vec![vec!["0"]; 4]);
    engine.close().expect("a clean close");
}

#[test]
fn a_failed_decision_leaves_the_batch_in_doubt_until_it_is_opened_again() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, logs) = open(&place).expect("it opens");
    store(&engine, &logs, 0).expect("the first is stored");
    drive(&engine, &logs);
    let decisions = engine.log(DECISIONS_LOG, oncelog::OpenOptions::default()).expect("it is open");
    let mut batch = engine.begin().expect("a batch");
    for log in &logs {
        batch.append(log, record("1")).expect("it is stored");
        log.sync().expect("it is durable");
    }
    device.plant(oncelog_device::FaultOp::Sync, 0, 1);
    let failed = batch.commit().expect_err("the decision cannot be synced");
    assert_eq!(failed.kafka_name(), "KAFKA_STORAGE_ERROR");
    drive(&engine, &logs);
    assert!(decisions.append(Append::client(&record("x").build().expect("a batch"))).is_err());
    assert_eq!(seen(&logs), vec![vec!["0"]; 4], "nobody knows, so nobody sees it");
    assert_eq!(engine.begin().expect_err("in doubt").kafka_name(), "KAFKA_STORAGE_ERROR");
    engine.kill();
    device.kill();
    let (_engine, logs) = open(&place).expect("it opens");
    let found = seen(&logs);
    assert!(found.iter().all(|texts| *texts == found[0]), "{found:?}");
}

#[test]
fn a_reader_that_stops_at_the_stable_ends_sees_all_of_a_batch_in_two_logs_or_nothing() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (engine, logs) = open(&place).expect("it opens");
    let pair = [&logs[0], &logs[1]];
    store(&engine, &logs, 0).expect("it is decided");
    // One log has moved on, the other has not: committed readers see the batch in one of them only.
    logs[0].drive().expect("it moves on");
    assert_eq!(seen(&logs[..2]), [vec!["0"], vec![]]);
    assert_eq!(engine.stable_ends(&pair), [0, 0]);
    logs[1].drive().expect("it moves on");
    assert_eq!(engine.stable_ends(&pair), [0, 0], "two more logs are part of it");
    drive(&engine, &logs);
    assert_eq!(engine.stable_ends(&pair), [2, 2]);
}

/// A batch that is behind an open one in one log, and not in the other.
#[test]
fn what_an_open_batch_holds_back_in_one_log_is_not_shown_in_the_other() {
    for between in [0, 3_000] {
        let place = Place::in_memory(&MemoryDevice::new());
        let (engine, logs) = open(&place).expect("it opens");
        let pair = [&logs[0], &logs[1]];
        let mut first = engine.begin().expect("a batch");
        first.append(&logs[0], record("first")).expect("it is stored");
        // More than are told apart one by one.
        for number in 0..=between {
            store(&engine, &logs, number).expect("it is decided");
            if number % 500 == 0 {
                drive(&engine, &logs);
            }
        }
        drive(&engine, &logs);
        let each: Vec<usize> = seen(&logs[..2]).iter().map(Vec::len).collect();
        assert_eq!(each, [0, between + 1], "each log by itself");
        assert_eq!(engine.stable_ends(&pair), [0, 0]);
        first.append(&logs[1], record("first")).expect("it is stored");
        first.commit().expect("it is decided");
        logs[0].drive().expect("it moves on");
        // All of the others are seen in both; the first one is not, and in the first log they lie behind it.
        engine.drive().expect("it moves on");
        assert_eq!(engine.stable_ends(&pair), [0, 0]);
        drive(&engine, &logs);
        let ends = pair.map(|log| log.last_stable_offset());
        assert_eq!(engine.stable_ends(&pair), ends);
        assert_eq!(ends, pair.map(|log| log.log_end_offset()));
    }
}

#[test]
fn the_producers_of_atomic_batches_are_not_for_clients() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (_engine, logs) = open(&place).expect("it opens");
    let mine = record("x").producer(*PRODUCER_IDS.start(), 0, 0).build().expect("a batch");
    let refused = logs[0].append(Append::client(&mine)).expect_err("it is reserved");
    assert_eq!(refused.kafka_name(), "INVALID_REQUEST");
}

#[test]
fn decisions_that_nobody_needs_are_let_go() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, logs) = open(&place).expect("it opens");
    for number in 0..20 {
        store(&engine, &logs, number).expect("it is decided");
    }
    drive(&engine, &logs);
    engine.close().expect("a clean close");
    let engine = place.engine();
    let decisions = engine.log(DECISIONS_LOG, oncelog::OpenOptions::default()).expect("it is there");
    assert_eq!(decisions.log_start_offset(), decisions.log_end_offset());
}

/// With threads of its own the engine makes markers durable, and so visible, without anyone's help.
#[test]
fn markers_become_visible_by_themselves() {
    for count in [1, 4] {
        let directory = tempfile::tempdir().expect("a directory");
        let engine = Engine::open(directory.path(), oncelog::EngineOptions::default()).expect("it opens");
        let open = |name: &&str| engine.log(name, oncelog::OpenOptions::default()).expect("it opens");
        let logs: Vec<Log> = LOGS[..count].iter().map(open).collect();
        store(&engine, &logs, 0).expect("it is decided");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(3);
        while seen(&logs).iter().any(Vec::is_empty) {
            assert!(std::time::Instant::now() < deadline, "{count} logs: {:?}", seen(&logs));
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(seen(&logs), vec![vec!["0"]; count]);
        engine.close().expect("a clean close");
    }
}

/// What was answered stands in the decisions alone until the logs are written: it comes back at the same offsets, with
/// what others stored in between.
#[test]
fn what_a_log_has_lost_comes_back_where_it_was() {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    let (engine, logs) = open(&place).expect("it opens");
    let mut stored = Vec::new();
    for number in 0..5 {
        let other = record(&format!("other {number}")).build().expect("a batch");
        let ticket = logs[0].append(Append::client(&other).ack(oncelog::Ack::Accepted)).expect("it is ordered");
        stored.push((ticket.expected().base_offset, format!("other {number}")));
        let mut batch = engine.begin().expect("a batch");
        let offset = batch.append(&logs[0], record(&number.to_string())).expect("it is stored");
        batch.append(&logs[1], record(&number.to_string())).expect("it is stored");
        batch.commit().expect("it is decided");
        stored.push((offset, number.to_string()));
    }
    assert_eq!(seen(&logs).concat(), Vec::<String>::new(), "nothing is shown that the log could lose");
    engine.kill();
    device.power_cut(1);
    let (engine, logs) = open(&place).expect("it opens");
    assert_eq!(common::read_committed(&logs[0]), stored);
    assert_eq!(seen(&logs)[1], ["0", "1", "2", "3", "4"]);
    engine.close().expect("a clean close");
}

/// A log that is cut has lost its part of a batch for good, and what begins there anew is a batch of its own.
#[test]
fn what_was_cut_does_not_come_back() {
    for fully in [false, true] {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let (engine, logs) = open(&place).expect("it opens");
        store(&engine, &logs, 0).expect("it is decided");
        let cut_to = if fully { 0 } else { logs[0].log_end_offset() };
        store(&engine, &logs, 1).expect("it is decided");
        let mut open_meanwhile = engine.begin().expect("a batch");
        open_meanwhile.append(&logs[0], record("never")).expect("it is stored");
        match fully {
            true => logs[0].truncate_fully_and_start_at(0, None).map(drop).expect("it is emptied"),
            false => logs[0].truncate_to(cut_to).map(drop).expect("it is cut"),
        }
        // Where batch 1 began there is another one now, which nobody decides.
        let mut undecided = engine.begin().expect("a batch");
        assert_eq!(undecided.append(&logs[0], record("undecided")).expect("it is stored"), cut_to);
        let lost = open_meanwhile.commit().expect_err("its part is gone");
        assert_eq!(lost.kafka_name(), "INVALID_REQUEST");
        logs[0].sync().expect("it is durable");
        engine.kill();
        std::mem::forget(undecided);
        device.power_cut(3);
        let (engine, logs) = open(&place).expect("it opens");
        let kept: &[&str] = if fully { &[] } else { &["0"] };
        assert_eq!(seen(&logs), [kept, &["0", "1"], &["0", "1"], &["0", "1"]]);
        engine.close().expect("a clean close");
    }
}

/// A full disk has refused the marker of a decided batch in one log, which is then cut behind the batch or inside it.
#[test]
fn a_marker_that_is_still_to_come_survives_a_truncation() {
    for (kept, crashes) in [(2, true), (2, false), (1, true), (1, false)] {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let (engine, logs) = open(&place).expect("it opens");
        store(&engine, &logs, 0).expect("it is decided");
        drive(&engine, &logs);
        let mut batch = engine.begin().expect("a batch");
        for log in &logs {
            batch.append(log, record("1")).expect("it is stored");
        }
        let second = batch.append(&logs[0], record("1")).expect("it is stored");
        device.set_capacity_bytes(Some(device.used_bytes()));
        let other = |bytes| record(&"x".repeat(bytes)).build().expect("a batch");
        for bytes in [900, 1] {
            while logs[0].append_wait(Append::client(&other(bytes))).is_ok() {}
        }
        batch.commit().expect("there is space for the decision");
        let end = logs[0].log_end_offset();
        device.set_capacity_bytes(None);
        assert_eq!(logs[0].truncate_to(second - 1 + kept).expect("it is cut"), second - 1 + kept);
        assert!(logs[0].log_end_offset() < end);
        if !crashes {
            drive(&engine, &logs);
            drive(&engine, &logs);
        }
        let (engine, logs) = match crashes {
            true => {
                engine.kill();
                device.power_cut(5);
                open(&place).expect("it opens")
            }
            false => (engine, logs),
        };
        let stays: &[&str] = if kept == 2 { &["0", "1", "1"] } else { &["0"] };
        assert_eq!(seen(&logs), [stays, &["0", "1"], &["0", "1"], &["0", "1"]], "{kept} kept, crash {crashes}");
        assert_eq!(logs[0].last_stable_offset(), logs[0].log_end_offset());
        engine.close().expect("a clean close");
    }
}

/// The driver looks for markers that are missing while others append theirs: a second marker would end what begins
/// next.
#[test]
fn each_batch_has_one_marker() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (engine, logs) = open(&place).expect("it opens");
    let (batches, done) = (1_000, std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                drive(&engine, &logs);
            }
        });
        let stored = (0..batches).try_for_each(|number| store(&engine, &logs, number));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        stored.expect("each is stored");
    });
    drive(&engine, &logs);
    for log in &logs {
        assert_eq!(log.log_end_offset(), 2 * batches as i64);
        assert_eq!(log.last_stable_offset(), log.log_end_offset());
    }
}

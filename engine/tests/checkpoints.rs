//! An opening begins at the newest checkpoint that is whole and that the log bears out, and knows all that it knew.

mod common;

use std::path::PathBuf;

use common::{Place, batch, copy_tree, expect_duplicate, put, put_as, read_all, single, small_segments, value};
use oncelog::{Ack, Appended, Config, Log, LogState};
use oncelog_formats::log_checkpoint::LogCheckpoint;

/// A checkpoint whenever there is something new.
fn eager() -> Config {
    Config { recovery_budget_ms: 1, ..small_segments(1 << 20) }
}

fn checkpoints(place: &Place) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(place.file(""))
        .expect("the log's directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(".checkpoint-oncelog"))
        .collect();
    found.sort();
    found
}

/// Ids that share no block.
fn scattered(number: i64) -> i64 {
    number * 1_000_003
}

/// `rounds` batches of each producer, by rounds from `first_round` on.
fn fill(log: &Log, producers: i64, first_round: i32, rounds: i32) -> Vec<(Vec<u8>, Appended)> {
    let mut sent = Vec::new();
    for round in first_round..first_round + rounds {
        for number in 0..producers {
            let bytes = single(scattered(number), round, 20);
            let answer = put_as(log, &bytes, Ack::Written);
            sent.push((bytes, answer));
        }
    }
    sent
}

fn shown(state: &LogState) -> impl PartialEq + std::fmt::Debug + use<> {
    let segments: Vec<_> = state
        .segments
        .iter()
        .map(|s| {
            (s.base_offset, s.size_bytes, s.next_offset, s.max_timestamp, s.offset_index.clone(), s.time_index.clone())
        })
        .collect();
    let txns: Vec<_> = state.segments.iter().map(|s| s.txn_index.clone()).collect();
    (state.log_end_offset, segments, txns, state.producers.clone(), state.open_transactions.clone(), state.digest)
}

#[test]
fn an_opening_begins_there_and_finds_the_same_as_one_that_reads_everything() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let mut sent = fill(&log, 300, 0, 2);
    put(&log, &common::txn_batch(5, 0, &["open".into()]));
    log.drive().expect("the first checkpoint");
    log.roll().expect("a roll");
    sent.extend(fill(&log, 40, 2, 3));
    log.drive().expect("a checkpoint of what changed");
    assert_eq!(checkpoints(&place).len(), 2);
    sent.extend(fill(&log, 7, 5, 1));
    log.sync().expect("durable");
    let before = log.describe().expect("a state");
    engine.kill();
    let other = Place::on_disk();
    copy_tree(&place.dir, &other.dir);
    checkpoints(&other).iter().for_each(|path| std::fs::remove_file(path).expect("removed"));

    let (_engine, log) = place.open(&eager());
    assert_eq!(log.report().checkpoint_offset, Some(before.log_end_offset - 7));
    assert_eq!(log.report().batches_scanned, 7 + 1, "the tail, and the end of the closed segment");
    let state = log.describe().expect("a state");
    let (_other_engine, read) = other.open(&eager());
    assert_eq!(read.report().checkpoint_offset, None);
    assert_eq!(shown(&state), shown(&read.describe().expect("a state")));
    assert_eq!((&state.producers, state.digest), (&before.producers, before.digest));
    for (bytes, answer) in &sent[sent.len() - 100..] {
        expect_duplicate(&log, bytes, answer);
    }
}

#[test]
fn producers_are_read_when_they_come_back() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let sent = fill(&log, 3000, 0, 2);
    log.drive().expect("a checkpoint");
    log.sync().expect("durable");
    let digest = log.describe().expect("a state").digest;
    engine.kill();
    let (_engine, log) = place.open(&eager());
    assert!(log.report().checkpoint_offset.is_some());
    for (bytes, answer) in sent.iter().rev().step_by(7) {
        expect_duplicate(&log, bytes, answer);
    }
    put(&log, &single(scattered(17), 2, 20));
    put(&log, &single(scattered(5000), 0, 20));
    assert_ne!(log.describe().expect("a state").digest, digest);
    assert_eq!(log.describe().expect("a state").producers.len(), 3001);
}

/// Batches behind the checkpoint wait for the pages of their producers, which may be asked for in any order, by another
/// checkpoint, or not at all before the next crash.
#[test]
fn what_came_behind_the_checkpoint_counts_when_its_producers_are_read_late() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    fill(&log, 3000, 0, 2);
    log.drive().expect("a checkpoint");
    let mut tail = Vec::new();
    for number in (0..3000).step_by(40) {
        for sequence in 2..5 {
            let bytes = single(scattered(number), sequence, 20);
            let answer = put(&log, &bytes);
            tail.push((bytes, answer));
        }
    }
    let before = log.describe().expect("a state");
    engine.kill();
    for between in [|_: &Log| {}, |log: &Log| log.drive().expect("another checkpoint")] {
        let (engine, log) = place.open(&eager());
        assert!(log.report().checkpoint_offset.is_some());
        between(&log);
        engine.kill();
    }
    let other = Place::on_disk();
    copy_tree(&place.dir, &other.dir);
    let (_engine, log) = other.open(&eager());
    let state = log.describe().expect("a state");
    assert_eq!((&state.producers, state.digest), (&before.producers, before.digest));
    let (_engine, log) = place.open(&eager());
    for (bytes, answer) in tail.iter().rev() {
        expect_duplicate(&log, bytes, answer);
    }
    for number in (0..3000).step_by(40) {
        put(&log, &single(scattered(number), 5, 20));
    }
}

#[test]
fn writing_costs_what_changed() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&eager());
    for round in 0..5 {
        for id in 0..20_000 {
            put_as(&log, &single(id, round, 1), Ack::Accepted);
        }
    }
    log.drive().expect("everything");
    for id in 0..200 {
        put_as(&log, &single(id * 97, 5, 1), Ack::Accepted);
    }
    log.drive().expect("what changed");
    let sizes: Vec<u64> = checkpoints(&place).iter().map(|p| p.metadata().expect("a file").len()).collect();
    let [all, changed] = sizes[..] else { panic!("{sizes:?}") };
    assert!(changed * 20 <= all, "{changed} of {all} bytes for one of a hundred producers");
}

#[test]
fn an_unreadable_one_is_kept_aside_and_an_older_one_used() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let sent = fill(&log, 50, 0, 2);
    log.drive().expect("a checkpoint");
    put(&log, &single(scattered(3), 2, 20));
    log.drive().expect("another");
    engine.kill();
    let files = checkpoints(&place);
    for (damaged, expected) in [(&files[1], Some(100)), (&files[0], None)] {
        let mut bytes = std::fs::read(damaged).expect("a checkpoint");
        let at = bytes.len() - 9;
        bytes[at] ^= 1;
        std::fs::write(damaged, bytes).expect("damaged");
        let (engine, log) = place.open(&eager());
        assert_eq!(log.report().checkpoint_offset, expected);
        assert!(log.report().repaired.iter().any(|line| line.contains("kept aside")), "{:?}", log.report());
        for (bytes, answer) in &sent {
            expect_duplicate(&log, bytes, answer);
        }
        engine.kill();
    }
}

/// Somebody else cut the log and went on.
#[test]
fn one_with_pages_that_it_cannot_hold_is_kept_aside() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let sent = fill(&log, 300, 0, 1);
    log.drive().expect("a checkpoint");
    engine.kill();
    let path = checkpoints(&place).remove(0);
    let whole = std::fs::read(&path).expect("a checkpoint");
    let lists = LogCheckpoint::head_bytes(&whole).expect("a head");
    for (position, length) in [(i64::MAX as u64 - 1, 10), (0, u32::MAX)] {
        let mut head = LogCheckpoint::decode(&whole).expect("a checkpoint");
        // As they are written: counted from the first.
        head.pages.iter_mut().for_each(|page| page.position -= lists);
        let last = head.pages.last_mut().expect("a page");
        (last.position, last.length) = (position, length);
        let forged = [&head.encode()[..], &whole[lists as usize..]].concat();
        std::fs::write(&path, forged).expect("forged");
        let (engine, log) = place.open(&eager());
        assert_eq!(log.report().checkpoint_offset, None);
        assert!(log.report().repaired.iter().any(|said| said.contains("kept aside")), "{:?}", log.report());
        sent.iter().for_each(|(bytes, answer)| expect_duplicate(&log, bytes, answer));
        engine.kill();
    }
}

#[test]
fn one_of_records_that_are_gone_is_not_believed() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    fill(&log, 30, 0, 2);
    log.sync().expect("durable");
    log.drive().expect("a checkpoint");
    let kept = checkpoints(&place);
    let copies: Vec<_> = kept.iter().map(|path| std::fs::read(path).expect("a file")).collect();
    log.truncate_to(40).expect("cut");
    assert_eq!(checkpoints(&place), [] as [PathBuf; 0], "no checkpoint outlives what it covers");
    // As long as those that were cut off: only a checksum tells them apart.
    for number in 30..50 {
        put(&log, &single(scattered(number), 0, 20));
    }
    let end = log.log_end_offset();
    log.sync().expect("durable");
    engine.kill();
    kept.iter().zip(copies).for_each(|(path, bytes)| std::fs::write(path, bytes).expect("put back"));
    let (_engine, log) = place.open(&eager());
    assert_eq!(log.report().checkpoint_offset, None);
    assert_eq!((log.log_end_offset(), read_all(&log).len() as i64), (end, end));
    assert_eq!(log.producer(scattered(49)).expect("known").last_sequence(), 0);
    assert_eq!(log.producer(scattered(29)).expect("known").last_sequence(), 0, "its second batch was cut off");
}

#[test]
fn an_aborted_transaction_is_in_the_index_again() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let aborted = |log: &Log, first: i32| {
        let end = log.log_end_offset();
        put(log, &common::txn_batch(9, first, &[value(9, first, 5)]));
        let marker = oncelog_formats::control::end_txn_marker_batch(0, 0, 9, 0, false, 0, common::NOW_MS);
        log.append_wait(oncelog::Append::coordinator(&marker)).expect("a marker");
        end
    };
    let mut expected = vec![aborted(&log, 0)];
    log.drive().expect("a checkpoint");
    expected.push(aborted(&log, 1));
    log.drive().expect("another");
    put(&log, &batch(1, 0, &["between".into()]));
    expected.push(aborted(&log, 2));
    log.sync().expect("durable");
    engine.kill();
    let (_engine, log) = place.open(&eager());
    assert!(log.report().checkpoint_offset.is_some());
    let found: Vec<i64> = log
        .describe()
        .expect("a state")
        .segments
        .iter()
        .flat_map(|s| &s.txn_index)
        .map(|txn| txn.first_offset)
        .collect();
    assert_eq!(found, expected);
}

fn abort(log: &Log, producer_id: i64) {
    let marker = oncelog_formats::control::end_txn_marker_batch(0, 0, producer_id, 0, false, 4, common::NOW_MS);
    log.append_wait(oncelog::Append::coordinator(&marker)).expect("a marker");
}

/// What a load forgets of transactions, and finds again, it forgets and finds with a checkpoint too.
#[test]
fn transactions_around_the_log_start_are_as_a_load_without_it_finds_them() {
    let txn = |log: &Log, producer: i64, first: i32| put(log, &common::txn_batch(producer, first, &["in it".into()]));
    let moved = |log: &Log, before: i64| log.delete_records(before).expect("a new start");
    let stories: [&dyn Fn(&Log); 4] = [
        // The segment that it began in is gone.
        &|log| {
            txn(log, 5, 0);
            log.roll().expect("a roll");
            txn(log, 5, 1);
            moved(log, 1);
            log.apply_retention().expect("one goes");
        },
        // It began below the start, in the same segment.
        &|log| {
            txn(log, 5, 0);
            put(log, &single(6, 0, 20));
            moved(log, 2);
            put(log, &single(6, 1, 20));
        },
        // Its marker is all that is left.
        &|log| {
            txn(log, 5, 0);
            log.roll().expect("a roll");
            abort(log, 5);
            moved(log, 1);
            put(log, &single(5, 1, 20));
        },
        // It was over before, by a coordinator of whom only the deleted segment tells.
        &|log| {
            txn(log, 5, 0);
            abort(log, 5);
            log.roll().expect("a roll");
            txn(log, 5, 1);
            moved(log, 2);
        },
    ];
    for (number, story) in stories.into_iter().enumerate() {
        for reopened in [false, true] {
            let place = Place::on_disk();
            let (mut engine, mut log) = place.open(&eager());
            story(&log);
            if reopened {
                engine.close().expect("closed");
                (engine, log) = place.open(&eager());
                txn(&log, 9, 0);
            }
            log.drive().expect("a checkpoint");
            assert!(!checkpoints(&place).is_empty());
            put(&log, &single(7, 0, 20));
            log.sync().expect("durable");
            engine.kill();
            let other = Place::on_disk();
            copy_tree(&place.dir, &other.dir);
            checkpoints(&other).iter().for_each(|path| std::fs::remove_file(path).expect("removed"));
            let (_with, with) = place.open(&eager());
            let (_without, without) = other.open(&eager());
            let states = [with, without].map(|log| log.describe().expect("a state"));
            let [with, without] = states.each_ref().map(|state| {
                let aborted: Vec<_> = state.segments.iter().flat_map(|segment| segment.txn_index.clone()).collect();
                (aborted, &state.producers, &state.open_transactions, state.last_stable_offset, state.digest)
            });
            assert_eq!(with, without, "story {number}, opened once more: {reopened}");
        }
    }
}

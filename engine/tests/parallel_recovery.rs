//! A recovery leads to the same with any number of threads: state, report and every file, byte for byte.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{NAME, copy_tree, expect_duplicate, options, put, put_as, single, small_segments, txn_batch};
use oncelog::{Ack, Engine, EngineOptions, ManualClock, OpenReport};
use std::sync::Arc;

const NOW_MS: i64 = common::NOW_MS;
const PIECE_BYTES: usize = 4 << 20;

fn engine(dir: &Path, recovery_threads: usize) -> Engine {
    let clock = Some(Arc::new(ManualClock::new(NOW_MS)) as Arc<dyn oncelog::Clock>);
    Engine::open(dir, EngineOptions { clock, recovery_threads, ..EngineOptions::default() }).expect("the engine opens")
}

/// Batches of very different sizes: many in a piece, some in two, one in three.
fn fill(dir: &Path, segment_bytes: u64) {
    let engine = engine(dir, 0);
    let config = oncelog::Config { max_message_bytes: 64 << 20, ..small_segments(segment_bytes) };
    let log = engine.log(NAME, options(&config)).expect("the log opens");
    let mut sequences: BTreeMap<i64, i32> = BTreeMap::new();
    let mut send = |producer: i64, bytes: usize| {
        let sequence = sequences.entry(producer).or_default();
        put_as(&log, &single(producer, *sequence, bytes), Ack::Written);
        *sequence += 1;
    };
    for turn in 0..12_000_usize {
        send(turn as i64 % 37, turn * 7919 % 1500);
        if turn % 100 == 0 {
            send(40, 64 << 10);
        }
        if turn % 4000 == 3999 {
            send(41, 2 * PIECE_BYTES + turn);
        }
    }
    put(&log, &txn_batch(50, 0, &["open".into()]));
    engine.kill();
}

/// Everything but the segments is gone, as far as anyone remembers.
fn strip(dir: &Path) {
    for folder in [dir.to_path_buf(), dir.join(NAME)] {
        for entry in fs::read_dir(folder).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_file() && path.extension().is_none_or(|extension| extension != "log") {
                fs::remove_file(path).expect("a file goes");
            }
        }
    }
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries =
        fs::read_dir(dir.join(NAME)).expect("the log's directory").map(|entry| entry.expect("an entry").path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into(), fs::read(path).expect("a file"))).collect()
}

/// What the report says but for times.
fn said(report: &OpenReport, dir: &Path) -> String {
    let report = OpenReport { steps: Vec::new(), duration_ms: 0.0, ..report.clone() };
    format!("{report:?}").replace(&*dir.to_string_lossy(), "DIR")
}

fn recovered(source: &Path, threads: usize) -> (String, String, BTreeMap<String, Vec<u8>>) {
    let scratch = tempfile::tempdir().expect("a directory");
    copy_tree(source, scratch.path());
    let engine = engine(scratch.path(), threads);
    let log = engine.log(NAME, options(&small_segments(1 << 30))).expect("the log opens");
    let state = format!("{:?}", log.describe().expect("a state"));
    let said = said(log.report(), scratch.path());
    if log.report().damage.is_empty() {
        expect_duplicate(&log, &single(0, 324, 324 * 37 * 7919 % 1500), &find(&log));
        engine.close().expect("it closes");
    } else {
        engine.kill();
    }
    (state, said, files(scratch.path()))
}

/// Offsets that the batch of producer 0 with sequence 324 got.
fn find(log: &oncelog::Log) -> oncelog::Appended {
    let state = log.describe().expect("a state");
    let (_, entry) = state.producers.iter().find(|(id, _)| *id == 0).expect("producer 0");
    let batch = entry.batches().iter().find(|batch| batch.first_sequence == 324).expect("one of the last five");
    oncelog::Appended {
        outcome: oncelog::Outcome::Appended,
        base_offset: batch.first_offset,
        last_offset: batch.last_offset,
        log_append_time: -1,
        log_start_offset: 0,
    }
}

fn same_with_any_number(source: &Path) {
    let alone = recovered(source, 0);
    for threads in [1, 2, 5] {
        let together = recovered(source, threads);
        assert_eq!((&alone.0, &alone.1), (&together.0, &together.1), "{threads} threads");
        let differing: Vec<_> = alone.2.iter().filter(|(name, bytes)| together.2.get(*name) != Some(bytes)).collect();
        assert!(
            differing.is_empty(),
            "{threads} threads: {:?}",
            differing.iter().map(|(name, _)| name).collect::<Vec<_>>()
        );
        assert_eq!(alone.2.len(), together.2.len(), "{threads} threads");
    }
}

#[test]
fn one_segment_is_rebuilt_the_same_by_any_number_of_threads() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), 1 << 30);
    strip(scratch.path());
    same_with_any_number(scratch.path());
}

#[test]
fn many_segments_are_rebuilt_the_same_by_any_number_of_threads() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), 9 << 20);
    strip(scratch.path());
    same_with_any_number(scratch.path());
}

#[test]
fn damage_is_found_at_the_same_place_by_any_number_of_threads() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), 1 << 30);
    let log = common::segment_files(scratch.path()).remove(0);
    let mut bytes = fs::read(&log).expect("a segment");
    for place in [PIECE_BYTES + 77_777, 9 << 20, 100] {
        strip(scratch.path());
        bytes[place] ^= 1;
        fs::write(&log, &bytes).expect("a segment");
        // Torn: nothing was promised.
        same_cut(scratch.path());
        // Promised: damage.
        let promised = format!("0\n1\nstory 0 {}\n", 12_000);
        fs::write(scratch.path().join("recovery-point-offset-checkpoint"), promised).expect("a checkpoint file");
        same_with_any_number(scratch.path());
    }
}

/// What is left of the log behind a cut is the same with any number of threads.
fn same_cut(source: &Path) {
    let cut = |threads| {
        let scratch = tempfile::tempdir().expect("a directory");
        copy_tree(source, scratch.path());
        let engine = engine(scratch.path(), threads);
        let log = engine.log(NAME, options(&small_segments(1 << 30))).expect("the log opens");
        assert_eq!(log.report().cut.len(), 1);
        let said = said(log.report(), scratch.path());
        let end = log.log_end_offset();
        engine.close().expect("it closes");
        (said, end, files(scratch.path()))
    };
    assert!(cut(0) == cut(3));
}

#[test]
fn logs_open_side_by_side_and_progress_can_be_seen() {
    let scratch = tempfile::tempdir().expect("a directory");
    fill(scratch.path(), 1 << 30);
    strip(scratch.path());
    for partition in 1..4 {
        copy_tree(&scratch.path().join(NAME), &scratch.path().join(format!("story-{partition}")));
    }
    let engine = engine(scratch.path(), 2);
    let open = |partition: i64| engine.log(&format!("story-{partition}"), options(&small_segments(1 << 30)));
    let behind = (1..4).map(|partition| (format!("story-{partition}"), options(&small_segments(1 << 30))));
    engine.open_behind(behind).expect("threads start");
    let furthest = std::thread::scope(|scope| {
        let first = scope.spawn(|| open(0).expect("the log opens"));
        let mut furthest: BTreeMap<String, u64> = BTreeMap::new();
        while !first.is_finished() || !engine.recoveries().is_empty() {
            for progress in engine.recoveries() {
                assert!(progress.done_bytes <= progress.total_bytes, "{progress:?}");
                assert_eq!(progress.expected.is_some(), progress.done_bytes > 0);
                let before = furthest.entry(progress.log).or_default();
                assert!(*before <= progress.done_bytes, "a recovery does not go back");
                *before = progress.done_bytes;
            }
        }
        furthest
    });
    assert!(furthest[NAME] > PIECE_BYTES as u64, "{furthest:?}");
    let ends: Vec<i64> = (0..4).map(|partition| open(partition).expect("it is open").log_end_offset()).collect();
    assert_eq!(ends, [ends[0]; 4]);
    engine.close().expect("all close");
}

#[test]
fn an_engine_without_threads_opens_logs_behind_as_it_is_driven() {
    let scratch = tempfile::tempdir().expect("a directory");
    let options_of_engine = EngineOptions { driver: false, ..EngineOptions::default() };
    let engine = Engine::open(scratch.path(), options_of_engine).expect("the engine opens");
    let behind = [("a-0", 0), ("b-0", 0)].map(|(name, _)| (name.to_owned(), options(&small_segments(1 << 20))));
    engine.open_behind(behind).expect("nothing to start");
    let exists = |name: &str| scratch.path().join(name).exists();
    engine.drive().expect("a step");
    assert!(exists("a-0") && !exists("b-0"));
    engine.drive().expect("a step");
    assert!(exists("b-0"));
}

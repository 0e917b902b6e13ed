//! Checkpoints follow the recovery budget while a log runs, and the report of an opening says what each step took.

mod common;

use common::{Place, put, single, small_segments};
use oncelog::{Config, Log};

/// Bytes a second that a recovery is taken to read before one was measured.
const USUAL_BYTES_PER_MS: u64 = 500_000;

fn has_checkpoint(place: &Place) -> bool {
    let names = std::fs::read_dir(place.file("")).expect("the log's directory");
    names
        .map(|entry| entry.expect("an entry").file_name())
        .any(|name| name.to_string_lossy().ends_with(".checkpoint-oncelog"))
}

/// Appends until the log holds so many bytes.
fn grow(log: &Log, sequence: &mut i32, bytes: u64) {
    let size = || log.describe().expect("a state").segments.iter().map(|segment| segment.size_bytes).sum::<u64>();
    let mut have = size();
    while have < bytes {
        let batch = single(7, *sequence, 10_000);
        have += batch.len() as u64;
        put(log, &batch);
        *sequence += 1;
    }
    assert_eq!(size(), have);
}

/// Half of the budget, less what every opening takes, is what reading the tail may take.
#[test]
fn a_checkpoint_is_written_when_the_tail_would_take_half_of_the_budget() {
    for (budget_ms, tail_bytes) in [(3, USUAL_BYTES_PER_MS), (7, 3 * USUAL_BYTES_PER_MS)] {
        let place = Place::on_disk();
        let config = Config { recovery_budget_ms: budget_ms, ..small_segments(16 << 20) };
        let (engine, log) = place.open(&config);
        let mut sequence = 0;
        grow(&log, &mut sequence, tail_bytes - 50_000);
        log.drive().expect("a step");
        assert!(!has_checkpoint(&place), "{budget_ms} ms: not yet");
        grow(&log, &mut sequence, tail_bytes + 1);
        log.drive().expect("a step");
        assert!(has_checkpoint(&place), "{budget_ms} ms: now");
        let end = log.log_end_offset();
        // From there on it is the tail behind it that counts.
        put(&log, &single(7, sequence, 10));
        log.drive().expect("a step");
        engine.kill();
        let (_engine, log) = place.open(&config);
        assert_eq!((log.report().checkpoint_offset, log.report().batches_scanned), (Some(end), 1));
    }
}

#[test]
fn the_report_says_how_long_each_step_took() {
    let place = Place::on_disk();
    let config = small_segments(100_000);
    let (engine, log) = place.open(&config);
    grow(&log, &mut 0, 2_000_000);
    engine.kill();
    // By a clock that goes: the one of the other tests stands.
    let options = oncelog::EngineOptions { driver: false, ..oncelog::EngineOptions::default() };
    let engine = oncelog::Engine::open(&place.dir, options).expect("the engine opens");
    let log = engine.log(common::NAME, common::options(&config)).expect("the log opens");
    let report = log.report();
    let names: Vec<&str> = report.steps.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["load", "scan", "settle"]);
    let sum_ms: f64 = report.steps.iter().map(|(_, took_ms)| took_ms).sum();
    assert!(report.steps.iter().all(|(_, took_ms)| *took_ms > 0.0), "{report:?}");
    assert!(sum_ms <= report.duration_ms && sum_ms > report.duration_ms / 2.0, "{report:?}");
}

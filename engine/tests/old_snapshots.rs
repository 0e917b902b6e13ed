//! The snapshots of a log go with its segments, whoever takes them away, and those that stay suffice.

mod common;

use common::{Place, expect_duplicate, put, single, small_segments};
use oncelog::{Appended, Config, Log};
use oncelog_formats::file_name::{Kind, parse_file_name};

fn config() -> Config {
    Config { file_delete_delay_ms: 0, ..small_segments(1000) }
}

fn fill(log: &Log) -> Vec<(Vec<u8>, Appended)> {
    let append = |sequence| {
        let bytes = single(7, sequence, 100);
        let answer = put(log, &bytes);
        log.drive().expect("a step");
        (bytes, answer)
    };
    (0..60).map(append).collect()
}

/// Offsets in the names of the snapshots that lie there, also of those that wait for their removal.
fn snapshots(place: &Place) -> Vec<i64> {
    let names = std::fs::read_dir(place.file("")).expect("the log's directory");
    let names = names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let parsed = names.filter_map(|name| parse_file_name(&name)).filter(|name| name.kind == Kind::Snapshot);
    let mut offsets: Vec<i64> = parsed.map(|name| name.base_offset).collect();
    offsets.sort_unstable();
    offsets
}

#[test]
fn snapshots_go_with_their_segments() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&config());
    let sent = fill(&log);
    let before = snapshots(&place);
    assert!(before.len() > 6, "{before:?}");
    log.configure(Config { retention_bytes: 2500, ..config() }).expect("settings");
    assert!(log.apply_retention().expect("retention").len() > 3);
    log.drive().expect("a step");
    let start = log.log_start_offset();
    let left = snapshots(&place);
    assert!(start > before[3] && left.iter().all(|offset| *offset >= start), "{left:?} of a log from {start}");
    assert!(!left.is_empty());
    engine.kill();
    let (_engine, log) = place.open(&config());
    sent[55..].iter().for_each(|(bytes, first)| expect_duplicate(&log, bytes, first));
}

/// Other records will get their offsets.
#[test]
fn snapshots_of_what_was_cut_off_go_with_it() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    let append = |sequence| {
        let bytes = single(7, sequence, 100);
        let answer = put(&log, &bytes);
        log.snapshot().expect("a snapshot");
        (bytes, answer)
    };
    let sent: Vec<_> = (0..6).map(append).collect();
    assert_eq!(snapshots(&place).last(), Some(&6));
    log.truncate_to(3).expect("a truncation");
    assert_eq!(snapshots(&place).last(), Some(&3));
    sent[..3].iter().for_each(|(bytes, first)| expect_duplicate(&log, bytes, first));
}

/// Between rolls the newest may stand inside the active segment; each opening leaves it and those at the bases.
#[test]
fn of_those_between_bases_only_the_newest_stays() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&small_segments(1 << 20));
    for sequence in 0..5 {
        put(&log, &single(7, sequence, 100));
        log.snapshot().expect("a snapshot");
    }
    engine.kill();
    let (_engine, _log) = place.open(&small_segments(1 << 20));
    assert_eq!(snapshots(&place), [5]);
}

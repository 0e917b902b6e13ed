//! Files of ours that another version wrote: what they say counts as far as the log does not say more.

mod common;

use std::path::PathBuf;

use common::{Place, expect_duplicate, put, single, small_segments};
use oncelog::{Appended, Config, Log};
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::log_checkpoint::LogCheckpoint;
use oncelog_formats::snapshot::SnapshotFile;

/// A checkpoint whenever there is something new.
fn eager() -> Config {
    Config { recovery_budget_ms: 1, ..small_segments(1000) }
}

/// Eight batches of each of some producers; answers the last five of each.
fn fill(log: &Log) -> Vec<(Vec<u8>, Appended)> {
    let mut sent = Vec::new();
    for sequence in 0..8 {
        for producer in [5, 6, 4_000] {
            let bytes = single(producer, sequence, 60);
            let answer = put(log, &bytes);
            sent.push((bytes, answer));
        }
    }
    sent.split_off(3 * 3)
}

fn files(place: &Place, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(place.file("")).expect("the log's directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

/// The extensions as version 1 wrote them: in the same places, with a digest of other terms.
fn age_snapshots(place: &Place) -> usize {
    let snapshots = files(place, ".snapshot");
    for path in &snapshots {
        let mut bytes = std::fs::read(path).expect("a snapshot");
        let at = SnapshotFile::extension_position(&bytes).expect("an extension") as usize;
        bytes[at + 8..at + 10].copy_from_slice(&1_u16.to_be_bytes());
        bytes[at + 36..at + 44].reverse();
        let own = crc32c(&[&bytes[at..at + 16], &bytes[at + 20..]].concat());
        bytes[at + 16..at + 20].copy_from_slice(&own.to_be_bytes());
        let kafkas = crc32c(&bytes[6..]);
        bytes[2..6].copy_from_slice(&kafkas.to_be_bytes());
        std::fs::write(path, bytes).expect("written");
    }
    snapshots.len()
}

fn age_checkpoints(place: &Place) -> usize {
    let checkpoints = files(place, ".checkpoint-oncelog");
    for path in &checkpoints {
        let mut bytes = std::fs::read(path).expect("a checkpoint");
        let head = LogCheckpoint::head_bytes(&bytes).expect("a head") as usize;
        bytes[8..10].copy_from_slice(&1_u16.to_be_bytes());
        bytes[40..48].reverse();
        bytes[12..16].fill(0);
        let crc = crc32c(&bytes[..head]);
        bytes[12..16].copy_from_slice(&crc.to_be_bytes());
        std::fs::write(path, bytes).expect("written");
    }
    checkpoints.len()
}

#[track_caller]
fn all_are_remembered(log: &Log, sent: &[(Vec<u8>, Appended)]) {
    sent.iter().for_each(|(bytes, first)| expect_duplicate(log, bytes, first));
}

#[test]
fn windows_that_a_snapshot_cannot_tell_are_read_from_the_log() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&small_segments(1000));
    let sent = fill(&log);
    let digest = log.describe().expect("a state").digest;
    engine.close().expect("a clean close");
    assert!(age_snapshots(&place) >= 2, "of a roll and of the end");

    let (engine, log) = place.open(&small_segments(1000));
    assert!(log.report().repaired.iter().any(|line| line.contains("of another version")));
    all_are_remembered(&log, &sent);
    assert_eq!(log.describe().expect("a state").digest, digest);
    let bytes = single(5, 8, 60);
    put(&log, &bytes);
    engine.close().expect("a clean close");

    let (_engine, log) = place.open(&small_segments(1000));
    assert_eq!(log.report().repaired, Vec::<String>::new());
    assert_eq!(log.report().batches_replayed, 0, "the snapshot says everything again");
    all_are_remembered(&log, &sent[1..]);
}

#[test]
fn a_checkpoint_of_another_version_is_kept_aside() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&eager());
    let sent = fill(&log);
    log.drive().expect("a checkpoint");
    let digest = log.describe().expect("a state").digest;
    log.sync().expect("durable");
    engine.kill();
    assert_eq!(age_checkpoints(&place), 1);
    age_snapshots(&place);

    let (_engine, log) = place.open(&eager());
    assert_eq!(log.report().checkpoint_offset, None);
    assert_eq!(files(&place, ".checkpoint-oncelog.unreadable-oncelog").len(), 1);
    all_are_remembered(&log, &sent);
    assert_eq!(log.describe().expect("a state").digest, digest);
}

//! An index, `.txnindex` or `.snapshot` is never believed over the log: garbage hides nothing, a missing file is not
//! "none".

mod common;

use common::{Place, put, read_all, read_from, segment_files, single, small_segments, txn_batch, value};
use oncelog::{Append, Config, Isolation, Log, LogState};
use oncelog_formats::control::end_txn_marker_batch;
use std::path::{Path, PathBuf};

const RECORDS: i32 = 100;

fn config() -> Config {
    small_segments(2000)
}

fn files_with(place: &Place, extension: &str) -> Vec<PathBuf> {
    segment_files(&place.dir).iter().map(|file| file.with_extension(extension)).filter(|file| file.exists()).collect()
}

/// Every record from every offset.
fn must_show_all(log: &Log, what: &str) {
    let all = read_all(log);
    assert_eq!(all.len(), RECORDS as usize, "{what}");
    for (from, (offset, text)) in all.iter().enumerate() {
        assert_eq!((*offset, text), (from as i64, &value(7, from as i32, 50)), "{what}");
        let rest = read_from(log, from as i64, Isolation::Uncommitted, 500).expect("a read");
        assert_eq!(rest, all[from..], "{what}, from {from}");
    }
}

/// Bytes that look like `length` of an index.
fn garbage(kind: usize, length: usize) -> Vec<u8> {
    let mut noise: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut next = move || {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    };
    match kind {
        0 => (0..length).map(|_| next()).collect(),
        1 => (0..length.next_multiple_of(24)).map(|_| next()).collect(),
        2 => vec![0; length],
        // Rises as an index does, and points at nothing.
        _ => (1u32..)
            .flat_map(|i| [i.to_be_bytes(), (i * 37).to_be_bytes()].concat())
            .take(length.next_multiple_of(8))
            .collect(),
    }
}

#[test]
fn a_garbage_index_hides_no_records() {
    for extension in ["index", "timeindex"] {
        for kind in 0..4 {
            for clean in [true, false] {
                let place = Place::on_disk();
                let (engine, log) = place.open(&config());
                for sequence in 0..RECORDS {
                    put(&log, &single(7, sequence, 50));
                }
                engine.close().expect("a clean close");
                let hurt = files_with(&place, extension);
                assert!(hurt.len() > 3, "{hurt:?}");
                for file in hurt {
                    let length = std::fs::metadata(&file).expect("a file").len().max(8) as usize;
                    std::fs::write(&file, garbage(kind, length)).expect("written");
                }
                if !clean {
                    std::fs::remove_file(place.dir.join(".kafka_cleanshutdown")).expect("a mark");
                }
                let (_engine, log) = place.open(&config());
                must_show_all(&log, &format!("{extension} of kind {kind}, clean {clean}"));
                let newest = log.offset_for_timestamp(common::NOW_MS).expect("a look-up");
                assert_eq!(newest, Some((0, common::NOW_MS)), "{extension} of kind {kind}, clean {clean}");
            }
        }
    }
}

#[test]
fn missing_indexes_hide_no_records() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&config());
    for sequence in 0..RECORDS {
        put(&log, &single(7, sequence, 50));
    }
    engine.close().expect("a clean close");
    for file in files_with(&place, "index").into_iter().chain(files_with(&place, "timeindex")) {
        std::fs::remove_file(file).expect("removed");
    }
    let (_engine, log) = place.open(&config());
    must_show_all(&log, "no index");
}

/// Three producers: one commits and aborts by turns, one aborts late, one never ends. Answers what is true of them.
fn transactions(place: &Place) -> LogState {
    let (engine, log) = place.open(&config());
    put(&log, &txn_batch(22, 0, &[value(22, 0, 50)]));
    for round in 0..20 {
        put(&log, &txn_batch(21, round, &[value(21, round, 50)]));
        end(&log, 21, round % 2 == 0);
        put(&log, &single(7, round, 50));
        if round == 10 {
            put(&log, &txn_batch(23, 0, &[value(23, 0, 50)]));
            end(&log, 22, false);
        }
    }
    let state = log.describe().expect("state");
    engine.close().expect("a clean close");
    state
}

fn end(log: &Log, producer: i64, commit: bool) {
    put_marker(log, &end_txn_marker_batch(0, 0, producer, 0, commit, 1, common::NOW_MS));
}

fn put_marker(log: &Log, bytes: &[u8]) {
    log.append_wait(Append::coordinator(bytes)).expect("a marker");
}

fn aborted(state: &LogState) -> Vec<oncelog_formats::txn_index::AbortedTxn> {
    state.segments.iter().flat_map(|segment| segment.txn_index.clone()).collect()
}

fn must_know_transactions(place: &Place, before: &LogState, what: &str) {
    let (engine, log) = place.open(&config());
    let after = log.describe().expect("state");
    assert_eq!(aborted(before), aborted(&after), "{what}: aborted");
    assert_eq!(before.open_transactions, after.open_transactions, "{what}: open");
    assert_eq!(before.last_stable_offset, after.last_stable_offset, "{what}: last stable offset");
    assert_eq!(before.producers, after.producers, "{what}: producers");
    assert_eq!(before.digest, after.digest, "{what}: digest");
    let fetched =
        log.read(oncelog::Read { isolation: Isolation::Committed, ..oncelog::Read::from(0) }).expect("a read");
    assert!(fetched.aborted.contains(&(22, 0)), "{what}: {:?}", fetched.aborted);
    engine.kill();
}

#[test]
fn a_missing_txnindex_under_a_clean_mark_is_rebuilt() {
    let place = Place::on_disk();
    let before = transactions(&place);
    assert_eq!(aborted(&before).len(), 11);
    let files = files_with(&place, "txnindex");
    assert!(files.len() > 2, "{files:?}");
    for file in files {
        std::fs::remove_file(file).expect("removed");
    }
    must_know_transactions(&place, &before, "no .txnindex");
}

#[test]
fn each_txnindex_alone_is_rebuilt() {
    let place = Place::on_disk();
    let before = transactions(&place);
    for file in files_with(&place, "txnindex") {
        let copy = copy_of(&place);
        std::fs::remove_file(copy.dir.join(common::NAME).join(file.file_name().expect("a name"))).expect("removed");
        must_know_transactions(&copy, &before, &file.display().to_string());
    }
}

fn copy_of(place: &Place) -> Place {
    let copy = Place::on_disk();
    common::copy_tree(&place.dir, &copy.dir);
    copy
}

fn snapshots(dir: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(dir.join(common::NAME)).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).collect()
}

#[test]
fn missing_snapshots_under_a_clean_mark_are_rebuilt() {
    let place = Place::on_disk();
    let before = transactions(&place);
    let files = snapshots(&place.dir);
    assert!(files.len() > 3, "{files:?}");
    for file in &files {
        let copy = copy_of(&place);
        std::fs::remove_file(copy.dir.join(common::NAME).join(file.file_name().expect("a name"))).expect("removed");
        must_know_transactions(&copy, &before, &file.display().to_string());
    }
    for file in &files {
        std::fs::remove_file(file).expect("removed");
    }
    must_know_transactions(&place, &before, "no snapshot");
}

#[test]
fn unreadable_snapshots_are_kept_aside_and_rebuilt() {
    let place = Place::on_disk();
    let before = transactions(&place);
    for file in snapshots(&place.dir) {
        std::fs::write(file, b"no snapshot at all").expect("written");
    }
    must_know_transactions(&place, &before, "unreadable snapshots");
}

/// Kafka recovers segments that have no index before all others. If a crash left some indexes and no leader epochs, it
/// would take the epoch of the first segment without one for the log's first.
#[test]
fn no_index_is_on_disk_before_the_leader_epochs_of_its_segment() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&config());
    for sequence in 0..RECORDS {
        let batch = single(7, sequence, 50);
        log.append_wait(Append { leader_epoch: sequence / 30, ..Append::client(&batch) }).expect("stored");
    }
    let segments = segment_files(&place.dir);
    assert!(segments.len() > 4);
    // The third index cannot be written: as if a crash came just before it.
    let third = segments[2].with_extension("index.tmp");
    std::fs::create_dir(&third).expect("in the way");
    log.drive().expect_err("one index cannot be written");
    assert!(segments[1].with_extension("index").exists() && !segments[3].with_extension("index").exists());
    let epochs = std::fs::read_to_string(place.file("leader-epoch-checkpoint")).expect("there");
    assert_eq!(epochs.lines().nth(1), Some("4"), "{epochs}");
}

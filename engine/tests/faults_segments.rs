//! A damaged, missing or shortened sealed segment is an error of every read that would have to step over it.

mod common;

use common::{NAME, Place, options, put, read_all, read_from, segment_files, single, small_segments};
use oncelog::{Config, Engine, EngineOptions, Error, Isolation, Log};
use oncelog_formats::Batches;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

const RECORDS: i32 = 100;

fn config() -> Config {
    small_segments(2000)
}

/// A log of several segments, closed cleanly; answers its segment files.
fn story(place: &Place) -> Vec<PathBuf> {
    let (engine, log) = place.open(&config());
    for sequence in 0..RECORDS {
        put(&log, &single(7, sequence, 50));
    }
    engine.close().expect("a clean close");
    let files = segment_files(&place.dir);
    assert!(files.len() >= 5, "{files:?}");
    files
}

fn base_of(file: &Path) -> i64 {
    file.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok()).expect("a base offset")
}

/// Reads up to `hurt` still work, a read over it says what is wrong and where; nothing behind is shown as if it
/// followed.
fn must_not_skip(place: &Place, hurt: &Path, lost: i64, clean: bool) {
    if !clean {
        let _ = std::fs::remove_file(place.dir.join(".kafka_cleanshutdown"));
    }
    let (_engine, log) = place.open(&config());
    let error = read_from(&log, 0, Isolation::LogEnd, 1 << 20).expect_err("the damage is found");
    assert!(error.is_corruption(), "{error}");
    let text = error.to_string();
    assert!(text.contains(&lost.to_string()), "no offset {lost} in {text:?}");
    assert!(text.contains(hurt.file_name().and_then(|name| name.to_str()).expect("a name")), "no file in {text:?}");
    assert_eq!(readable(&log, lost), lost, "records before the damage");
    let direct = read_from(&log, lost, Isolation::LogEnd, 1 << 20).expect_err("asked for directly");
    assert!(direct.is_corruption(), "{direct}");
}

/// How many records can be read one batch at a time, up to `limit`.
fn readable(log: &Log, limit: i64) -> i64 {
    let read =
        |offset| log.read(oncelog::Read { max_bytes: 1, isolation: Isolation::LogEnd, ..oncelog::Read::from(offset) });
    (0..limit).take_while(|offset| read(*offset).is_ok_and(|fetched| !fetched.data.is_empty())).count() as i64
}

/// Position and offset of every batch of a file, and its end.
fn batch_starts(file: &Path) -> Vec<(u64, i64)> {
    let bytes = std::fs::read(file).expect("a segment");
    let mut position = 0;
    let mut starts = Vec::new();
    for view in Batches::new(&bytes).map(|view| view.expect("a batch")) {
        starts.push((position, view.header().base_offset));
        position += view.bytes().len() as u64;
    }
    starts
}

fn cut(file: &Path, length: u64) {
    OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(length)).expect("cut");
}

fn flip(file: &Path, position: u64) {
    let mut bytes = std::fs::read(file).expect("a segment");
    bytes[position as usize] ^= 0x20;
    std::fs::write(file, bytes).expect("written");
}

#[test]
fn a_flipped_byte_in_a_sealed_segment_is_not_skipped() {
    for clean in [true, false] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        let (position, offset) = batch_starts(hurt)[1];
        flip(hurt, position + 70);
        must_not_skip(&place, hurt, offset, clean);
    }
}

#[test]
fn a_missing_sealed_segment_is_not_skipped() {
    for clean in [true, false] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        std::fs::remove_file(hurt).expect("removed");
        must_not_skip(&place, hurt, base_of(hurt), clean);
    }
}

#[test]
fn a_sealed_segment_missing_with_its_indexes_is_not_skipped() {
    for clean in [true, false] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        for extension in ["log", "index", "timeindex"] {
            std::fs::remove_file(hurt.with_extension(extension)).expect("removed");
        }
        must_not_skip(&place, hurt, base_of(hurt), clean);
    }
}

#[test]
fn a_sealed_segment_cut_inside_a_batch_is_not_stepped_over() {
    for clean in [true, false] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        let (position, offset) = *batch_starts(hurt).last().expect("batches");
        cut(hurt, position + 40);
        must_not_skip(&place, hurt, offset, clean);
    }
}

#[test]
fn a_sealed_segment_that_lost_whole_batches_is_not_stepped_over() {
    for (clean, batches) in [(true, 1), (true, 3), (false, 1), (false, 3)] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        let starts = batch_starts(hurt);
        let (position, offset) = starts[starts.len() - batches];
        cut(hurt, position);
        must_not_skip(&place, hurt, offset, clean);
    }
}

#[test]
fn an_emptied_sealed_segment_is_not_stepped_over() {
    for clean in [true, false] {
        let place = Place::on_disk();
        let hurt = &story(&place)[2];
        cut(hurt, 0);
        must_not_skip(&place, hurt, base_of(hurt), clean);
    }
}

#[test]
fn damage_while_the_log_is_open_is_found_by_the_read() {
    let place = Place::on_disk();
    let hurt = &story(&place)[1];
    let (_engine, log) = place.open(&config());
    let (position, offset) = batch_starts(hurt)[2];
    flip(hurt, position + 70);
    let error = read_from(&log, 0, Isolation::Uncommitted, 1 << 20).expect_err("the damage is found");
    assert!(error.is_corruption() && error.to_string().contains(&offset.to_string()), "{error}");
}

#[test]
fn a_damaged_log_takes_no_appends_and_changes_nothing() {
    let place = Place::on_disk();
    // After an unclean end the last segment is read whole, and its records were promised by the checkpoint file.
    let files = story(&place);
    let hurt = files.last().expect("a segment");
    flip(hurt, batch_starts(hurt)[1].0 + 70);
    let before: Vec<Vec<u8>> =
        segment_files(&place.dir).iter().map(|file| std::fs::read(file).expect("a segment")).collect();
    std::fs::remove_file(place.dir.join(".kafka_cleanshutdown")).expect("an unclean end");
    let engine = Engine::open(&place.dir, EngineOptions { driver: false, ..EngineOptions::default() }).expect("opens");
    let log = engine.log(NAME, options(&config())).expect("the log opens");
    assert_eq!(log.report().damage.len(), 1, "{:?}", log.report());
    let error = log.append(oncelog::Append::client(&single(7, RECORDS, 50))).map(|_| ()).expect_err("read-only");
    assert!(matches!(error, Error::Damaged(_)), "{error}");
    engine.kill();
    let after: Vec<Vec<u8>> =
        segment_files(&place.dir).iter().map(|file| std::fs::read(file).expect("a segment")).collect();
    assert!(before == after, "the segments were changed");
}

#[test]
fn reads_go_on_from_segment_to_segment() {
    let place = Place::on_disk();
    let segments = story(&place).len();
    let (_engine, log) = place.open(&config());
    let all = read_all(&log);
    assert_eq!(all.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..i64::from(RECORDS)).collect::<Vec<_>>());
    for from in 0..i64::from(RECORDS) {
        for max_bytes in [1, 300, 1 << 20] {
            let read = read_from(&log, from, Isolation::Uncommitted, max_bytes).expect("a read");
            assert_eq!(read, all[from as usize..], "from {from} by {max_bytes} over {segments} segments");
        }
    }
}

/// A log of batches of two records in one segment, closed cleanly; answers its file.
fn pairs(place: &Place) -> PathBuf {
    let (engine, log) = place.open(&Config::default());
    for sequence in 0..10 {
        put(&log, &common::batch(7, 2 * sequence, &["first".into(), "second".into()]));
    }
    engine.close().expect("a clean close");
    segment_files(&place.dir).remove(0)
}

fn overwrite(file: &Path, position: u64, with: &[u8]) {
    let mut bytes = std::fs::read(file).expect("a segment");
    bytes[position as usize..][..with.len()].copy_from_slice(with);
    std::fs::write(file, bytes).expect("written");
}

/// The header says that the record asked for is in none of the batches, so that a walk steps over the damaged one.
#[test]
fn a_read_does_not_step_over_a_batch_whose_header_is_damaged() {
    let (base_offset, last_offset_delta) = (0, 23);
    for (field, damage) in [(base_offset, &[0; 8][..]), (last_offset_delta, &[0; 4]), (last_offset_delta, &[0xff; 4])] {
        for damaged_batch in [1, 5] {
            let place = Place::on_disk();
            let file = pairs(&place);
            let (position, offset) = batch_starts(&file)[damaged_batch];
            let (_engine, log) = place.open(&Config::default());
            overwrite(&file, position + field, damage);
            let read =
                |offset| oncelog::Read { max_bytes: 1, isolation: Isolation::LogEnd, ..oncelog::Read::from(offset) };
            let answer = log.read(read(offset + 1));
            assert!(answer.as_ref().is_err_and(Error::is_corruption), "{field} {damage:?}: {answer:?}");
            assert_eq!(log.read(read(offset - 1)).expect("what stands before is readable").next_offset, offset);
        }
    }
}

fn one_batch(offset: i64) -> oncelog::Read {
    oncelog::Read { max_bytes: 1, isolation: Isolation::LogEnd, ..oncelog::Read::from(offset) }
}

/// No checksum covers the base offset: a batch that claims a later one leaves a gap where its records are.
#[test]
fn a_moved_base_offset_is_not_taken_for_a_gap() {
    for (moved, steps) in [(5, 1), (5, 2), (5, 300), (9, 1), (9, 2)] {
        let place = Place::on_disk();
        let file = pairs(&place);
        let (position, offset) = batch_starts(&file)[moved];
        let (_engine, log) = place.open(&Config::default());
        let before = log.read(one_batch(offset - 2)).expect("whole");
        assert_eq!(before.next_offset, offset);
        overwrite(&file, position, &(offset + steps).to_be_bytes());
        for wanted in (offset..offset + 2 + steps).filter(|wanted| *wanted < 20) {
            let answer = log.read(one_batch(wanted));
            // What stands behind is whole and may be found by the index.
            let right =
                answer.as_ref().is_ok_and(|got| got.next_offset == (wanted / 2 + 1) * 2 && wanted >= offset + 2);
            let found = answer.as_ref().is_err_and(Error::is_corruption);
            assert!(right || found, "{moved} + {steps}, {wanted}: {answer:?}");
        }
        let all = log.read(oncelog::Read { max_bytes: 1 << 20, ..one_batch(0) }).expect("what stands before");
        assert_eq!(all.next_offset, offset, "{moved} + {steps}");
    }
}

/// The index says which offset the batch that it points at ends with; one that claims earlier ones would hide its own.
#[test]
fn a_moved_base_offset_is_not_found_by_the_index() {
    let place = Place::on_disk();
    let config = Config { index_interval_bytes: 1, ..Config::default() };
    let file = pairs(&place);
    std::fs::remove_file(file.with_extension("index")).expect("there is one");
    let (position, offset) = batch_starts(&file)[5];
    let (_engine, log) = place.open(&config);
    assert_eq!(log.read(one_batch(offset)).expect("whole").next_offset, offset + 2);
    overwrite(&file, position, &0i64.to_be_bytes());
    let answer = log.read(one_batch(offset + 1));
    assert!(answer.as_ref().is_err_and(Error::is_corruption), "{answer:?}");
}

/// Opened over it, after a crash too: what was promised is named, and nothing behind it is cut.
#[test]
fn a_moved_base_offset_is_found_when_the_log_is_opened() {
    for clean in [true, false] {
        for moved in [0, 5, 9] {
            let place = Place::on_disk();
            let file = pairs(&place);
            let (position, offset) = batch_starts(&file)[moved];
            overwrite(&file, position, &(offset + 3).to_be_bytes());
            if !clean {
                std::fs::remove_file(place.dir.join(".kafka_cleanshutdown")).expect("there is one");
            }
            let length = std::fs::metadata(&file).expect("a segment").len();
            let (_engine, log) = place.open(&Config::default());
            let damage = log.report().damage.first().map(|damage| (damage.position, damage.offset));
            assert_eq!(damage, Some((position, offset)), "{clean} {moved}: {:?}", log.report());
            assert!(std::fs::metadata(&file).expect("a segment").len() >= length, "{clean} {moved}: it was cut");
            assert_eq!((readable(&log, 20), log.log_end_offset()), (offset, offset), "{clean} {moved}");
        }
    }
}

/// A truncation inside a batch leaves a gap. What was appended behind it since need not have come to the file when a
/// read looks whether there is room for it.
#[test]
fn what_lies_behind_a_gap_is_readable_before_what_follows_is_written() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&Config::default());
    leave_gap(&log);
    put(&log, &single(8, 0, 10));
    common::put_as(&log, &single(8, 1, 10), oncelog::Ack::Accepted);
    let read = oncelog::Read { isolation: Isolation::Uncommitted, ..one_batch(1) };
    assert_eq!(log.read(read).expect("the batch behind the gap").next_offset, 3);
}

/// One record, and behind it the offset of one that a truncation took: a read of that one comes from the file.
fn leave_gap(log: &Log) {
    put(log, &single(7, 0, 10));
    put(log, &common::batch(7, 1, &["first".into(), "second".into()]));
    assert_eq!(log.truncate_to(2).expect("a truncation"), 2);
}

/// A recovery point that only follows the log start may lie inside a gap, or inside a batch: the log did not end there.
#[test]
fn a_log_start_in_a_gap_is_no_end_of_the_log() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&Config::default());
    put(&log, &single(7, 0, 10));
    put(&log, &common::batch(7, 1, &["first".into(), "second".into(), "third".into()]));
    assert_eq!(log.truncate_to(3).expect("a truncation"), 3);
    put(&log, &single(8, 0, 10));
    assert_eq!(log.delete_records(2).expect("below the high watermark"), 2);
    drop(log);
    engine.kill();
    let point = place.dir.join("recovery-point-offset-checkpoint");
    std::fs::write(&point, "0\n1\nstory 0 2\n").expect("a checkpoint file");
    let (_engine, log) = place.open(&Config::default());
    assert!(log.report().damage.is_empty() && log.report().cut.is_empty(), "{:?}", log.report());
    let read = oncelog::Read { isolation: Isolation::LogEnd, ..one_batch(2) };
    assert_eq!((log.read(read).expect("the batch behind the gap").next_offset, log.log_end_offset()), (4, 4));
}

/// The second half of a write may be in the file before the first one. Of the next batch's base offset nothing stands
/// there then, and the rest of it is whole.
#[test]
fn a_write_on_its_way_is_not_taken_for_what_stands_behind_a_gap() {
    const BLOCK: usize = 4096;
    let place = Place::on_disk();
    let (_engine, log) = place.open(&Config::default());
    leave_gap(&log);
    let file = segment_files(&place.dir).remove(0);
    let position = single(7, 0, 10).len();
    // It ends eight bytes before the block does.
    let ends = |filling: usize| position + single(8, 0, filling).len();
    put(&log, &single(8, 0, (0..BLOCK).find(|filling| ends(*filling) == BLOCK - 8).expect("some length")));
    let accepted = single(8, 1, 100);
    common::put_as(&log, &accepted, oncelog::Ack::Accepted);
    overwrite(&file, BLOCK as u64, &accepted[8..]);
    let read = oncelog::Read { isolation: Isolation::Uncommitted, ..one_batch(1) };
    assert_eq!(log.read(read).expect("the batch behind the gap").next_offset, 3);
    assert_eq!(log.lag(0).expect("a count").records, 2);
}

/// What is damaged may be the record that is looked for: no answer, and no later one.
#[test]
fn a_look_for_a_time_does_not_pass_damage() {
    let place = Place::on_disk();
    let file = pairs(&place);
    let (position, _) = batch_starts(&file)[0];
    let (_engine, log) = place.open(&Config::default());
    assert_eq!(log.offset_for_timestamp(common::NOW_MS).expect("found"), Some((0, common::NOW_MS)));
    flip(&file, position + 70);
    let answer = log.offset_for_timestamp(common::NOW_MS);
    assert!(answer.as_ref().is_err_and(Error::is_corruption), "{answer:?}");
}

/// A header that claims the target for its batch used to be cut with everything behind it, records below the target
/// too.
#[test]
fn a_truncation_does_not_cut_where_a_damaged_header_says() {
    let place = Place::on_disk();
    let file = pairs(&place);
    let (position, offset) = batch_starts(&file)[3];
    let (_engine, log) = place.open(&Config::default());
    overwrite(&file, position + 23, &[0, 0, 1, 0]);
    let answer = log.truncate_to(offset + 6);
    assert!(answer.as_ref().is_err_and(Error::is_corruption), "{answer:?}");
    assert!(std::fs::metadata(&file).expect("a segment").len() > position, "the file was cut");
}

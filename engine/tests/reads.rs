//! A reader sees the same whether its bytes come from memory, from the page cache or past it.
#![allow(missing_docs)]

mod common;

use common::{NAME, Place, batch, options, put, read_from, small_segments, txn_batch};
use oncelog::{Append, Config, Engine, EngineOptions, Error, Fetched, Isolation, Log, Read};
use oncelog_formats::control::end_txn_marker_batch;

const ROUNDS: i32 = 120;

/// A generator that needs no crate: the same numbers every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn open(place: &Place, tail_bytes: usize, config: &Config) -> (Engine, Log) {
    let clock = Some(place.clock.clone() as _);
    let engine = EngineOptions { clock, driver: false, tail_bytes, read_ahead_bytes: 0, ..EngineOptions::default() };
    let engine = Engine::open(&place.dir, engine).expect("the engine opens");
    let log = engine.log(NAME, options(config)).expect("the log opens");
    (engine, log)
}

/// Batches of many sizes, some in transactions of which every other is aborted.
fn write(log: &Log) {
    let mut numbers = Numbers(7);
    for round in 0..ROUNDS {
        let bytes = [20, 300, 3_000, 20_000, 90_000][numbers.below(5) as usize];
        let values: Vec<String> =
            (0..1 + numbers.below(4)).map(|n| format!("{round}/{n}/{}", "x".repeat(bytes))).collect();
        if round % 3 == 0 {
            let (producer, commit) = (100 + i64::from(round), round % 2 == 0);
            put(log, &txn_batch(producer, 0, &values));
            put(log, &batch(5_000 + producer, 0, &values[..1]));
            let marker = end_txn_marker_batch(0, 0, producer, 0, commit, 0, common::NOW_MS);
            log.append_wait(Append::coordinator(&marker)).expect("the transaction ends");
        } else {
            put(log, &batch(1_000 + i64::from(round), 0, &values));
        }
    }
}

/// The same reads of both logs; all answers must be equal.
fn compare(one: &Log, other: &Log, what: &str) {
    let mut numbers = Numbers(11);
    let end = one.log_end_offset();
    assert_eq!(end, other.log_end_offset());
    for log in [one, other] {
        log.set_high_watermark(end).expect("open");
    }
    for number in 0..4_000 {
        let isolation = [Isolation::Uncommitted, Isolation::Committed, Isolation::LogEnd][numbers.below(3) as usize];
        let max_bytes = [0, 1, 500, 5_000, 70_000, 400_000, 3 << 20, usize::MAX >> 1][numbers.below(8) as usize];
        let offset = numbers.below(end as u64 + 2) as i64;
        let read = Read { offset, max_bytes, isolation, at_least_one: numbers.below(4) > 0 };
        if number % 500 == 250 {
            let watermark = numbers.below(end as u64) as i64;
            assert_eq!(one.set_high_watermark(watermark).unwrap(), other.set_high_watermark(watermark).unwrap());
        }
        match (one.read(read), other.read(read)) {
            (Ok(one), Ok(other)) => assert!(one == other, "{what}: {read:?}: {one:?} and {other:?}"),
            (Err(Error::OffsetOutOfRange { .. }), Err(Error::OffsetOutOfRange { .. })) => {}
            (one, other) => panic!("{what}: {read:?}: {one:?} and {other:?}"),
        }
    }
}

#[test]
fn memory_and_file_give_the_same_answers() {
    for segment_bytes in [500_000, 64 << 20] {
        let config = Config { max_message_bytes: 1 << 20, ..small_segments(segment_bytes) };
        let (with, without) = (Place::on_disk(), Place::on_disk());
        let (_one, tail) = open(&with, 64 << 20, &config);
        let (_other, files) = open(&without, 0, &config);
        write(&tail);
        write(&files);
        compare(&tail, &files, "tail and file");
        tail.kill();
        drop(_one);
        let (_again, cold) = open(&with, 64 << 20, &config);
        compare(&cold, &files, "reopened");
    }
}

#[test]
fn readers_in_step_share_one_copy_and_keep_it_past_a_truncation() {
    let place = Place::on_disk();
    let (_engine, log) = open(&place, 1 << 20, &small_segments(64 << 20));
    for sequence in 0..4 {
        put(&log, &batch(7, sequence, &[format!("{sequence}{}", "y".repeat(40_000))]));
    }
    let read = |offset| log.read(Read { max_bytes: 1, ..Read::from(offset) }).expect("readable").data;
    let (one, other) = (read(2), read(2));
    assert_eq!(one.as_ptr(), other.as_ptr(), "no copy for either");
    let kept = one.to_vec();
    log.truncate_to(1).expect("cut");
    put(&log, &batch(7, 1, &["z".repeat(40_000)]));
    put(&log, &batch(7, 2, &["z".repeat(40_000)]));
    assert!(*one == *kept, "what was handed out stays as it was");
    assert!(read(2) != one, "the log says something else now");
}

/// Reading on from where the last read ended needs no lookup; a reader that jumps does one. Both see everything once.
#[test]
fn a_thousand_readers_at_their_own_pace_see_everything() {
    let place = Place::on_disk();
    let (_engine, log) = open(&place, 0, &small_segments(100_000));
    for sequence in 0..300 {
        put(&log, &batch(7, sequence, &[format!("{sequence}/{}", "x".repeat(1_500))]));
    }
    let all = read_from(&log, 0, Isolation::LogEnd, 1 << 20).expect("readable");
    let mut places: Vec<i64> = (0..40).map(|reader| reader * 7).collect();
    let mut fetched: Vec<Vec<Fetched>> = vec![Vec::new(); places.len()];
    for turn in 0..200 {
        for (reader, offset) in places.iter_mut().enumerate() {
            let max_bytes = 2_000 * (1 + (reader + turn) % 5);
            let found = log.read(Read { offset: *offset, max_bytes, ..Read::from(0) }).expect("readable");
            *offset += oncelog_formats::Batches::new(&found.data).count() as i64;
            fetched[reader].push(found);
        }
    }
    for (reader, parts) in fetched.iter().enumerate() {
        let bytes: Vec<u8> = parts.iter().flat_map(|part| part.data.to_vec()).collect();
        let offsets: Vec<i64> =
            oncelog_formats::Batches::new(&bytes).map(|view| view.expect("a batch").header().base_offset).collect();
        let expected: Vec<i64> = all.iter().map(|(offset, _)| *offset).filter(|o| *o >= 7 * reader as i64).collect();
        assert_eq!(offsets, expected, "reader {reader}");
    }
}

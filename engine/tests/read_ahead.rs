//! What is read ahead of a reader is what he would have found himself, or is not used.
#![allow(missing_docs)]

mod common;

use common::{NAME, Place, batch, options, put, segment_files, single, small_segments};
use oncelog::{Config, Engine, EngineOptions, Error, Isolation, Log, Read};
use oncelog_formats::Batches;
use std::os::unix::fs::FileExt;

/// Windows of 12 KiB, two streams.
const WINDOWS: usize = 128 << 10;

fn open(place: &Place, read_ahead_bytes: usize, driver: bool, config: &Config) -> (Engine, Log) {
    let clock = Some(place.clock.clone() as _);
    let options_of_engine =
        EngineOptions { clock, driver, tail_bytes: 0, read_ahead_bytes, ..EngineOptions::default() };
    let engine = Engine::open(&place.dir, options_of_engine).expect("the engine opens");
    let log = engine.log(NAME, options(config)).expect("the log opens");
    (engine, log)
}

fn write(log: &Log, count: i32) {
    for sequence in 0..count {
        put(log, &single(7, sequence, [20, 700, 3_000, 5_000, 9_000, 30_000][sequence as usize % 6]));
    }
}

fn read(log: &Log, offset: i64, max_bytes: usize) -> Result<(Vec<u8>, i64), Error> {
    let fetched = log.read(Read { max_bytes, isolation: Isolation::LogEnd, ..Read::from(offset) })?;
    Ok((fetched.data.to_vec(), fetched.next_offset))
}

/// Reads on from `from` to the end.
fn read_on(log: &Log, from: i64, max_bytes: usize) -> Vec<u8> {
    let (mut all, mut offset) = (Vec::new(), from);
    loop {
        let (data, next) = read(log, offset, max_bytes).expect("readable");
        if data.is_empty() {
            return all;
        }
        assert_eq!(Batches::new(&data).next().expect("a batch").expect("sound").header().base_offset, offset);
        all.extend(data);
        offset = next;
    }
}

#[test]
fn who_reads_on_sees_every_byte_over_all_segments_with_threads_and_without() {
    for (segment_bytes, driver) in
        [(64 << 20, true), (200_000, true), (20_000, true), (64 << 20, false), (40_000, false)]
    {
        let place = Place::on_disk();
        let config = small_segments(segment_bytes.max(40_000));
        let (engine, log) = open(&place, WINDOWS, driver, &config);
        write(&log, 300);
        let stored: Vec<u8> = {
            let bases = log.describe().expect("open").segments;
            bases.iter().flat_map(|s| log.read_segment(s.base_offset).expect("readable")).collect()
        };
        for max_bytes in [1, 4_000, 12 << 10, 100_000] {
            assert!(read_on(&log, 0, max_bytes) == stored, "segments of {segment_bytes}, reads of {max_bytes}");
        }
        // Three at a time, of which there is memory for two.
        let mut places = [(0, Vec::new()), (0, Vec::new()), (0, Vec::new())];
        while places.iter().any(|(_, all)| all.len() < stored.len()) {
            for (at, (offset, all)) in places.iter_mut().enumerate() {
                let (data, next) = read(&log, *offset, 3_000 << at).expect("readable");
                all.extend(data);
                *offset = next;
            }
        }
        assert!(places.iter().all(|(_, all)| *all == stored));
        engine.close().expect("a clean close");
    }
}

#[test]
fn reading_on_takes_fewer_and_larger_transfers() {
    let place = Place::on_disk();
    let (_engine, log) = open(&place, WINDOWS, false, &small_segments(64 << 20));
    for sequence in 0..200 {
        put(&log, &single(7, sequence, 1_000));
    }
    // Answers that lie side by side in one buffer came from one transfer.
    let mut neighbours = 0;
    let (mut offset, mut end) = (0, std::ptr::null());
    while offset < 200 {
        let fetched = log.read(Read { max_bytes: 1, isolation: Isolation::LogEnd, ..Read::from(offset) }).unwrap();
        neighbours += u32::from(fetched.data.as_ptr() == end);
        (offset, end) = (fetched.next_offset, fetched.data.as_ptr_range().end);
    }
    assert!(neighbours > 150, "{neighbours} of 200");
}

#[test]
fn a_truncation_makes_what_was_read_ahead_worthless() {
    for driver in [false, true] {
        let place = Place::on_disk();
        let (_engine, log) = open(&place, WINDOWS, driver, &small_segments(64 << 20));
        for sequence in 0..60 {
            put(&log, &single(7, sequence, 1_000));
        }
        let mut offset = 0;
        while offset < 6 {
            offset = read(&log, offset, 1).expect("readable").1;
        }
        log.truncate_to(8).expect("cut");
        for sequence in 8..60 {
            put(&log, &batch(7, sequence, &["n".repeat(1_000 + sequence as usize)]));
        }
        let stored = log.read_segment(0).expect("readable");
        let seen = read_on(&log, 6, 1);
        assert!(stored.ends_with(&seen) && Batches::new(&seen).count() == 54);
    }
}

#[test]
fn retention_takes_segments_from_under_a_reader() {
    let place = Place::on_disk();
    let config = Config { file_delete_delay_ms: 0, ..small_segments(40_000) };
    let (_engine, log) = open(&place, WINDOWS, false, &config);
    for sequence in 0..200 {
        put(&log, &single(7, sequence, 1_000));
    }
    let mut offset = 0;
    while offset < 30 {
        offset = read(&log, offset, 1).expect("readable").1;
    }
    log.delete_records(100).expect("the log start moves");
    log.apply_retention().expect("segments go");
    log.drive().expect("files go");
    assert!(segment_files(&place.dir).len() < 5, "no reader holds a file");
    assert!(matches!(read(&log, offset, 1), Err(Error::OffsetOutOfRange { .. })));
    assert_eq!(Batches::new(&read_on(&log, 100, 5_000)).count(), 100);
}

#[test]
fn damage_ahead_is_told_where_it_is() {
    for driver in [false, true] {
        let place = Place::on_disk();
        let (_engine, log) = open(&place, WINDOWS, driver, &small_segments(64 << 20));
        for sequence in 0..100 {
            put(&log, &single(7, sequence, 1_000));
        }
        let stored = log.read_segment(0).expect("readable");
        let hit: usize = Batches::new(&stored).take(50).map(|view| view.expect("a batch").bytes().len()).sum();
        let file = std::fs::OpenOptions::new().write(true).open(&segment_files(&place.dir)[0]).expect("the segment");
        file.write_all_at(b"!", hit as u64 + 500).expect("a byte is hit");
        file.sync_all().expect("on disk");
        let mut offset = 0;
        let error = loop {
            match read(&log, offset, 3_000) {
                Ok((_, next)) if next > offset => offset = next,
                Ok(_) => panic!("nobody saw it"),
                Err(error) => break error,
            }
        };
        let Error::Damaged(damage) = &error else { panic!("{error}") };
        assert_eq!((damage.offset, offset), (50, 50), "{error}");
        assert_eq!(damage.position, hit as u64, "{error}");
        assert!(matches!(read(&log, offset, 3_000), Err(Error::Damaged(_))), "and again");
    }
}

#[test]
fn what_nobody_reads_on_from_is_let_go_of() {
    let place = Place::on_disk();
    let (engine, log) = open(&place, WINDOWS / 2, false, &small_segments(64 << 20));
    for sequence in 0..100 {
        put(&log, &single(7, sequence, 1_000));
    }
    let begin = |from: i64| {
        let (_, offset) = read(&log, from, 1).expect("readable");
        read(&log, offset, 1).expect("readable").1
    };
    let streams = || {
        let text = engine.metrics_text();
        let line = text.lines().find(|line| line.starts_with("oncelog_read_ahead_streams ")).expect("told");
        line.rsplit(' ').next().unwrap().parse::<u32>().expect("a number")
    };
    assert_eq!(streams(), 0);
    begin(0);
    begin(50);
    assert_eq!(streams(), 1, "there is memory for one");
    place.clock.advance(60_000);
    log.drive().expect("driven");
    assert_eq!(streams(), 0);
}

//! Who reads the end of a log while it grows sees whole batches that follow on, and never takes a write on its way for
//! damage.

mod common;

use std::sync::atomic::{AtomicI64, Ordering};

use common::{Place, single, small_segments};
use oncelog::{Ack, Append, Isolation, Log, Read};
use oncelog_formats::Batches;
use oncelog_formats::batch::stamp;

/// Every batch has one record and lies behind a gap of this many offsets: nothing but its neighbours bears it out.
const GAP: i64 = 2;
const BATCHES: i64 = 1_000;

fn write(log: &Log, appended: &AtomicI64) {
    for number in 0..BATCHES {
        let mut bytes = single(-1, -1, 60 + (number * 37 % 700) as usize);
        let base_offset = number * (GAP + 1) + GAP;
        stamp(&mut bytes, base_offset, 0).expect("a whole batch");
        let ack = [Ack::Accepted, Ack::Accepted, Ack::Written, Ack::Durable][(number % 4) as usize];
        let append = Append { ack, ..Append::replica(&bytes, 0) };
        assert_eq!(log.append_wait(append).expect("it is stored").base_offset, base_offset);
        appended.store(base_offset + 1, Ordering::Release);
    }
}

/// From the middle of a gap near the end: where no batch begins, an answer comes from the file.
fn read(log: &Log, appended: &AtomicI64, back: i64, is_over: impl Fn() -> bool) {
    while !is_over() {
        let end = appended.load(Ordering::Acquire);
        let from = ((end - 1) / (GAP + 1) - back).max(0) * (GAP + 1) + 1;
        if end > from {
            let read = Read { isolation: Isolation::LogEnd, max_bytes: 4_000, ..Read::from(from) };
            let fetched = log.read(read).unwrap_or_else(|error| panic!("from {from}, {end} appended: {error}"));
            let mut expected = from - 1 + GAP;
            for batch in Batches::new(&fetched.data) {
                assert_eq!(batch.expect("a whole batch").header().base_offset, expected, "from {from}");
                expected += GAP + 1;
            }
            assert!(fetched.next_offset > from, "from {from}, {end} appended: nothing");
            log.offset_for_timestamp(common::NOW_MS).expect("a look for a time");
            log.lag(log.log_start_offset()).expect("a count");
        }
    }
}

#[test]
fn readers_of_a_growing_end_see_no_damage() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&small_segments(200_000));
    let appended = AtomicI64::new(0);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| write(&log, &appended));
        std::thread::scope(|readers| {
            for back in [0, 1, 5] {
                let (log, appended, writer) = (&log, &appended, &writer);
                readers.spawn(move || read(log, appended, back, || writer.is_finished()));
            }
        });
        writer.join().expect("a writer");
    });
}

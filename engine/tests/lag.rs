//! What a committed reader has still to read is what it is then shown, whatever was counted before.

mod common;

use common::{NOW_MS, Place, small_segments, txn_batch};
use oncelog::{Append, Log};
use oncelog_device::MemoryDevice;
use oncelog_formats::control::end_txn_marker_batch;

/// Transactions of three producers, one after the other and each over two batches; every third one is aborted.
fn append(log: &Log, rounds: std::ops::Range<i32>) {
    for round in rounds {
        for (producer, records) in [(1, 1), (2, 3), (3, 2)] {
            for half in 0..2 {
                let values = vec!["x".repeat(40); records as usize];
                let batch = txn_batch(producer, (2 * round + half) * records, &values);
                log.append_wait(Append::client(&batch)).expect("it is stored");
            }
            let marker = end_txn_marker_batch(0, 0, producer, 0, (round + records) % 3 > 0, 0, NOW_MS);
            log.append_wait(Append::coordinator(&marker)).expect("it is stored");
        }
    }
}

/// Records and bytes that a committed reader is shown from `position` on.
fn shown(log: &Log, position: i64) -> (u64, u64) {
    let (mut records, mut bytes, mut offset) = (0, 0, position);
    loop {
        let read = log.read_committed(offset, 1 << 20).expect("a read");
        for batch in read.batches() {
            let header = *batch.expect("a whole batch").header();
            records += (header.last_offset() - header.base_offset.max(position) + 1) as u64;
            bytes += header.size_bytes() as u64;
        }
        if read.next_offset() == offset {
            return (records, bytes);
        }
        offset = read.next_offset();
    }
}

fn check(log: &Log) {
    for position in (log.log_start_offset()..=log.log_end_offset()).step_by(7) {
        let lag = log.lag(position).expect("a lag");
        assert_eq!((lag.records, lag.bytes), shown(log, position), "at {position}");
    }
}

#[test]
fn a_lag_is_what_is_shown_then() {
    let place = Place::in_memory(&MemoryDevice::new());
    let (_engine, log) = place.open(&small_segments(3_000));
    append(&log, 0..40);
    check(&log);
    append(&log, 40..60);
    check(&log);
    // What was counted of a segment that is gone, or begins with other batches now, counts no more.
    let third = log.describe().expect("a log").segments[2].base_offset;
    log.delete_records(third + 5).expect("the log start moves");
    log.apply_retention().expect("segments go");
    check(&log);
    log.truncate_to(third + 40).expect("it is cut");
    for producer in 1..=3 {
        let end = end_txn_marker_batch(0, 0, producer, 1, true, 0, NOW_MS);
        log.append_wait(Append::coordinator(&end)).expect("it is stored");
        let plain = common::single(9, producer as i32 - 1, 900);
        log.append_wait(Append::client(&plain)).expect("it is stored");
    }
    check(&log);
    log.truncate_fully_and_start_at(third, None).expect("it is emptied");
    for sequence in 3..13 {
        common::put(&log, &common::single(9, sequence, 900));
    }
    check(&log);
}

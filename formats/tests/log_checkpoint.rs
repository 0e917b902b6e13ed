//! A checkpoint comes back as it was written, and not at all if a bit of it has changed.

use oncelog_formats::log_checkpoint::{HEADER_BYTES, LogCheckpoint, PageRef, SegmentPoint, file_name, parse_file_name};
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_formats::{OffsetEntry, TimeEntry};

fn full() -> LogCheckpoint {
    LogCheckpoint {
        log_end_offset: 900,
        parent: Some(700),
        producer_count: 3,
        digest: 0xfedc_ba98,
        made_ms: 1_700_000_000_000,
        complete_from: 12,
        transactional_from: Some(40),
        leader_epoch: Some(6),
        segment: SegmentPoint {
            base_offset: 500,
            size_bytes: 1 << 33,
            last_batch: Some((77_777, 0xdead_beef)),
            largest: Some(TimeEntry { timestamp: 99, offset: 880 }),
            bytes_since_entry: 5,
            offset_entries_before: 1,
            time_entries_before: 2,
            aborted_before: 3,
        },
        open_txns: vec![(7, 650), (8, 890)],
        offset_entries: vec![OffsetEntry { offset: 600, position: 4242 }],
        time_entries: vec![TimeEntry { timestamp: 50, offset: 600 }, TimeEntry { timestamp: 60, offset: 601 }],
        aborted: vec![AbortedTxn { producer_id: 7, first_offset: 1, last_offset: 2, last_stable_offset: 3 }],
        pages: vec![PageRef { first_hash: 1 << 60, position: 0, length: 4100, crc: 17 }],
    }
}

#[test]
fn one_comes_back_with_its_pages_behind_it() {
    for written in [full(), LogCheckpoint { log_end_offset: 1, ..LogCheckpoint::default() }] {
        let bytes = written.encode();
        assert_eq!(LogCheckpoint::head_bytes(&bytes[..HEADER_BYTES]), Ok(bytes.len() as u64));
        let mut read = LogCheckpoint::decode(&[&bytes[..], b"pages"].concat()).unwrap();
        for page in &mut read.pages {
            page.position -= bytes.len() as u64;
        }
        assert_eq!(read, written);
    }
}

#[test]
fn a_changed_bit_or_a_lost_byte_is_seen() {
    let bytes = full().encode();
    for at in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[at / 8] ^= 1 << (at % 8);
        assert!(LogCheckpoint::decode(&changed).is_err(), "bit {at}");
    }
    for length in 0..bytes.len() {
        assert!(LogCheckpoint::decode(&bytes[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn only_its_own_names_are_read() {
    assert_eq!(file_name(42), "00000000000000000042.checkpoint-oncelog");
    assert_eq!(parse_file_name("00000000000000000042.checkpoint-oncelog"), Some(42));
    for other in ["42.checkpoint-oncelog", "00000000000000000042.snapshot", "+0000000000000000042.checkpoint-oncelog"] {
        assert_eq!(parse_file_name(other), None, "{other}");
    }
}

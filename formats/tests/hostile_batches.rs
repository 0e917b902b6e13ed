//! Whatever the bytes are, reading them ends in values or errors: no panic, nothing above the limit.

use oncelog_formats::batch::{self, frame_in_memory};
use oncelog_formats::compress::compress;
use oncelog_formats::{BatchBuilder, BatchView, Batches, Compression, TimestampType};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMIT_BYTES: usize = 4096;

/// Reads everything that can be read of `bytes`; gives the number of records.
fn read_all(bytes: &[u8]) -> usize {
    let _ = frame_in_memory(bytes);
    let mut count = 0;
    for view in Batches::new(bytes).flatten() {
        let header = view.header();
        let _ = (header.next_offset(), header.last_sequence(), header.compression(), header.delete_horizon());
        let _ = (view.verify_crc(), view.control());
        let Ok(records) = view.decode(LIMIT_BYTES) else {
            continue;
        };
        assert!(records.body().len() <= LIMIT_BYTES.max(view.body().len()));
        for record in records.records().flatten() {
            assert!(record.headers.count() <= view.bytes().len().max(LIMIT_BYTES));
            count += 1;
        }
    }
    let mut copy = bytes.to_vec();
    if batch::set_timestamps(&mut copy, TimestampType::LogAppendTime, 1) == Ok(true) {
        assert!(BatchView::new(&copy).map_or(true, |view| view.is_valid()));
    }
    let _ = batch::stamp(&mut copy, i64::MAX, i32::MAX);
    count
}

/// Timestamp, key, value.
type Written = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn batch_of(codec: Compression, records: &[Written]) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compression(codec).producer(1, 2, 3);
    for (timestamp, key, value) in records {
        let headers = [(&b"h"[..], value.as_deref()), (b"", None)];
        builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers[..usize::from(key.is_some()) * 2]);
    }
    builder.build().unwrap()
}

fn any_batch() -> impl Strategy<Value = (Vec<u8>, usize)> {
    let field = || proptest::option::of(vec(any::<u8>(), 0..20));
    let records = vec((any::<i64>(), field(), field()), 1..20);
    let mut codecs = Compression::ALL.to_vec();
    codecs.retain(|&codec| compress(codec, b"").is_ok());
    (proptest::sample::select(codecs), records).prop_map(|(codec, records)| (batch_of(codec, &records), records.len()))
}

proptest! {
    #[test]
    fn random_bytes(bytes in vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn random_bodies((mut bytes, _) in any_batch(), body in vec(any::<u8>(), 0..200), count in any::<i32>()) {
        bytes.truncate(61);
        bytes.extend_from_slice(&body);
        bytes[8..12].copy_from_slice(&(49 + body.len() as i32).to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        read_all(&bytes);
    }

    #[test]
    fn mutated_batches((mut bytes, _) in any_batch(), changes in vec((any::<usize>(), any::<u8>()), 1..6), cut in any::<usize>()) {
        for (position, value) in changes {
            let position = position % bytes.len();
            bytes[position] = value;
        }
        read_all(&bytes);
        read_all(&bytes[..cut % bytes.len()]);
    }

    #[test]
    fn what_is_built_is_read((bytes, count) in any_batch()) {
        prop_assert!(BatchView::new(&bytes).unwrap().is_valid());
        prop_assert_eq!(read_all(&bytes), count);
    }
}

#[cfg(feature = "std")]
#[test]
fn a_small_batch_of_much_is_stopped_at_the_limit() {
    for codec in Compression::ALL.into_iter().skip(1) {
        let bytes = batch_of(codec, &[(0, None, Some(vec![0; 1 << 20]))]);
        assert!(bytes.len() < 1 << 17, "{} takes {}", codec.name(), bytes.len());
        let view = BatchView::new(&bytes).unwrap();
        let refused = view.decode(LIMIT_BYTES).map(drop);
        let too_large =
            oncelog_formats::FormatError::TooLarge { what: "decompressed records", limit_bytes: LIMIT_BYTES };
        assert_eq!(refused, Err(too_large), "{}", codec.name());
        assert_eq!(view.decode(2 << 20).unwrap().records().count(), 1);
    }
}

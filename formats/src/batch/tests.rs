use alloc::vec::Vec;

use super::*;
use crate::crc32c::crc32c;
use crate::error::FormatError;
use crate::num::sequence_add;
use crate::record::BatchBuilder;

/// Offsets 42, one record.
fn one() -> Vec<u8> {
    let mut builder = BatchBuilder::new().base_offset(42);
    builder.append(7, Some(b"k"), Some(b"v"), &[]).build().unwrap()
}

#[test]
fn framing_follows_kafkas_order_of_checks() {
    let batch = one();
    let framed = |change: fn(&mut Vec<u8>), length: usize| {
        let mut bytes = batch.clone();
        change(&mut bytes);
        frame_in_memory(&bytes[..length])
    };
    let whole = batch.len();
    let short_length: fn(&mut Vec<u8>) = |bytes| bytes[8..12].copy_from_slice(&13i32.to_be_bytes());
    let length_14: fn(&mut Vec<u8>) = |bytes| bytes[11] = 14;
    let magic_3: fn(&mut Vec<u8>) = |bytes| bytes[16] = 3;
    let magic_minus_1: fn(&mut Vec<u8>) = |bytes| bytes[16] = 0xff;
    let magic_1: fn(&mut Vec<u8>) = |bytes| bytes[16] = 1;
    let keep: fn(&mut Vec<u8>) = |_| ();
    let bad_length = Err(FormatError::BadLength { what: "record batch", value: 13 });
    for (case, change, length, expected) in [
        ("whole", keep, whole, Ok(Some(whole))),
        ("empty", keep, 0, Ok(None)),
        ("short of the length", short_length, 11, Ok(None)),
        ("length 13, magic not there", short_length, 12, bad_length.clone()),
        ("length 13", short_length, whole, bad_length),
        ("length 14", length_14, whole, Ok(Some(26))),
        ("short of the magic", magic_3, 16, Ok(None)),
        ("magic 3, cut off", magic_3, 17, Err(FormatError::BadMagic { magic: 3 })),
        ("magic -1", magic_minus_1, whole, Err(FormatError::BadMagic { magic: -1 })),
        ("magic 1", magic_1, whole, Ok(Some(whole))),
        ("one byte short", keep, whole - 1, Ok(None)),
    ] {
        assert_eq!(framed(change, length), expected, "{case}");
    }
}

#[test]
fn a_length_below_a_header_frames_but_is_no_batch() {
    let mut bytes = one();
    bytes[8..12].copy_from_slice(&48i32.to_be_bytes());
    assert_eq!(frame_in_memory(&bytes), Ok(Some(60)));
    let bad_length = FormatError::BadLength { what: "record batch", value: 48 };
    assert_eq!(BatchView::new(&bytes).unwrap_err(), bad_length);
    assert_eq!(Batches::new(&bytes).map(|batch| batch.unwrap_err()).collect::<Vec<_>>(), [bad_length]);
}

#[test]
fn views_refuse_what_is_not_whole_or_not_magic_2() {
    let mut bytes = one();
    let have = bytes.len() - 1;
    let cut_off = FormatError::Truncated { what: "record batch", need: bytes.len(), have };
    assert_eq!(BatchView::new(&bytes[..have]).unwrap_err(), cut_off);
    let no_header = FormatError::Truncated { what: "record batch", need: 61, have: 60 };
    assert_eq!(BatchView::new(&bytes[..60]).unwrap_err(), no_header);
    bytes[16] = 1;
    assert_eq!(BatchView::new(&bytes).unwrap_err(), FormatError::BadMagic { magic: 1 });
}

#[test]
fn iteration_stops_at_a_torn_tail_and_after_an_error() {
    let batch = one();
    let mut bytes = [&batch[..], &batch, &batch[..20]].concat();
    let mut batches = Batches::new(&bytes);
    assert_eq!(batches.by_ref().map(|batch| batch.unwrap().bytes().len()).sum::<usize>(), 2 * batch.len());
    assert_eq!(batches.position(), 2 * batch.len());
    bytes[batch.len() + 16] = 9;
    let mut batches = Batches::new(&bytes);
    assert!(batches.next().unwrap().is_ok());
    assert_eq!(batches.next().unwrap().unwrap_err(), FormatError::BadMagic { magic: 9 });
    assert!(batches.next().is_none());
    assert_eq!(batches.position(), batch.len());
}

#[test]
fn the_crc_covers_attributes_to_end_and_nothing_before() {
    let good = one();
    for position in 0..good.len() {
        let mut bytes = good.clone();
        bytes[position] ^= 1;
        // A changed length or magic is no batch of this size any more.
        if (8..12).contains(&position) || position == 16 {
            continue;
        }
        assert_eq!(BatchView::new(&bytes).unwrap().is_valid(), position < 16, "byte {position}");
    }
    let mut bytes = good;
    bytes[26] ^= 1;
    let view = BatchView::new(&bytes).unwrap();
    let (stored, computed) = (view.header().crc, crc32c(&bytes[21..]));
    assert_eq!(view.verify_crc(), Err(FormatError::CrcMismatch { what: "record batch", stored, computed }));
}

#[test]
fn stamping_moves_offset_and_epoch_and_keeps_the_batch_valid() {
    let mut bytes = one();
    stamp(&mut bytes, 1000, 9).unwrap();
    let view = BatchView::new(&bytes).unwrap();
    assert!(view.is_valid());
    assert_eq!((view.header().last_offset(), view.header().partition_leader_epoch), (1000, 9));
    assert!(stamp(&mut bytes[..60], 0, 0).is_err());
}

#[test]
fn timestamps_are_rewritten_only_if_they_differ() {
    let mut bytes = one();
    // An attribute bit without a meaning, and a CRC that is wrong: both must survive a call that changes nothing.
    bytes[21] = 0x80;
    bytes[22] = 0x80;
    let before = bytes.clone();
    assert_eq!(set_timestamps(&mut bytes, TimestampType::CreateTime, 7), Ok(false));
    assert_eq!(bytes, before);

    bytes.extend_from_slice(b"next");
    assert_eq!(set_timestamps(&mut bytes, TimestampType::LogAppendTime, 7), Ok(true));
    let view = BatchView::new(&bytes).unwrap();
    assert!(view.is_valid());
    assert_eq!((view.header().attributes, view.header().max_timestamp), (0x08, 7));
    assert!(bytes.ends_with(b"next"));

    assert_eq!(set_timestamps(&mut bytes, TimestampType::CreateTime, 8), Ok(true));
    let header = *BatchView::new(&bytes).unwrap().header();
    assert_eq!((header.attributes, header.max_timestamp, header.base_timestamp), (0, 8, 7));
}

#[test]
fn rewriting_timestamps_keeps_every_known_bit() {
    let mut bytes = one();
    bytes[21..23].copy_from_slice(&0x7ff4u16.to_be_bytes());
    assert_eq!(set_timestamps(&mut bytes, TimestampType::LogAppendTime, 7), Ok(true));
    assert_eq!(BatchHeader::parse(&bytes).unwrap().attributes, 0x7c);
    bytes[22] |= 7;
    let before = bytes.clone();
    assert_eq!(set_timestamps(&mut bytes, TimestampType::CreateTime, 7), Err(FormatError::UnknownCodec(7)));
    assert_eq!(bytes, before);
}

#[test]
fn derived_values_wrap_or_saturate() {
    let mut header = BatchHeader::parse(&one()).unwrap();
    header.last_offset_delta = 2;
    assert_eq!((header.last_offset(), header.next_offset(), header.last_sequence()), (44, 45, NO_SEQUENCE));
    header.base_sequence = i32::MAX - 1;
    assert_eq!(header.last_sequence(), 0);
    header.base_sequence = -2;
    assert_eq!(header.last_sequence(), sequence_add(-2, 2));
    header.base_offset = i64::MAX;
    assert_eq!(header.next_offset(), i64::MAX);
    header.attributes = DELETE_HORIZON | CONTROL | 6;
    assert_eq!((header.delete_horizon(), header.is_control(), header.is_transactional()), (Some(7), true, false));
    assert_eq!(header.compression(), Err(FormatError::UnknownCodec(6)));
}

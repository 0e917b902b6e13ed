use alloc::vec::Vec;

use super::*;
use crate::batch::seal;
use crate::compress::compress;

const KEY: Option<&[u8]> = Some(b"k");

/// Three records; `count` in the header.
fn three(codec: Compression, count: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new().compression(codec).record_count(count);
    for timestamp in 0..3 {
        builder.append(timestamp, KEY, Some(b"v"), &[]);
    }
    builder.build().unwrap()
}

/// A batch that claims one record and has this body.
fn with_body(body: &[u8]) -> Vec<u8> {
    let mut bytes = BatchBuilder::new().record_count(1).build().unwrap();
    bytes.extend_from_slice(body);
    bytes[8..12].copy_from_slice(&(49 + body.len() as i32).to_be_bytes());
    seal(&mut bytes).unwrap();
    bytes
}

fn validate(bytes: &[u8]) -> Result<()> {
    BatchView::new(bytes)?.decode(1000)?.validate()
}

fn invalid(reason: &'static str) -> Result<()> {
    Err(FormatError::InvalidRecord { reason })
}

#[test]
fn a_count_that_is_not_true_is_an_error_both_ways() {
    for codec in [Compression::None, Compression::Gzip] {
        if compress(codec, b"").is_err() {
            continue;
        }
        assert_eq!(validate(&three(codec, 3)), Ok(()));
        assert_eq!(validate(&three(codec, 5)), invalid("number is cut off"), "{}", codec.name());
        assert_eq!(validate(&three(codec, 2)), invalid("bytes behind the last record"), "{}", codec.name());
        assert_eq!(validate(&three(codec, -1)), invalid("record count is negative"), "{}", codec.name());
        assert_eq!(validate(&three(codec, 0)), Ok(()), "Kafka does not look at the body then");
    }
}

#[test]
fn an_error_is_the_last_item() {
    let bytes = three(Compression::None, 5);
    let records = BatchView::new(&bytes).unwrap().decode(0).unwrap();
    let kinds: Vec<_> = records.records().map(|record| record.is_ok()).collect();
    assert_eq!(kinds, [true, true, true, false]);
}

#[test]
fn every_break_of_a_record_is_named() {
    for (body, reason) in [
        (&b"\x01"[..], "negative record length"),
        (b"\x0c\0\0\0\x01\x01", "record is cut off"),
        (b"\xff\xff\xff\xff\xff\x01", "number is too long"),
        (b"\x00", "record is empty"),
        (b"\x02\0", "number is cut off"),
        (b"\x0c\0\0\0\x06\x01\0", "field is longer than its record"),
        (b"\x0c\0\0\0\x01\x01\x01", "negative header count"),
        (b"\x0e\0\0\0\x01\x01\x04\x00", "more headers than bytes"),
        (b"\x10\0\0\0\x01\x01\x02\x01\x01", "negative header key length"),
        (b"\x0e\0\0\0\x01\x01\0\0", "record is shorter than its length"),
    ] {
        assert_eq!(validate(&with_body(body)), invalid(reason), "{body:?}");
    }
    assert_eq!(validate(&with_body(b"\x0c\0\0\0\x01\x01\0")), Ok(()));
}

#[test]
fn any_negative_length_is_null() {
    let bytes = with_body(b"\x0c\0\0\0\x05\x09\0");
    let records = BatchView::new(&bytes).unwrap().decode(0).unwrap();
    let record = records.records().next().unwrap().unwrap();
    assert_eq!((record.key, record.value, record.headers.len()), (None, None, 0));
}

#[test]
fn a_delete_horizon_becomes_the_base_of_timestamps() {
    let mut builder = BatchBuilder::new().delete_horizon(5000);
    builder.append_with_delta(2, 1000, KEY, None, &[]).append_with_delta(7, 1010, KEY, None, &[]);
    let bytes = builder.build().unwrap();
    let view = BatchView::new(&bytes).unwrap();
    assert_eq!((view.header().delete_horizon(), view.header().max_timestamp), (Some(5000), 1010));
    let records = view.decode(0).unwrap();
    let seen: Vec<_> =
        records.records().map(|record| record.map(|r| (r.offset, r.timestamp_delta, r.timestamp))).collect();
    assert_eq!(seen, [Ok((2, -4000, 1000)), Ok((7, -3990, 1010))]);
    assert_eq!(view.header().last_offset_delta, 7);
}

#[test]
fn a_builder_can_be_used_again() {
    let mut builder = BatchBuilder::new().base_offset(5);
    let first = builder.append(1, KEY, None, &[]).build().unwrap();
    assert_eq!(builder.append(1, KEY, None, &[]).build(), Ok(first));
}

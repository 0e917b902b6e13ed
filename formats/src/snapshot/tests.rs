//! Kafka's table of what a reader does with which file, a row a test; then the extension.

use super::*;
use alloc::vec;
use proptest::prelude::*;

const ENTRIES: [SnapshotEntry; 2] = [
    SnapshotEntry {
        producer_id: 1,
        epoch: 2,
        last_sequence: 1,
        last_offset: 2,
        offset_delta: 3,
        timestamp: -1,
        coordinator_epoch: 3,
        current_txn_first_offset: 100,
    },
    SnapshotEntry {
        producer_id: 11,
        epoch: 12,
        last_sequence: -1,
        last_offset: -1,
        offset_delta: 0,
        timestamp: 123_456,
        coordinator_epoch: 13,
        current_txn_first_offset: -1,
    },
];

fn golden() -> Vec<u8> {
    hex::decode(
        "0001fedf4e50000000020000000000000001000200000001000000000000000200000003ffffffffffffffff00000003\
         0000000000000064000000000000000b000cffffffffffffffffffffffff00000000000000000001e2400000000dffffffffffffffff",
    )
    .unwrap()
}

/// Kafka's checksum made right again after a change.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32c(&bytes[CRC_FROM..]);
    bytes[2..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn plain(entries: &[SnapshotEntry]) -> SnapshotFile {
    SnapshotFile { entries: entries.to_vec(), extension: None }
}

#[test]
fn kafkas_own_bytes_both_ways() {
    assert_eq!(plain(&ENTRIES).encode(), golden());
    assert_eq!(SnapshotFile::decode_with_trailing(&golden()), Ok((plain(&ENTRIES), Trailing::Nothing)));
    let none = hex::decode("000148674bc700000000").unwrap();
    assert_eq!(plain(&[]).encode(), none);
    assert_eq!(SnapshotFile::decode(&none), Ok(plain(&[])));
}

#[test]
fn what_kafka_restores_of_an_entry() {
    let batch = ENTRIES[0].last_batch().unwrap();
    assert_eq!((batch.first_sequence, batch.last_sequence), (i32::MAX - 1, 1), "sequences wrap");
    assert_eq!((batch.first_offset, batch.last_offset, batch.timestamp), (-1, 2, -1));
    assert_eq!(ENTRIES[0].open_txn(), Some(100));
    assert_eq!((ENTRIES[1].last_batch(), ENTRIES[1].open_txn()), (None, None));
}

#[test]
fn trailing_bytes_outside_the_checksum_are_corruption() {
    let mut bytes = golden();
    bytes.push(0);
    assert!(matches!(SnapshotFile::decode(&bytes), Err(FormatError::CrcMismatch { .. })));
}

#[test]
fn trailing_bytes_inside_the_checksum_are_ignored() {
    for extra in [7, 5000] {
        let mut bytes = golden();
        bytes.resize(bytes.len() + extra, 0xab);
        assert_eq!(
            SnapshotFile::decode_with_trailing(&sealed(bytes)),
            Ok((plain(&ENTRIES), Trailing::Foreign)),
            "{extra} bytes"
        );
    }
}

#[test]
fn a_count_below_the_entries_there_hides_the_rest() {
    let mut bytes = golden();
    bytes[9] = 1;
    assert_eq!(SnapshotFile::decode(&sealed(bytes)), Ok(plain(&ENTRIES[..1])));
}

#[test]
fn other_versions_are_corruption() {
    for version in [0i16, 2, -1] {
        let mut bytes = golden();
        bytes[..2].copy_from_slice(&version.to_be_bytes());
        let expected = FormatError::BadVersion { what: WHAT, version: version.into() };
        assert_eq!(SnapshotFile::decode(&bytes), Err(expected));
    }
}

#[test]
fn every_bit_flip_is_corruption() {
    for bit in 0..golden().len() * 8 {
        let mut bytes = golden();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(SnapshotFile::decode(&bytes).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_and_all_zeroes_are_corruption() {
    let bytes = golden();
    for length in 0..bytes.len() {
        assert!(SnapshotFile::decode(&bytes[..length]).is_err(), "{length} bytes");
        if length >= HEADER_BYTES {
            assert!(SnapshotFile::decode(&sealed(bytes[..length].to_vec())).is_err(), "{length} bytes, checksum right");
        }
        assert!(SnapshotFile::decode(&vec![0; length]).is_err(), "{length} zeroes");
    }
}

#[test]
fn impossible_counts_are_corruption_and_allocate_nothing() {
    for count in [-1, 3, 92, i32::MAX] {
        let mut bytes = golden();
        bytes[CRC_FROM..HEADER_BYTES].copy_from_slice(&count.to_be_bytes());
        let expected = FormatError::BadLength { what: "number of producers", value: count.into() };
        assert_eq!(SnapshotFile::decode(&sealed(bytes)), Err(expected));
    }
}

#[test]
fn a_producer_twice_and_a_negative_one_are_accepted() {
    let negative = SnapshotEntry { producer_id: -7, ..ENTRIES[0] };
    let file = plain(&[ENTRIES[0], ENTRIES[0], negative]);
    assert_eq!(SnapshotFile::decode(&file.encode()), Ok(file));
}

fn extended() -> SnapshotFile {
    let batch = |n: i64| BatchMeta {
        first_sequence: n as i32,
        last_sequence: n as i32 + 1,
        first_offset: n * 2,
        last_offset: n * 2 + 1,
        timestamp: 1000 + n,
    };
    let extension = Extension {
        producers: vec![
            ProducerExtra {
                producer_id: 1,
                last_append_ms: 77,
                forgotten: false,
                batches: (0..5).map(batch).collect(),
            },
            ProducerExtra { producer_id: 11, last_append_ms: -1, forgotten: false, batches: vec![] },
        ],
        log_end_offset: 12,
        durable_offset: 9,
        digest: 0xdead_beef_0bad_cafe,
        sealed: Some(SealedSegment { base_offset: 3, size_bytes: 4096, next_offset: 12 }),
        log_id: Some([7; 16]),
    };
    SnapshotFile { entries: ENTRIES.to_vec(), extension: Some(extension) }
}

#[test]
fn the_extension_stands_behind_the_entries_and_comes_back() {
    let bytes = extended().encode();
    assert_eq!(bytes.len(), golden().len() + 20 + 68 + 2 * 17 + 5 * 32);
    assert_eq!(bytes[HEADER_BYTES..golden().len()], golden()[HEADER_BYTES..], "Kafka's entries are where Kafka looks");
    assert_eq!(SnapshotFile::decode_with_trailing(&bytes), Ok((extended(), Trailing::Extension)));
}

/// The layout of `docs/formats.md`, written down once more by hand: a change of either struct is a new version.
#[test]
fn the_extension_is_byte_for_byte_what_the_page_says() {
    let body = [
        "000000000000000c",
        "0000000000000009",
        "deadbeef0badcafe",
        "0000000000000003",
        "0000000000001000",
        "000000000000000c",
        "07070707070707070707070707070707",
        "00000001",
        "0000000000000001",
        "000000000000004d",
        "01",
        "00000004",
        "00000005",
        "0000000000000008",
        "0000000000000009",
        "00000000000003ec",
    ]
    .concat();
    let head = "4f4e43454c4f4758000200030000007500000000";
    let mut expected = hex::decode([head, &body].concat()).unwrap();
    let crc = crc32c(&[&expected[..16], &expected[20..]].concat());
    expected[16..20].copy_from_slice(&crc.to_be_bytes());

    let mut file = extended();
    let producers = &mut file.extension.as_mut().unwrap().producers;
    producers.truncate(1);
    producers[0].batches.drain(..4);
    assert_eq!(file.encode()[golden().len()..], expected);
}

#[test]
fn a_damaged_extension_is_none_and_the_entries_stay() {
    let bytes = extended().encode();
    for at in golden().len()..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0x10;
        let (file, trailing) = SnapshotFile::decode_with_trailing(&sealed(bytes)).unwrap();
        assert_eq!(file, plain(&ENTRIES), "byte {at}");
        let expected = match at - golden().len() {
            0..8 => Trailing::Foreign,
            8..12 => Trailing::OtherVersion,
            _ => Trailing::Damaged,
        };
        assert_eq!(trailing, expected, "byte {at}");
    }
    for length in golden().len() + 8..bytes.len() {
        let cut = sealed(bytes[..length].to_vec());
        let (file, trailing) = SnapshotFile::decode_with_trailing(&cut).unwrap();
        assert_eq!((file.extension, trailing), (None, Trailing::Damaged), "{length} bytes");
    }
    let longer = sealed([bytes, vec![0]].concat());
    assert_eq!(SnapshotFile::decode_with_trailing(&longer), Ok((plain(&ENTRIES), Trailing::Damaged)));
}

/// Both checksums made right again after a change of the extension.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let extension = &mut bytes[golden().len()..];
    let crc = crc32c(&[&extension[..16], &extension[20..]].concat());
    extension[16..20].copy_from_slice(&crc.to_be_bytes());
    sealed(bytes)
}

/// Content that no writer produces, under two right checksums.
#[test]
fn impossible_content_of_the_extension_is_damage() {
    let start = golden().len();
    let body = start + 20;
    for (what, at, value) in [
        ("another length", start + 15, 0),
        ("more producers than bytes", body + 64, 0xff),
        ("one producer too few", body + 67, 1),
        ("a batch more than bytes", body + 68 + 16, 6),
        ("a segment without its flag", start + 11, 2),
        ("a log id without its flag", start + 11, 1),
    ] {
        let mut bytes = extended().encode();
        bytes[at] = value;
        let (file, trailing) = SnapshotFile::decode_with_trailing(&resealed(bytes)).unwrap();
        assert_eq!((file.extension, trailing), (None, Trailing::Damaged), "{what}");
    }
}

#[test]
fn six_batches_of_a_producer_are_damage() {
    let start = golden().len();
    let mut file = extended();
    file.extension.as_mut().unwrap().producers.truncate(1);
    let mut bytes = file.encode();
    bytes[start + 20 + 68 + 16] = 6;
    bytes.resize(bytes.len() + 32, 0);
    let body_bytes = (bytes.len() - start - 20) as u32;
    bytes[start + 12..start + 16].copy_from_slice(&body_bytes.to_be_bytes());
    let (_, trailing) = SnapshotFile::decode_with_trailing(&resealed(bytes)).unwrap();
    assert_eq!(trailing, Trailing::Damaged);
}

#[test]
fn of_more_than_five_batches_the_newest_are_kept() {
    let mut file = extended();
    let batches = &mut file.extension.as_mut().unwrap().producers[0].batches;
    batches.insert(0, BatchMeta::default());
    assert_eq!(SnapshotFile::decode(&file.encode()), Ok(extended()));
}

prop_compose! {
    fn any_entry()(ids: (i64, i16, i32, i64), rest: (i32, i64, i32, i64)) -> SnapshotEntry {
        SnapshotEntry {
            producer_id: ids.0,
            epoch: ids.1,
            last_sequence: ids.2,
            last_offset: ids.3,
            offset_delta: rest.0,
            timestamp: rest.1,
            coordinator_epoch: rest.2,
            current_txn_first_offset: rest.3,
        }
    }
}

prop_compose! {
    fn any_producer()(
        producer_id: i64,
        last_append_ms: i64,
        forgotten: bool,
        batches in prop::collection::vec(any::<(i32, i32, i64, i64, i64)>(), 0..=MAX_BATCHES),
    ) -> ProducerExtra {
        let batches = batches.into_iter().map(|b| BatchMeta {
            first_sequence: b.0,
            last_sequence: b.1,
            first_offset: b.2,
            last_offset: b.3,
            timestamp: b.4,
        });
        ProducerExtra { producer_id, last_append_ms, forgotten, batches: batches.collect() }
    }
}

prop_compose! {
    fn any_extension()(
        producers in prop::collection::vec(any_producer(), 0..6),
        log_end_offset: i64,
        durable_offset: i64,
        digest: u64,
        sealed: Option<(i64, u64, i64)>,
        log_id: Option<[u8; 16]>,
    ) -> Extension {
        let sealed = sealed.map(|(base_offset, size_bytes, next_offset)| SealedSegment { base_offset, size_bytes, next_offset });
        Extension { producers, log_end_offset, durable_offset, digest, sealed, log_id }
    }
}

proptest! {
    #[test]
    fn any_file_comes_back(
        entries in prop::collection::vec(any_entry(), 0..6),
        extension in prop::option::of(any_extension()),
    ) {
        let file = SnapshotFile { entries, extension };
        prop_assert_eq!(SnapshotFile::decode(&file.encode()).unwrap(), file);
    }

    #[test]
    fn any_bytes_decode_or_say_why(mut bytes: Vec<u8>, count in 0..4u8, magic: bool) {
        let _ = SnapshotFile::decode(&bytes);
        if bytes.len() >= HEADER_BYTES {
            bytes[..HEADER_BYTES].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, count]);
            if magic {
                bytes.extend_from_slice(b"ONCELOGX\0\x01\0\0\0\0\0\0");
            }
            let _ = SnapshotFile::decode(&sealed(bytes));
        }
    }
}

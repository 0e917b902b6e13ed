//! Batches that Kafka's own classes wrote: their stated values are read, and plain ones are written again byte for
//! byte.

use oncelog_formats::control::end_txn_marker_batch;
use oncelog_formats::{BatchBuilder, BatchView, Batches, Compression, ControlType, EndTxnMarker, TimestampType};

const T: i64 = 1_700_000_000_000;

const PLAIN: &str = "000000000000002a0000003c00000007026ba48e850000000000000000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000114000000046b3104763100";
const IDEMPOTENT: &str = "000000000012d6870000005a0000000f0252ae5c730000000000020000018bcfe568000000018bcfe568050000000000005b7f0091000003d70000000314000000046b310476310026000a02010a68656c6c6f040268040102026e011200cf0f04046b330100";
const TRANSACTIONAL: &str = "00000000000000640000005200000000020541a7110010000000020000018bcfe568000000018bcfe56800000000000000008900057ffffffe0000000314000000046b310476310014000002046b310476310014000004046b3104763100";
const LOG_APPEND_TIME: &str = "00000000000000000000003c000000030214b6aa6a0008000000000000018bcfe568000000018bcfe58f0f00000000000000010000000000000000000114000000046b3104763100";
const COMMIT: &str = "000000000000006b000000420000000002545434e00030000000000000018bcfe568000000018bcfe5680000000000000000050003ffffffff000000012000000008000000010c00000000000900";
const ABORT: &str = "000000000000006a0000004200000000023a82eb7c0030000000000000018bcfe568000000018bcfe56800000000000000000a0000ffffffff000000012000000008000000000c00000000000000";
const EMPTIED: &str = "000000000000000f000000310000000f025976c760001000000016ffffffffffffffff0000018bcfe568000000000000005b7f0091000003d700000000";
#[cfg(feature = "std")]
const COMPRESSED: [&str; 4] = [
    "0000000000000000000000550000000002f7fc04ee0001000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff000000021f8b08000000000000ff1361606060c936642933641061606082320174ff82c216000000",
    "00000000000000000000005d0000000002160c60520002000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000282534e4150505900000000010000000100000018165414000000046b310476310014000002046b3104763100",
    "00000000000000000000005600000000020b98435c0003000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000204224d186040821600008014000000046b310476310014000002046b310476310000000000",
    "0000000000000000000000530000000002021009e20004000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000228b52ffd0058b0000014000000046b310476310014000002046b3104763100010000",
];

/// A record as compared: offset, timestamp, key, value, headers.
type Seen = (i64, i64, Option<String>, Option<String>, Vec<(String, Option<Vec<u8>>)>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn records(view: &BatchView<'_>) -> Vec<Seen> {
    let decoded = view.decode(1000).unwrap();
    decoded.validate().unwrap();
    let seen = decoded.records().map(|record| {
        let record = record.unwrap();
        let headers = record.headers.map(|(key, value)| (text(key), value.map(<[u8]>::to_vec)));
        (record.offset, record.timestamp, record.key.map(text), record.value.map(text), headers.collect())
    });
    seen.collect()
}

fn k1_v1(offset: i64, timestamp: i64) -> Seen {
    (offset, timestamp, Some("k1".into()), Some("v1".into()), Vec::new())
}

fn read(vector: &str, check: impl FnOnce(BatchView<'_>)) -> Vec<u8> {
    let bytes = hex::decode(vector).unwrap();
    let mut batches = Batches::new(&bytes);
    let view = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    assert_eq!(view.verify_crc(), Ok(()));
    let mut header = [0; 61];
    view.header().encode(&mut header);
    assert_eq!(header, bytes[..61], "the header encodes back");
    check(view);
    bytes
}

#[test]
fn plain() {
    let bytes = read(PLAIN, |view| {
        let header = view.header();
        assert_eq!((header.base_offset, header.next_offset(), header.partition_leader_epoch), (42, 43, 7));
        assert_eq!((header.producer_id, header.producer_epoch, header.last_sequence()), (-1, -1, -1));
        assert!(!header.has_producer_id() && !header.is_control() && header.delete_horizon().is_none());
        assert_eq!(records(&view), [k1_v1(42, T)]);
    });
    let mut builder = BatchBuilder::new().base_offset(42).leader_epoch(7);
    assert_eq!(builder.append(T, Some(b"k1"), Some(b"v1"), &[]).build(), Ok(bytes));
}

#[test]
fn idempotent() {
    let bytes = read(IDEMPOTENT, |view| {
        let header = view.header();
        assert_eq!(
            (header.base_offset, header.last_offset(), header.partition_leader_epoch),
            (1_234_567, 1_234_569, 15)
        );
        assert_eq!((header.producer_id, header.producer_epoch), (23_423, 145));
        assert_eq!((header.base_sequence, header.last_sequence()), (983, 985));
        assert_eq!((header.base_timestamp, header.max_timestamp), (T, T + 5));
        let with_headers = vec![("h".into(), Some(vec![1, 2])), ("n".into(), None)];
        assert_eq!(
            records(&view),
            [
                k1_v1(1_234_567, T),
                (1_234_568, T + 5, None, Some("hello".into()), with_headers),
                (1_234_569, T - 1000, Some("k3".into()), None, Vec::new()),
            ]
        );
    });
    let mut builder = BatchBuilder::new().base_offset(1_234_567).leader_epoch(15).producer(23_423, 145, 983);
    builder.append(T, Some(b"k1"), Some(b"v1"), &[]);
    builder.append(T + 5, None, Some(b"hello"), &[(b"h", Some(&[1, 2])), (b"n", None)]);
    assert_eq!(builder.append(T - 1000, Some(b"k3"), None, &[]).build(), Ok(bytes));
}

#[test]
fn transactional_with_wrapping_sequences() {
    let bytes = read(TRANSACTIONAL, |view| {
        let header = view.header();
        assert!(header.is_transactional() && !header.is_control());
        assert_eq!((header.producer_id, header.producer_epoch), (137, 5));
        assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX - 1, 0));
        assert_eq!(records(&view), [k1_v1(100, T), k1_v1(101, T), k1_v1(102, T)]);
    });
    let mut builder = BatchBuilder::new().base_offset(100).leader_epoch(0).producer(137, 5, i32::MAX - 1);
    builder = builder.transactional(true);
    for _ in 0..3 {
        builder.append(T, Some(b"k1"), Some(b"v1"), &[]);
    }
    assert_eq!(builder.build(), Ok(bytes));
}

#[test]
fn log_append_time_overrides_record_times() {
    let bytes = read(LOG_APPEND_TIME, |view| {
        assert_eq!(view.header().timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(records(&view), [k1_v1(0, T + 9999)]);
    });
    let builder = BatchBuilder::new().leader_epoch(3).producer(1, 0, 0);
    let mut builder = builder.timestamp_type(TimestampType::LogAppendTime).max_timestamp(T + 9999);
    assert_eq!(builder.append(T, Some(b"k1"), Some(b"v1"), &[]).build(), Ok(bytes));
}

#[test]
fn markers() {
    for (vector, kind, offset, producer_id, epoch, coordinator_epoch) in
        [(COMMIT, ControlType::Commit, 107, 5, 3, 9), (ABORT, ControlType::Abort, 106, 10, 0, 0)]
    {
        let commit = kind == ControlType::Commit;
        let bytes = read(vector, |view| {
            let header = view.header();
            assert!(header.is_control() && header.is_transactional());
            assert_eq!((header.base_offset, header.producer_id, header.producer_epoch), (offset, producer_id, epoch));
            assert_eq!((header.base_sequence, header.last_sequence(), header.size_bytes()), (-1, -1, 78));
            let control = view.control().unwrap();
            assert_eq!((control.kind, control.timestamp), (kind, T));
            assert_eq!(control.marker, Some(EndTxnMarker { commit, coordinator_epoch }));
        });
        assert_eq!(end_txn_marker_batch(offset, 0, producer_id, epoch, commit, coordinator_epoch, T), bytes);
    }
}

#[test]
fn emptied() {
    let bytes = read(EMPTIED, |view| {
        let header = view.header();
        assert_eq!((header.base_offset, header.last_offset(), header.partition_leader_epoch), (15, 37, 15));
        assert_eq!((header.base_sequence, header.last_sequence()), (983, 983 + 22));
        assert_eq!((header.base_timestamp, header.max_timestamp, header.record_count), (-1, T, 0));
        assert_eq!(records(&view), []);
    });
    let builder = BatchBuilder::new().base_offset(15).leader_epoch(15).producer(23_423, 145, 983);
    // A codec makes no difference to an emptied batch.
    let builder = builder.transactional(true).max_timestamp(T).last_offset_delta(22).compression(Compression::Gzip);
    assert_eq!(builder.clone().build(), Ok(bytes));
}

#[cfg(feature = "std")]
#[test]
fn compressed() {
    for (vector, codec) in COMPRESSED.into_iter().zip(Compression::ALL.into_iter().skip(1)) {
        read(vector, |view| {
            assert_eq!(view.header().compression(), Ok(codec));
            assert_eq!(records(&view), [k1_v1(0, T), k1_v1(1, T)], "{}", codec.name());
        });
        let mut builder = BatchBuilder::new().compression(codec);
        builder.append(T, Some(b"k1"), Some(b"v1"), &[]);
        let own = builder.append(T, Some(b"k1"), Some(b"v1"), &[]).build().unwrap();
        let own = BatchView::new(&own).unwrap();
        assert!(own.is_valid());
        assert_eq!((own.header().compression(), records(&own)), (Ok(codec), vec![k1_v1(0, T), k1_v1(1, T)]));
    }
}

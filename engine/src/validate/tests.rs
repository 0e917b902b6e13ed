use super::*;
use crate::config::{CleanupPolicy, CompressionType};

const NOW: i64 = 1_000_000;

fn plain(timestamps: &[i64]) -> (BatchBuilder, Vec<i64>) {
    (BatchBuilder::new(), timestamps.to_vec())
}

fn built((mut builder, timestamps): (BatchBuilder, Vec<i64>)) -> Vec<u8> {
    for timestamp in timestamps {
        builder.append(timestamp, Some(b"k"), Some(b"v"), &[]);
    }
    builder.build().unwrap()
}

/// A batch of three records with one setting.
fn three(setting: impl FnOnce(BatchBuilder) -> BatchBuilder) -> Vec<u8> {
    let (builder, timestamps) = plain(&[NOW, NOW + 2, NOW + 1]);
    built((setting(builder), timestamps))
}

fn run<'a>(bytes: &'a [u8], origin: Origin, config: &Config) -> Result<Validated<'a>> {
    let set = check_set(bytes, origin, 0, config)?;
    validate(check_one(&set, origin)?, origin, config, NOW)
}

fn name<T: std::fmt::Debug>(result: Result<T>) -> &'static str {
    result.map_or_else(|error| error.kafka_name(), |_| "")
}

#[test]
fn a_good_batch_passes_as_it_is() {
    let bytes = three(|b| b.producer(7, 0, 0));
    let valid = run(&bytes, Origin::Client, &Config::default()).unwrap();
    assert!(matches!(valid.bytes, Cow::Borrowed(_)));
    let (max_timestamp, log_append_time, records) = (NOW + 2, -1, 3);
    assert_eq!(valid, Validated { bytes: Cow::Borrowed(&bytes), max_timestamp, log_append_time, records });
}

#[test]
fn what_a_client_may_not_send_and_what_a_coordinator_may() {
    let table: &[(&str, Vec<u8>, &str, &str)] = &[
        ("base offset", three(|b| b.base_offset(1)), "INVALID_RECORD", ""),
        ("control", three(|b| b.control(true).producer(7, 0, 0)), "INVALID_RECORD", ""),
        ("no sequence", three(|b| b.producer(7, 0, -1)), "INVALID_RECORD", ""),
        ("sequence without producer", three(|b| b.producer(-1, -1, 0)), "", ""),
        ("delta 0", three(|b| b.last_offset_delta(0)), "INVALID_RECORD", "INVALID_RECORD"),
        ("delta 15", three(|b| b.last_offset_delta(15)), "INVALID_RECORD", "INVALID_RECORD"),
        ("delta -3", three(|b| b.last_offset_delta(-3)), "INVALID_RECORD", "INVALID_RECORD"),
        ("5 and 6", three(|b| b.last_offset_delta(5).record_count(6)), "INVALID_RECORD", "INVALID_RECORD"),
        ("1 and 2", three(|b| b.last_offset_delta(1).record_count(2)), "INVALID_RECORD", "INVALID_RECORD"),
        ("empty", BatchBuilder::new().build().unwrap(), "INVALID_RECORD", "INVALID_RECORD"),
        ("two", [three(|b| b), three(|b| b)].concat(), "INVALID_RECORD", "INVALID_RECORD"),
    ];
    for (what, bytes, client, coordinator) in table {
        let config = Config::default();
        assert_eq!(name(run(bytes, Origin::Client, &config)), *client, "{what}");
        assert_eq!(name(run(bytes, Origin::Coordinator, &config)), *coordinator, "{what}");
    }
}

#[test]
fn the_first_check_that_fails_gives_the_answer() {
    let small = Config { max_message_bytes: 70, ..Config::default() };
    let mut bytes = three(|b| b.base_offset(1).leader_epoch(5));
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    assert_eq!(name(check_set(&bytes, Origin::RaftLeader, 4, &small)), "INVALID_RECORD");
    assert_eq!(name(check_set(&bytes, Origin::Client, 0, &small)), "INVALID_RECORD");
    assert_eq!(name(check_set(&bytes, Origin::RaftLeader, 5, &small)), "MESSAGE_TOO_LARGE");
    assert_eq!(name(check_set(&bytes, Origin::RaftLeader, 5, &Config::default())), "CORRUPT_MESSAGE");
    assert_eq!(name(check_set(&bytes, Origin::Replication, 5, &small)), "CORRUPT_MESSAGE");
    bytes[last] ^= 1;
    assert_eq!(name(check_set(&bytes, Origin::Replication, 5, &small)), "");
}

#[test]
fn framing() {
    let config = Config::default();
    let whole = three(|b| b);
    let cut = [&whole[..], &whole[..30]].concat();
    assert_eq!(check_set(&cut, Origin::Client, 0, &config).unwrap().len(), 1);
    assert_eq!(check_set(&whole[..40], Origin::Client, 0, &config).unwrap().len(), 0);
    let corrupt = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        name(check_set(&bytes, Origin::Client, 0, &config))
    };
    assert_eq!([corrupt(11, 13), corrupt(16, 3), corrupt(17, !whole[17])], ["CORRUPT_MESSAGE"; 3]);
    assert!(check_set(&[0; 61], Origin::Client, 0, &config).unwrap_err().is_retriable());
    let unknown = three(|b| b).tap(|bytes| bytes[22] |= 7);
    assert_eq!(name(check_set(&unknown, Origin::Client, 0, &config)), "INVALID_REQUEST");
}

/// Changes a batch and makes its checksum right again.
trait Tap {
    fn tap(self, change: impl FnOnce(&mut Vec<u8>)) -> Self;
}

impl Tap for Vec<u8> {
    fn tap(mut self, change: impl FnOnce(&mut Vec<u8>)) -> Self {
        change(&mut self);
        let crc = oncelog_formats::crc32c::crc32c(&self[21..]);
        self[17..21].copy_from_slice(&crc.to_be_bytes());
        self
    }
}

#[test]
fn offsets_that_a_replica_brings_must_increase() {
    let set = |offsets: &[(i64, i32)]| -> Vec<u8> {
        let batches = offsets.iter().map(|(base, delta)| three(|b| b.base_offset(*base).last_offset_delta(*delta)));
        batches.collect::<Vec<_>>().concat()
    };
    let good: [&[(i64, i32)]; 3] = [&[(0, 2), (3, 2)], &[(5, 2), (50, 9)], &[(0, 0)]];
    let bad: [&[(i64, i32)]; 5] = [&[(0, 2), (0, 2)], &[(3, 2), (0, 2)], &[(0, 2), (2, 2)], &[(-9, 2)], &[(9, -1)]];
    for origin in [Origin::Replication, Origin::RaftLeader] {
        for (offsets, expected) in good.map(|o| (o, "")).into_iter().chain(bad.map(|o| (o, "OFFSETS_OUT_OF_ORDER"))) {
            assert_eq!(name(check_set(&set(offsets), origin, -1, &Config::default())), expected, "{offsets:?}");
        }
    }
}

#[test]
fn a_replica_keeps_what_stands_before_a_higher_epoch() {
    let batch = |base, epoch| three(|b| b.base_offset(base).leader_epoch(epoch));
    let set = [batch(0, 1), batch(3, 2), batch(6, 3), batch(9, 1)].concat();
    for (epoch, kept) in [(0, 0), (1, 1), (2, 2), (3, 4)] {
        assert_eq!(check_set(&set, Origin::Replication, epoch, &Config::default()).unwrap().len(), kept);
    }
}

#[test]
fn timestamps_against_the_clock() {
    let config =
        Config { message_timestamp_before_max_ms: 1000, message_timestamp_after_max_ms: 100, ..Config::default() };
    for (timestamp, expected) in [
        (NOW - 1000, ""),
        (NOW - 1001, "INVALID_TIMESTAMP"),
        (NOW + 100, ""),
        (NOW + 101, "INVALID_TIMESTAMP"),
        (-1, ""),
    ] {
        let bytes = built(plain(&[NOW, timestamp]));
        assert_eq!(name(run(&bytes, Origin::Client, &config)), expected, "{timestamp}");
        let ours = Config { message_timestamp_type: TimestampType::LogAppendTime, ..config.clone() };
        assert_eq!(name(run(&bytes, Origin::Client, &ours)), "", "{timestamp}");
    }
}

#[test]
fn log_append_time_is_stamped_and_never_taken_from_a_client() {
    let config = Config { message_timestamp_type: TimestampType::LogAppendTime, ..Config::default() };
    let bytes = three(|b| b);
    let valid = run(&bytes, Origin::Client, &config).unwrap();
    let view = BatchView::new(&valid.bytes).unwrap();
    assert!(view.is_valid());
    assert_eq!((view.header().timestamp_type(), view.header().max_timestamp), (TimestampType::LogAppendTime, NOW));
    assert_eq!((valid.max_timestamp, valid.log_append_time), (NOW, NOW));
    let claimed = three(|b| b.timestamp_type(TimestampType::LogAppendTime).max_timestamp(NOW));
    assert_eq!(name(run(&claimed, Origin::Client, &config)), "INVALID_TIMESTAMP");
    // With CreateTime Kafka looks at the time only, and takes the claim away.
    let valid = run(&claimed, Origin::Client, &Config::default()).unwrap();
    assert_eq!(BatchHeader::parse(&valid.bytes).unwrap().timestamp_type(), TimestampType::CreateTime);
    let timeless = three(|b| b.timestamp_type(TimestampType::LogAppendTime).max_timestamp(-1));
    assert_eq!(name(run(&timeless, Origin::Client, &Config::default())), "INVALID_TIMESTAMP");
}

#[test]
fn the_largest_timestamp_is_that_of_the_records() {
    let bytes = three(|b| b.max_timestamp(NOW + 77));
    let valid = run(&bytes, Origin::Client, &Config::default()).unwrap();
    let view = BatchView::new(&valid.bytes).unwrap();
    assert_eq!((view.header().max_timestamp, valid.max_timestamp, view.is_valid()), (NOW + 2, NOW + 2, true));
}

#[test]
fn a_compacted_log_needs_keys_and_a_bad_time_outranks_a_missing_one() {
    let config = Config { cleanup_policy: CleanupPolicy::Both, ..Config::default() };
    let mut builder = BatchBuilder::new();
    let keyless = builder.append(NOW, None, Some(b"v"), &[]).build().unwrap();
    assert_eq!(name(run(&keyless, Origin::Client, &config)), "INVALID_RECORD");
    assert_eq!(name(run(&keyless, Origin::Coordinator, &config)), "INVALID_RECORD");
    assert_eq!(name(run(&keyless, Origin::Client, &Config::default())), "");
    builder.append(NOW, None, None, &[]).append(NOW + 3_600_001, Some(b"k"), None, &[]);
    assert_eq!(name(run(&builder.build().unwrap(), Origin::Client, &config)), "INVALID_TIMESTAMP");
    assert_eq!(name(run(&three(|b| b), Origin::Client, &config)), "");
}

#[test]
fn control_batches_keep_their_form() {
    let config = Config { compression_type: CompressionType::Codec(Compression::Gzip), ..Config::default() };
    let marker = oncelog_formats::control::end_txn_marker_batch(0, -1, 7, 0, true, 3, NOW);
    assert_eq!(run(&marker, Origin::Coordinator, &config).unwrap().bytes, Cow::Borrowed(&marker[..]));
}

/// Another package of the same build may have asked for codecs, so each is asked whether it is there.
#[test]
fn a_codec_that_is_left_out_is_refused() {
    for codec in Compression::ALL {
        let left_out = oncelog_formats::compress::compress(codec, &[]).is_err();
        let is_refused = |answer: Result<()>| answer.err() == Some(ValidateError::CodecUnavailable(codec));
        let config = Config { compression_type: CompressionType::Codec(codec), ..Config::default() };
        assert_eq!(
            is_refused(run(&three(|b| b), Origin::Client, &config).map(drop)),
            left_out,
            "{codec:?} to store with"
        );
        let bytes = three(|b| b).tap(|bytes| bytes[22] |= codec.id());
        let answer = run(&bytes, Origin::Client, &Config::default());
        assert_eq!(is_refused(answer.map(drop)), left_out, "{codec:?} in the batch");
    }
}

#[cfg(feature = "compression")]
mod codecs {
    use super::*;

    type Kept = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

    fn records(bytes: &[u8]) -> Vec<Kept> {
        let records = BatchView::new(bytes).unwrap().decode(1 << 20).unwrap();
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let kept = records.records().map(|record| {
            let record = record.unwrap();
            let headers = record.headers.clone().map(|(key, value)| (key.to_vec(), own(value)));
            (record.timestamp, own(record.key), own(record.value), headers.collect())
        });
        kept.collect()
    }

    fn mixed(codec: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::new().producer(7, 3, 20).transactional(true).compression(codec);
        builder.append(NOW + 5, Some(b"key"), None, &[(b"h", Some(b"x")), (b"n", None)]);
        builder.append(NOW, None, Some(&[9; 500]), &[]);
        builder.build().unwrap()
    }

    #[test]
    fn every_codec_becomes_every_other_and_nothing_else_changes() {
        for source in Compression::ALL {
            for target in Compression::ALL {
                let config = Config { compression_type: CompressionType::Codec(target), ..Config::default() };
                let bytes = mixed(source);
                let valid = run(&bytes, Origin::Client, &config).unwrap();
                assert_eq!(matches!(valid.bytes, Cow::Borrowed(_)), source == target, "{source:?} {target:?}");
                assert_eq!(records(&valid.bytes), records(&bytes));
                let (view, before) = (BatchView::new(&valid.bytes).unwrap(), BatchHeader::parse(&bytes).unwrap());
                assert!(view.is_valid());
                assert_eq!(view.header().compression(), Ok(target));
                let same = BatchHeader {
                    batch_length: before.batch_length,
                    crc: before.crc,
                    attributes: before.attributes,
                    ..*view.header()
                };
                assert_eq!(same, before);
                assert!(view.header().is_transactional());
            }
        }
    }

    #[test]
    fn compressed_records_with_gaps_are_encoded_again() {
        for codec in [Compression::None, Compression::Gzip] {
            let mut builder = BatchBuilder::new().compression(codec).last_offset_delta(1);
            builder.append_with_delta(0, NOW, None, None, &[]).append_with_delta(5, NOW, None, None, &[]);
            let bytes = builder.build().unwrap();
            let valid = run(&bytes, Origin::Client, &Config::default()).unwrap();
            let decoded = BatchView::new(&valid.bytes).unwrap().decode(1 << 20).unwrap();
            let deltas: Vec<_> = decoded.records().map(|record| record.unwrap().offset_delta).collect();
            assert_eq!(deltas, if codec == Compression::None { [0, 5] } else { [0, 1] });
        }
    }

    #[test]
    fn what_grows_over_the_limit_when_encoded_again_is_refused() {
        let bytes = mixed(Compression::Gzip);
        let limit = bytes.len() as u64 + 50;
        let config = Config { max_message_bytes: limit, ..Config::default() };
        assert_eq!(name(run(&bytes, Origin::Client, &config)), "");
        let plain = Config { compression_type: CompressionType::Codec(Compression::None), ..config };
        assert_eq!(name(run(&bytes, Origin::Client, &plain)), "MESSAGE_TOO_LARGE");
    }

    #[test]
    fn garbage_under_a_good_checksum_is_an_invalid_record() {
        for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            let bytes = mixed(codec).tap(|bytes| bytes[61..].fill(0xee));
            assert_eq!(name(run(&bytes, Origin::Client, &Config::default())), "INVALID_RECORD", "{codec:?}");
        }
    }
}

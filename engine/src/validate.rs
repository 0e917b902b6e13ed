//! What a set of batches must be before it may be appended.
//!
//! Two steps, both without the log's lock. [`check_set`] is for everybody: framing, epochs, sizes, checksums, order, in
//! Kafka's order, so that the same flaw gets the same answer. [`validate`] is for batches that get their offsets here:
//! it decodes every record, settles the timestamps and re-encodes where the log has a codec of its own. What remains
//! under the lock is [`oncelog_formats::batch::stamp`], which touches neither records nor checksum. The price: with
//! LogAppendTime the time is taken before the lock, so two appends may be stored in the other order than their times.
//!
//! Other than Kafka, a coordinator's batch whose offset range is not its record count is refused: Kafka would store it
//! over offsets of the batch before it.

use std::borrow::Cow;

use oncelog_formats::batch::{NO_TIMESTAMP, set_timestamps};
use oncelog_formats::{
    BatchBuilder, BatchHeader, BatchView, Batches, Compression, FormatError, Record, Records, TimestampType,
};
use oncelog_snapshot::Origin;

use crate::config::Config;

mod error;
#[cfg(test)]
mod tests;

pub use error::{InvalidRecord, ValidateError};

/// Result of a check.
pub type Result<T> = std::result::Result<T, ValidateError>;

/// Most that the records of one batch may take decompressed, in bytes. Kafka has no limit.
pub const DECODE_LIMIT_BYTES: usize = 256 << 20;

/// A batch that may be appended once it has its offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validated<'a> {
    /// The batch with its final timestamps and codec; base offset and leader epoch are still to be stamped.
    pub bytes: Cow<'a, [u8]>,
    /// Largest timestamp, ms; -1 where no record has one.
    pub max_timestamp: i64,
    /// The time that all records got, ms; -1 with CreateTime.
    pub log_append_time: i64,
    /// Number of records, which is also the number of offsets.
    pub records: i32,
}

/// Checks a set as it came in and splits it into its batches. Bytes behind the last whole batch do not count; nor, for
/// a replica, does anything from the first batch on whose leader epoch is above `leader_epoch`.
pub fn check_set<'a>(
    bytes: &'a [u8],
    origin: Origin,
    leader_epoch: i32,
    config: &Config,
) -> Result<Vec<BatchView<'a>>> {
    let mut set: Vec<BatchView<'a>> = Vec::new();
    for view in Batches::new(bytes) {
        let view = view.map_err(ValidateError::Corrupt)?;
        let header = view.header();
        check_origin(header, origin, leader_epoch)?;
        if origin == Origin::Replication && header.partition_leader_epoch > leader_epoch {
            break;
        }
        if origin != Origin::Replication && view.bytes().len() as u64 > config.max_message_bytes {
            return Err(too_large(view.bytes().len(), config));
        }
        view.verify_crc().map_err(ValidateError::Corrupt)?;
        header.compression().map_err(refused_codec)?;
        if !assigns_offsets(origin) {
            check_order(header, set.last().map(|last| last.header().last_offset()))?;
        }
        set.push(view);
    }
    Ok(set)
}

/// The one batch that a set of a client or coordinator must consist of.
pub fn check_one<'a>(set: &[BatchView<'a>], origin: Origin) -> Result<BatchView<'a>> {
    debug_assert!(assigns_offsets(origin));
    match set {
        [one] => Ok(*one),
        _ => Err(InvalidRecord::NotOneBatch { batches: set.len() }.into()),
    }
}

/// Validates a batch of a client or coordinator behind [`check_set`], and gives it the log's timestamps and codec.
/// `now_ms` is the log's clock. [`ValidateError::CodecUnavailable`] where the batch's codec, or the one to store it
/// with, is not compiled in: a batch is never taken without a look at its records.
pub fn validate<'a>(batch: BatchView<'a>, origin: Origin, config: &Config, now_ms: i64) -> Result<Validated<'a>> {
    let header = *batch.header();
    if origin == Origin::Client {
        check_client(&header)?;
    }
    let source = header.compression().map_err(refused_codec)?;
    let target = if header.is_control() { source } else { config.compression_type.target(source) };
    let records = batch.decode(DECODE_LIMIT_BYTES).map_err(refused_records)?;
    let found = check_records(&records, &header, config, now_ms)?;
    let both_plain = source == Compression::None && target == Compression::None;
    let rebuild = found.count > 0 && !header.is_control() && (source != target || !both_plain && !found.consecutive);
    let mut bytes = if rebuild {
        Cow::Owned(encode_again(&records, &header, target)?)
    } else {
        check_range(&header)?;
        Cow::Borrowed(batch.bytes())
    };
    let kind = config.message_timestamp_type;
    let max_timestamp = if kind == TimestampType::LogAppendTime { now_ms } else { found.max_timestamp };
    let stored = BatchHeader::parse(&bytes).map_err(ValidateError::Corrupt)?;
    if stored.timestamp_type() != kind || stored.max_timestamp != max_timestamp {
        set_timestamps(bytes.to_mut(), kind, max_timestamp).map_err(ValidateError::Corrupt)?;
    }
    if rebuild && bytes.len() as u64 > config.max_message_bytes {
        return Err(too_large(bytes.len(), config));
    }
    let log_append_time = if kind == TimestampType::LogAppendTime { now_ms } else { NO_TIMESTAMP };
    Ok(Validated { bytes, max_timestamp, log_append_time, records: found.count })
}

/// Whether appends of this origin get their offsets from the log.
#[must_use]
pub fn assigns_offsets(origin: Origin) -> bool {
    matches!(origin, Origin::Client | Origin::Coordinator)
}

fn check_origin(header: &BatchHeader, origin: Origin, leader_epoch: i32) -> Result<()> {
    let (found, base_offset) = (header.partition_leader_epoch, header.base_offset);
    match origin {
        Origin::RaftLeader if found != leader_epoch => {
            Err(InvalidRecord::LeaderEpoch { expected: leader_epoch, found }.into())
        }
        Origin::Client if base_offset != 0 => Err(InvalidRecord::BaseOffset { base_offset }.into()),
        _ => Ok(()),
    }
}

/// Last offsets must increase. Other than in Kafka, a batch must also begin behind the one before it and end where or
/// behind it begins: overlapping batches would be taken for damage when the log is opened again.
fn check_order(header: &BatchHeader, previous: Option<i64>) -> Result<()> {
    let (base_offset, last_offset) = (header.base_offset, header.last_offset());
    let overlaps = previous.is_some_and(|previous| base_offset <= previous);
    let previous = previous.unwrap_or(-1);
    if overlaps || last_offset <= previous || header.last_offset_delta < 0 {
        return Err(ValidateError::OffsetsOutOfOrder { base_offset, last_offset, previous });
    }
    Ok(())
}

fn check_client(header: &BatchHeader) -> Result<()> {
    let (last_offset_delta, count) = (header.last_offset_delta, header.record_count);
    if last_offset_delta < 0 {
        return Err(InvalidRecord::OffsetRange { last_offset_delta, count }.into());
    }
    if count <= 0 {
        return Err(InvalidRecord::Count { count }.into());
    }
    check_range(header)?;
    if header.is_control() {
        return Err(InvalidRecord::ControlFromClient.into());
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        let (producer_id, base_sequence) = (header.producer_id, header.base_sequence);
        return Err(InvalidRecord::Sequence { producer_id, base_sequence }.into());
    }
    Ok(())
}

fn check_range(header: &BatchHeader) -> Result<()> {
    let (last_offset_delta, count) = (header.last_offset_delta, header.record_count);
    if i64::from(last_offset_delta) + 1 != i64::from(count) {
        return Err(InvalidRecord::OffsetRange { last_offset_delta, count }.into());
    }
    Ok(())
}

/// What the records of a batch come to.
struct Found {
    count: i32,
    max_timestamp: i64,
    /// Offset deltas are 0, 1, 2, …
    consecutive: bool,
}

/// Reads all records. A break of the format wins over a timestamp out of range, and that over a missing key.
fn check_records(records: &Records<'_>, header: &BatchHeader, config: &Config, now_ms: i64) -> Result<Found> {
    let mut found = Found { count: 0, max_timestamp: NO_TIMESTAMP, consecutive: true };
    let mut refused: Option<ValidateError> = None;
    for record in records.records() {
        let record = record.map_err(refused_records)?;
        let flaw = check_record(&record, found.count, header, config, now_ms);
        let outranks = matches!(flaw, Some(ValidateError::InvalidTimestamp { .. }))
            && !matches!(refused, Some(ValidateError::InvalidTimestamp { .. }));
        if refused.is_none() || outranks {
            refused = flaw.or(refused);
        }
        found.max_timestamp = found.max_timestamp.max(record.timestamp);
        found.consecutive &= record.offset_delta == found.count;
        found.count += 1;
    }
    refused.map_or(Ok(found), Err)
}

fn check_record(
    record: &Record<'_>,
    number: i32,
    header: &BatchHeader,
    config: &Config,
    now_ms: i64,
) -> Option<ValidateError> {
    if config.cleanup_policy.compacts() && record.key.is_none() {
        return Some(InvalidRecord::NoKey { number }.into());
    }
    let timestamp = record.timestamp;
    if config.message_timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
        // Kafka's subtraction wraps.
        let behind_ms = now_ms.wrapping_sub(timestamp);
        let (before_max, after_max) = (config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms);
        let outside = behind_ms > before_max || behind_ms.wrapping_neg() > after_max;
        return outside.then_some(ValidateError::InvalidTimestamp { number, timestamp, now_ms });
    }
    let claims_ours = header.timestamp_type() == TimestampType::LogAppendTime;
    claims_ours.then_some(ValidateError::InvalidTimestamp { number, timestamp, now_ms })
}

/// The same records under another codec, at consecutive offsets.
fn encode_again(records: &Records<'_>, header: &BatchHeader, codec: Compression) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new()
        .compression(codec)
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .transactional(header.is_transactional());
    let mut headers = Vec::new();
    for record in records.records() {
        let record = record.map_err(refused_records)?;
        headers.clear();
        headers.extend(record.headers.clone());
        builder.append(record.timestamp, record.key, record.value, &headers);
    }
    builder.build().map_err(refused_records)
}

fn too_large(size_bytes: usize, config: &Config) -> ValidateError {
    ValidateError::RecordTooLarge { size_bytes, limit_bytes: config.max_message_bytes }
}

fn refused_codec(error: FormatError) -> ValidateError {
    match error {
        FormatError::UnknownCodec(id) => ValidateError::UnknownCodec(id),
        error => ValidateError::Corrupt(error),
    }
}

fn refused_records(error: FormatError) -> ValidateError {
    match error {
        FormatError::CodecUnavailable(codec) => ValidateError::CodecUnavailable(codec),
        FormatError::UnknownCodec(id) => ValidateError::UnknownCodec(id),
        FormatError::TooLarge { .. } => ValidateError::DecodesTooLarge { limit_bytes: DECODE_LIMIT_BYTES },
        error => InvalidRecord::Malformed(error).into(),
    }
}

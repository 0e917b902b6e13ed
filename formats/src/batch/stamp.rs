//! The two rewrites a broker makes in a producer's batch before it is stored.

use zerocopy::FromBytes;

use super::header::{KNOWN, LOG_APPEND_TIME, RawHeader};
use super::{BatchHeader, CRC_START, HEADER_BYTES, TimestampType, WHAT};
use crate::crc32c::crc32c;
use crate::error::{FormatError, Result};

/// Sets base offset and leader epoch; the CRC does not cover them. [`FormatError::Truncated`] below 61 bytes.
pub fn stamp(batch: &mut [u8], base_offset: i64, leader_epoch: i32) -> Result<()> {
    let raw = raw_header(batch)?;
    raw.base_offset.set(base_offset);
    raw.partition_leader_epoch.set(leader_epoch);
    Ok(())
}

/// Sets timestamp type and maximum timestamp (milliseconds), and the CRC, if one of them differs; says whether it did.
///
/// Like Kafka's, a change also clears the attribute bits without a meaning (7 to 15). `batch` may be followed by other
/// bytes. Errors of [`BatchHeader::parse`], [`FormatError::Truncated`] where the batch is not whole,
/// [`FormatError::UnknownCodec`]; then nothing is changed.
pub fn set_timestamps(batch: &mut [u8], kind: TimestampType, max_timestamp: i64) -> Result<bool> {
    let header = BatchHeader::parse(batch)?;
    let (need, have) = (header.size_bytes(), batch.len());
    let batch = batch.get_mut(..need).ok_or(FormatError::Truncated { what: WHAT, need, have })?;
    if header.timestamp_type() == kind && header.max_timestamp == max_timestamp {
        return Ok(false);
    }
    header.compression()?;
    let clock = match kind {
        TimestampType::CreateTime => 0,
        TimestampType::LogAppendTime => LOG_APPEND_TIME,
    };
    let raw = raw_header(batch)?;
    raw.attributes.set(header.attributes & KNOWN & !LOG_APPEND_TIME | clock);
    raw.max_timestamp.set(max_timestamp);
    seal(batch)?;
    Ok(true)
}

/// Sets the CRC of exactly one batch to that of its bytes.
pub(crate) fn seal(batch: &mut [u8]) -> Result<()> {
    let crc = batch.get(CRC_START..).map_or(0, crc32c);
    raw_header(batch)?.crc.set(crc);
    Ok(())
}

fn raw_header(batch: &mut [u8]) -> Result<&mut RawHeader> {
    let have = batch.len();
    match RawHeader::mut_from_prefix(batch) {
        Ok((raw, _)) => Ok(raw),
        Err(_) => Err(FormatError::Truncated { what: WHAT, need: HEADER_BYTES, have }),
    }
}

//! The header in memory and on disk.

use zerocopy::byteorder::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{HEADER_BYTES, LOG_OVERHEAD_BYTES, NO_PRODUCER_ID, NO_SEQUENCE, WHAT};
use crate::compress::Compression;
use crate::error::{FormatError, Result};
use crate::num::sequence_add;

/// Attribute bits 0 to 2.
const CODEC: i16 = 0x07;
/// Attribute bit 3: the batch carries the broker's clock.
pub(crate) const LOG_APPEND_TIME: i16 = 0x08;
/// Attribute bit 4.
pub(crate) const TRANSACTIONAL: i16 = 0x10;
/// Attribute bit 5.
pub(crate) const CONTROL: i16 = 0x20;
/// Attribute bit 6: the base timestamp is a delete horizon.
pub(crate) const DELETE_HORIZON: i16 = 0x40;
/// The attribute bits that mean something.
pub(super) const KNOWN: i16 = 0x7f;

/// Whose clock a batch's timestamps are from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The broker's at append; every record has the batch's maximum timestamp.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's name: `CreateTime` or `LogAppendTime`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// The header as it lies on disk; big-endian, no padding.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    pub(super) base_offset: I64,
    pub(super) batch_length: I32,
    pub(super) partition_leader_epoch: I32,
    pub(super) magic: i8,
    pub(super) crc: U32,
    pub(super) attributes: I16,
    pub(super) last_offset_delta: I32,
    pub(super) base_timestamp: I64,
    pub(super) max_timestamp: I64,
    pub(super) producer_id: I64,
    pub(super) producer_epoch: I16,
    pub(super) base_sequence: I32,
    pub(super) record_count: I32,
}

const _: () = assert!(size_of::<RawHeader>() == HEADER_BYTES);
const _: () = assert!(core::mem::offset_of!(RawHeader, attributes) == super::CRC_START);
const _: () = assert!(core::mem::offset_of!(RawHeader, crc) == super::FRAME_BYTES);

/// A batch's header, field by field. Parsed is not verified: see [`super::BatchView::verify_crc`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record the batch was written with.
    pub base_offset: i64,
    /// Bytes after this field; at least 49 in a parsed header.
    pub batch_length: i32,
    /// Epoch of the leader that appended it, or -1.
    pub partition_leader_epoch: i32,
    /// Format; 2 here.
    pub magic: i8,
    /// CRC-32C over attributes to end.
    pub crc: u32,
    /// Codec and flags; only the low seven bits mean something.
    pub attributes: i16,
    /// Last offset minus base offset.
    pub last_offset_delta: i32,
    /// Milliseconds; record timestamps count from it, and it is the delete horizon where there is one.
    pub base_timestamp: i64,
    /// Milliseconds; the largest record timestamp, or the append time.
    pub max_timestamp: i64,
    /// Producer id, or -1.
    pub producer_id: i64,
    /// Producer epoch, or -1.
    pub producer_epoch: i16,
    /// Sequence of the first record, or -1.
    pub base_sequence: i32,
    /// Records that follow; 0 once compaction emptied the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the first 61 bytes. [`FormatError::Truncated`] where there are fewer, [`FormatError::BadLength`] where the
    /// length field leaves no room for a header. Magic and CRC are not looked at.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Ok((raw, _)) = RawHeader::ref_from_prefix(bytes) else {
            return Err(FormatError::Truncated { what: WHAT, need: HEADER_BYTES, have: bytes.len() });
        };
        let header = Self {
            base_offset: raw.base_offset.get(),
            batch_length: raw.batch_length.get(),
            partition_leader_epoch: raw.partition_leader_epoch.get(),
            magic: raw.magic,
            crc: raw.crc.get(),
            attributes: raw.attributes.get(),
            last_offset_delta: raw.last_offset_delta.get(),
            base_timestamp: raw.base_timestamp.get(),
            max_timestamp: raw.max_timestamp.get(),
            producer_id: raw.producer_id.get(),
            producer_epoch: raw.producer_epoch.get(),
            base_sequence: raw.base_sequence.get(),
            record_count: raw.record_count.get(),
        };
        if header.size_bytes() < HEADER_BYTES {
            return Err(FormatError::BadLength { what: WHAT, value: i64::from(header.batch_length) });
        }
        Ok(header)
    }

    /// Writes all fields as they are, the CRC included.
    pub fn encode(&self, bytes: &mut [u8; HEADER_BYTES]) {
        let raw = RawHeader {
            base_offset: self.base_offset.into(),
            batch_length: self.batch_length.into(),
            partition_leader_epoch: self.partition_leader_epoch.into(),
            magic: self.magic,
            crc: self.crc.into(),
            attributes: self.attributes.into(),
            last_offset_delta: self.last_offset_delta.into(),
            base_timestamp: self.base_timestamp.into(),
            max_timestamp: self.max_timestamp.into(),
            producer_id: self.producer_id.into(),
            producer_epoch: self.producer_epoch.into(),
            base_sequence: self.base_sequence.into(),
            record_count: self.record_count.into(),
        };
        bytes.copy_from_slice(raw.as_bytes());
    }

    /// Bytes of the whole batch. 0 where the length field is negative, which no parsed header has.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        usize::try_from(self.batch_length).map_or(0, |length| length.saturating_add(LOG_OVERHEAD_BYTES))
    }

    /// Offset of the last record the batch was written with.
    #[must_use]
    pub fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta))
    }

    /// The offset behind the batch.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.last_offset().saturating_add(1)
    }

    /// Sequence of the last record, wrapping from 2^31-1 to 0, or -1 without sequences.
    #[must_use]
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            sequence_add(self.base_sequence, self.last_offset_delta)
        }
    }

    /// Whether the batch belongs to an idempotent or transactional producer.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch holds a control record instead of data.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whose clock the timestamps are from.
    #[must_use]
    pub fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    /// Milliseconds after which compaction may drop the batch's tombstones and markers, once that is decided.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// The codec of the records; numbers 5 to 7 are [`FormatError::UnknownCodec`].
    pub fn compression(&self) -> Result<Compression> {
        Compression::from_id((self.attributes & CODEC) as u8)
    }
}

//! Why a set of batches is refused before any state is looked at.

use oncelog_formats::{Compression, FormatError};

/// Why a batch or set was refused; nothing was stored and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValidateError {
    /// A batch or record breaks a rule.
    #[error("invalid record: {0}")]
    InvalidRecord(#[from] InvalidRecord),
    /// A record's time is too far from the clock, or claims to be the log's.
    #[error("record {number}: timestamp {timestamp} at {now_ms}")]
    InvalidTimestamp {
        /// Number of the record in its batch, from 0.
        number: i32,
        /// Its timestamp, ms.
        timestamp: i64,
        /// The clock, ms.
        now_ms: i64,
    },
    /// The bytes are no batch, or not what was sent.
    #[error("corrupt batch: {0}")]
    Corrupt(FormatError),
    /// A batch over `max_message_bytes`, as sent or as re-encoded.
    #[error("a batch of {size_bytes} bytes where {limit_bytes} are allowed")]
    RecordTooLarge {
        /// Size of the batch in bytes.
        size_bytes: usize,
        /// The limit in bytes.
        limit_bytes: u64,
    },
    /// Records that decompress to more than this engine decodes.
    #[error("records of more than {limit_bytes} bytes in one batch")]
    DecodesTooLarge {
        /// The limit in bytes.
        limit_bytes: usize,
    },
    /// Batches that bring their offsets, and do not increase.
    #[error("a batch of offsets {base_offset} to {last_offset} behind offset {previous}")]
    OffsetsOutOfOrder {
        /// First offset of the batch.
        base_offset: i64,
        /// Its last offset.
        last_offset: i64,
        /// Last offset of the batch before it, -1 for none.
        previous: i64,
    },
    /// A codec number that Kafka does not know.
    #[error("unknown codec {0}")]
    UnknownCodec(u8),
    /// A codec that this build leaves out, so that the records cannot be checked or stored as configured.
    #[error("codec {} is not compiled in", .0.name())]
    CodecUnavailable(Compression),
}

impl ValidateError {
    /// The protocol's name for it.
    #[must_use]
    pub fn kafka_name(&self) -> &'static str {
        match self {
            Self::InvalidRecord(_) => "INVALID_RECORD",
            Self::InvalidTimestamp { .. } => "INVALID_TIMESTAMP",
            Self::Corrupt(_) => "CORRUPT_MESSAGE",
            Self::RecordTooLarge { .. } | Self::DecodesTooLarge { .. } => "MESSAGE_TOO_LARGE",
            Self::OffsetsOutOfOrder { .. } => "OFFSETS_OUT_OF_ORDER",
            Self::UnknownCodec(_) => "INVALID_REQUEST",
            Self::CodecUnavailable(_) => "UNSUPPORTED_COMPRESSION_TYPE",
        }
    }

    /// Whether sending the same records again may help: only where the bytes may have suffered on the way.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Corrupt(_))
    }
}

/// Which rule a batch or record breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// Clients and coordinators append one batch at a time.
    #[error("{batches} batches where one is allowed")]
    NotOneBatch {
        /// Batches in the set.
        batches: usize,
    },
    /// A Raft leader's batch carries another epoch than the append.
    #[error("leader epoch {found} where {expected} is expected")]
    LeaderEpoch {
        /// That of the append.
        expected: i32,
        /// That of the batch.
        found: i32,
    },
    /// A client's batch brings offsets of its own.
    #[error("base offset {base_offset} from a client")]
    BaseOffset {
        /// As sent.
        base_offset: i64,
    },
    /// The offset range and the number of records differ.
    #[error("{count} records over last offset delta {last_offset_delta}")]
    OffsetRange {
        /// As sent.
        last_offset_delta: i32,
        /// As sent.
        count: i32,
    },
    /// A client's batch without records.
    #[error("record count {count}")]
    Count {
        /// As sent.
        count: i32,
    },
    /// Only coordinators write control records.
    #[error("control record from a client")]
    ControlFromClient,
    /// A producer id without a sequence.
    #[error("sequence {base_sequence} of producer {producer_id}")]
    Sequence {
        /// As sent.
        producer_id: i64,
        /// As sent.
        base_sequence: i32,
    },
    /// A compacted log needs keys.
    #[error("record {number} has no key")]
    NoKey {
        /// Number of the record in its batch, from 0.
        number: i32,
    },
    /// The records cannot be read.
    #[error(transparent)]
    Malformed(FormatError),
}

//! The one error of the front door, with predicates; each variant is made of the error of the room where it arose.

use oncelog_device::DeviceError;
use oncelog_formats::FormatError;
use oncelog_snapshot::Refusal;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::ConfigError;
use crate::validate::ValidateError;

/// Result of an operation of the engine.
pub type Result<T> = std::result::Result<T, Error>;

/// Where stored bytes are not what was written, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, byte {position}, offset {offset}: {reason}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// First byte that cannot be trusted.
    pub position: u64,
    /// First offset that cannot be read.
    pub offset: i64,
    /// What was found.
    pub reason: String,
}

/// Why an operation of the engine did not happen. What is not stored after an error is named per variant.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The producer's state refuses the batch; nothing was stored and nothing changed.
    #[error("{refusal}")]
    Refused {
        /// The producer of the refused batch.
        producer_id: i64,
        /// Which rule.
        refusal: Refusal,
    },
    /// The batch itself is not acceptable; nothing was stored and nothing changed.
    #[error(transparent)]
    Invalid(#[from] ValidateError),
    /// The set of batches is larger than a segment; nothing was stored.
    #[error("{size_bytes} bytes of batches do not fit a segment of {segment_bytes} bytes")]
    RecordListTooLarge {
        /// Bytes offered.
        size_bytes: usize,
        /// The limit, `segment_bytes`.
        segment_bytes: u64,
    },
    /// A replica's batch lies below the log end; nothing was stored.
    #[error("first offset {first_offset} (last {last_offset}) is below the log end {log_end_offset}")]
    UnexpectedAppendOffset {
        /// First offset of the set.
        first_offset: i64,
        /// Last offset of the set.
        last_offset: i64,
        /// The log end.
        log_end_offset: i64,
    },
    /// An offset outside the log.
    #[error("offset {offset} is outside {log_start_offset}..={limit}")]
    OffsetOutOfRange {
        /// The offset asked for.
        offset: i64,
        /// The log start.
        log_start_offset: i64,
        /// The largest offset that the operation takes.
        limit: i64,
    },
    /// An argument that makes no sense.
    #[error("{0}")]
    InvalidRequest(String),
    /// No space is left; nothing was stored, reads go on, and the same append works when space has returned.
    #[error("no space left: {0}")]
    StorageFull(Arc<DeviceError>),
    /// A write or sync failed: nothing is acknowledged until the log is opened again.
    #[error("the log is latched after a failure: {0}")]
    Storage(Arc<DeviceError>),
    /// A file cannot be read, listed or replaced; the log is not latched.
    #[error("{0}")]
    Device(Arc<DeviceError>),
    /// Stored bytes are damaged below what was promised; the log is read-only around them.
    #[error("damaged: {0}")]
    Damaged(Box<Damage>),
    /// A file's format is wrong.
    #[error("{}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
    /// The log knows `max_producers` producers and this one is new; nothing was stored. Those it knows go on, and the
    /// same append works when some were forgotten for their silence, or the limit was raised.
    #[error("producer {producer_id} is new, and the log knows {limit} already")]
    TooManyProducers {
        /// The producer of the refused batch.
        producer_id: i64,
        /// The limit, `max_producers`.
        limit: i64,
    },
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log was closed.
    #[error("the log is closed")]
    Closed,
    /// The log or its data directory is open already, here or in another process.
    #[error("already open: {0}")]
    AlreadyOpen(String),
}

impl Error {
    /// The same operation may succeed later without any change by the caller.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Error::StorageFull(_) | Error::Storage(_) | Error::TooManyProducers { .. } => true,
            Error::Invalid(e) => e.is_retriable(),
            _ => false,
        }
    }

    /// A newer producer or coordinator has taken over.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self.kafka_name(), "INVALID_PRODUCER_EPOCH" | "TRANSACTION_COORDINATOR_FENCED")
    }

    /// Bytes are not what was written, stored or offered.
    #[must_use]
    pub fn is_corruption(&self) -> bool {
        matches!(self, Error::Damaged(_) | Error::Format { .. }) || self.kafka_name() == "CORRUPT_MESSAGE"
    }

    /// The disk is full.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Error::StorageFull(_))
    }

    /// Kafka's protocol name of this error where it has one, else ours in the same style.
    #[must_use]
    pub fn kafka_name(&self) -> &'static str {
        match self {
            Error::Refused { refusal, .. } => refusal.kafka_name(),
            Error::Invalid(e) => e.kafka_name(),
            Error::RecordListTooLarge { .. } => "RECORD_LIST_TOO_LARGE",
            Error::UnexpectedAppendOffset { .. } => "UNEXPECTED_APPEND_OFFSET",
            Error::OffsetOutOfRange { .. } => "OFFSET_OUT_OF_RANGE",
            Error::InvalidRequest(_) | Error::Config(_) => "INVALID_REQUEST",
            Error::TooManyProducers { .. } => "THROTTLING_QUOTA_EXCEEDED",
            Error::StorageFull(_) => "STORAGE_FULL",
            Error::Storage(_) | Error::Device(_) => "KAFKA_STORAGE_ERROR",
            Error::Damaged(_) | Error::Format { .. } => "DAMAGED",
            Error::Closed => "NOT_OPEN",
            Error::AlreadyOpen(_) => "ALREADY_OPEN",
        }
    }

    pub(crate) fn damaged(path: PathBuf, position: u64, offset: i64, reason: impl Into<String>) -> Self {
        Error::Damaged(Box::new(Damage { path, position, offset, reason: reason.into() }))
    }
}

impl From<DeviceError> for Error {
    fn from(e: DeviceError) -> Self {
        if e.is_full() {
            return Error::StorageFull(Arc::new(e));
        }
        if e.kind() == oncelog_device::DeviceErrorKind::Locked {
            return Error::AlreadyOpen(e.path().display().to_string());
        }
        Error::Device(Arc::new(e))
    }
}

//! Apache Kafka's storage formats: bytes in, values out.
//!
//! No files, no clock, no unsafe: any byte string decodes to a value or to a [`FormatError`], never to a panic and
//! never to an allocation larger than the input justifies. Layouts are described in `docs/formats.md`; modules stand in
//! floor order, ground first.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd", test))]
extern crate std;

// Blank lines between the floors keep the formatter from sorting them by name.
pub mod num;

pub mod error;

pub mod varint;

pub mod crc32c;

pub mod compress;

pub mod batch;

pub mod record;

pub mod control;

mod checkpoint_text;

mod index_findings;

pub mod offset_index;

pub mod time_index;

pub mod txn_index;

pub mod snapshot;

pub mod epoch_checkpoint;

pub mod checkpoint;

pub mod log_checkpoint;

pub mod partition_metadata;

pub mod clean_shutdown;

pub mod file_name;

pub use batch::{BatchHeader, BatchView, Batches, TimestampType};
pub use compress::Compression;
pub use control::{ControlRecord, ControlType, EndTxnMarker};
pub use epoch_checkpoint::EpochEntry;
pub use error::{FormatError, Result};
pub use file_name::{FileName, Kind, Suffix};
pub use index_findings::IndexFindings;
pub use offset_index::OffsetEntry;
pub use record::{BatchBuilder, Headers, Record, RecordIter, Records};
pub use snapshot::{SnapshotEntry, SnapshotFile};
pub use time_index::TimeEntry;
pub use txn_index::AbortedTxn;

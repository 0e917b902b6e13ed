//! Record batches of magic 2: header, framing, checksum, and the two rewrites a broker makes.
//!
//! Everything that an append or a recovery needs of a batch stands in its 61-byte header; the records stay encoded
//! (module [`crate::record`]). The layout has one copy in the code, the raw struct of `batch/header.rs`.

mod frame;
mod header;
mod stamp;
#[cfg(test)]
mod tests;
mod view;

pub use frame::{Batches, frame_in_memory};
pub use header::{BatchHeader, TimestampType};
pub(crate) use header::{CONTROL, DELETE_HORIZON, LOG_APPEND_TIME, TRANSACTIONAL};
pub(crate) use stamp::seal;
pub use stamp::{set_timestamps, stamp};
pub use view::BatchView;

/// Bytes of a batch's header, never compressed.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which the length does not count.
pub const LOG_OVERHEAD_BYTES: usize = 12;
/// Bytes up to and with the magic, all that framing reads.
pub const FRAME_BYTES: usize = 17;
/// The format of these batches.
pub const MAGIC: i8 = 2;
/// Producer id of a batch without a producer.
pub const NO_PRODUCER_ID: i64 = -1;
/// Epoch of a batch without a producer.
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Base sequence of a batch without sequences.
pub const NO_SEQUENCE: i32 = -1;
/// Timestamp of a batch without one.
pub const NO_TIMESTAMP: i64 = -1;
/// Leader epoch of a batch without one.
pub const NO_LEADER_EPOCH: i32 = -1;

/// The batch length below which not even the oldest format fits.
const MIN_LENGTH: i32 = 14;
/// Where the bytes covered by the CRC begin.
const CRC_START: usize = 21;
const WHAT: &str = "record batch";

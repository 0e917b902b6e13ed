//! `.snapshot`: what each producer last did, as of the offset in the file's name.
//!
//! Kafka keeps one batch a producer here, so after a restart it recognises only the newest of five possible retries.
//! What Kafka leaves out goes behind its entries, inside its checksum: Kafka accepts and ignores bytes there, and drops
//! them when it writes the file anew. So the [`Extension`] is a gain when present and never needed to understand the
//! file. An own file beside the snapshot was not chosen: it could be lost or outlive the snapshot it belongs to.

mod extension;
#[cfg(test)]
mod tests;
mod writer;

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::crc32c::crc32c;
use crate::num::sequence_sub;
use crate::{FormatError, Result};

pub use extension::{BatchMeta, Extension, MAX_BATCHES, PEEK_BYTES, ProducerExtra, SealedSegment, peek_log_end_offset};
pub use writer::SnapshotWriter;

/// The only version.
pub const VERSION: i16 = 1;
/// Version, checksum, number of entries.
pub const HEADER_BYTES: usize = 10;
/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 46;

/// The checksum covers everything from here to the end of the file.
const CRC_FROM: usize = 6;
const WHAT: &str = "producer snapshot";

/// What Kafka keeps of one producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotEntry {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Last sequence of its last batch, -1 without a batch.
    pub last_sequence: i32,
    /// Last offset of its last batch, -1 without a batch.
    pub last_offset: i64,
    /// Last offset of that batch minus its first, 0 without a batch.
    pub offset_delta: i32,
    /// Largest timestamp of the last thing written, a marker perhaps; milliseconds, -1 without one.
    pub timestamp: i64,
    /// Epoch of the coordinator of its last marker, -1 without one.
    pub coordinator_epoch: i32,
    /// First offset of its open transaction, -1 without one.
    pub current_txn_first_offset: i64,
}

impl SnapshotEntry {
    /// The one batch Kafka restores; none if the last offset is negative.
    #[must_use]
    pub fn last_batch(&self) -> Option<BatchMeta> {
        (self.last_offset >= 0).then(|| BatchMeta {
            first_sequence: sequence_sub(self.last_sequence, self.offset_delta),
            last_sequence: self.last_sequence,
            first_offset: self.last_offset.wrapping_sub(self.offset_delta.into()),
            last_offset: self.last_offset,
            timestamp: self.timestamp,
        })
    }

    /// First offset of the open transaction; none if the stored value is negative.
    #[must_use]
    pub fn open_txn(&self) -> Option<i64> {
        (self.current_txn_first_offset >= 0).then_some(self.current_txn_first_offset)
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    version: big_endian::I16,
    crc: big_endian::U32,
    entry_count: big_endian::I32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawEntry {
    producer_id: big_endian::I64,
    epoch: big_endian::I16,
    last_sequence: big_endian::I32,
    last_offset: big_endian::I64,
    offset_delta: big_endian::I32,
    timestamp: big_endian::I64,
    coordinator_epoch: big_endian::I32,
    current_txn_first_offset: big_endian::I64,
}

const _: () = {
    assert!(size_of::<RawHeader>() == HEADER_BYTES);
    assert!(size_of::<RawEntry>() == ENTRY_BYTES);
};

impl From<&SnapshotEntry> for RawEntry {
    fn from(entry: &SnapshotEntry) -> Self {
        Self {
            producer_id: entry.producer_id.into(),
            epoch: entry.epoch.into(),
            last_sequence: entry.last_sequence.into(),
            last_offset: entry.last_offset.into(),
            offset_delta: entry.offset_delta.into(),
            timestamp: entry.timestamp.into(),
            coordinator_epoch: entry.coordinator_epoch.into(),
            current_txn_first_offset: entry.current_txn_first_offset.into(),
        }
    }
}

impl From<&RawEntry> for SnapshotEntry {
    fn from(raw: &RawEntry) -> Self {
        Self {
            producer_id: raw.producer_id.get(),
            epoch: raw.epoch.get(),
            last_sequence: raw.last_sequence.get(),
            last_offset: raw.last_offset.get(),
            offset_delta: raw.offset_delta.get(),
            timestamp: raw.timestamp.get(),
            coordinator_epoch: raw.coordinator_epoch.get(),
            current_txn_first_offset: raw.current_txn_first_offset.get(),
        }
    }
}

/// What stood behind the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trailing {
    /// Nothing: the file is plain Kafka's.
    #[default]
    Nothing,
    /// Our extension, whole.
    Extension,
    /// Bytes that do not begin with our magic.
    Foreign,
    /// Our magic with a version or flags of another writer, older or newer.
    OtherVersion,
    /// Our magic, but the length, the checksum or the content is wrong, or other bytes follow.
    Damaged,
}

/// A whole snapshot file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Kafka's entries, in the order of the file. A producer may stand twice; the later entry wins.
    pub entries: Vec<SnapshotEntry>,
    /// What Kafka leaves out.
    pub extension: Option<Extension>,
}

impl SnapshotFile {
    /// The file's bytes. An extension too large for its length field (4 GiB) is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = SnapshotWriter::new(self.entries.len());
        self.entries.iter().for_each(|entry| writer.push_entry(entry));
        for extra in self.extension.iter().flat_map(|extension| &extension.producers) {
            writer.push_extra(extra.producer_id, extra.last_append_ms, extra.forgotten, &extra.batches);
        }
        writer.finish(self.extension.as_ref())
    }

    /// Where the extension begins in a file that begins with these bytes, [`HEADER_BYTES`] at least.
    #[must_use]
    pub fn extension_position(bytes: &[u8]) -> Option<u64> {
        let (header, _) = RawHeader::ref_from_prefix(bytes).ok()?;
        let count = u64::try_from(header.entry_count.get()).ok()?;
        Some(HEADER_BYTES as u64 + count * ENTRY_BYTES as u64)
    }

    /// Reads a file as Kafka does. Whatever stands behind the entries cannot make it fail; an extension that is not
    /// whole is as good as none.
    ///
    /// # Errors
    /// `Truncated`, `BadVersion`, `CrcMismatch` or `BadLength`: to Kafka, the file is corrupt.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        Self::decode_with_trailing(bytes).map(|(file, _)| file)
    }

    /// As [`decode`](Self::decode), and says what stood behind the entries.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    pub fn decode_with_trailing(bytes: &[u8]) -> Result<(Self, Trailing)> {
        let truncated = FormatError::Truncated { what: WHAT, need: HEADER_BYTES, have: bytes.len() };
        let (header, rest) = RawHeader::ref_from_prefix(bytes).map_err(|_| truncated)?;
        if header.version.get() != VERSION {
            return Err(FormatError::BadVersion { what: WHAT, version: header.version.get().into() });
        }
        let (stored, computed) = (header.crc.get(), crc32c(&bytes[CRC_FROM..]));
        if stored != computed {
            return Err(FormatError::CrcMismatch { what: WHAT, stored, computed });
        }
        // The count is compared with the bytes there before anything is allocated for it.
        let count = header.entry_count.get();
        let impossible = FormatError::BadLength { what: "number of producers", value: count.into() };
        let count = usize::try_from(count).map_err(|_| impossible.clone())?;
        let (raw, behind) = <[RawEntry]>::ref_from_prefix_with_elems(rest, count).map_err(|_| impossible)?;
        let (extension, trailing) = Extension::decode(behind);
        Ok((Self { entries: raw.iter().map(SnapshotEntry::from).collect(), extension }, trailing))
    }
}

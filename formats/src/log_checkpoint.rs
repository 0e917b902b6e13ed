//! `<offset>.checkpoint-oncelog`: what an opening needs to know to begin at that offset. Layout: `docs/formats.md`.
//!
//! Not Kafka's: Kafka ignores the name. It says how far the active segment had come, what its indexes had gained, which
//! transactions were open, and where in the file the pages of the producers are; the pages themselves are read when one
//! of their producers is asked for. A file may say only what changed since its parent, which then is needed too.
//! Whatever it says counts only if the log still has the batch that it names, byte for byte.

use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::crc32c::{crc32c, crc32c_append};
use crate::offset_index::OffsetEntry;
use crate::time_index::TimeEntry;
use crate::txn_index::AbortedTxn;
use crate::{FormatError, Result};

/// Ending of the file's name, behind twenty digits.
pub const EXTENSION: &str = ".checkpoint-oncelog";
/// Bytes in front of the lists.
pub const HEADER_BYTES: usize = 172;

const MAGIC: [u8; 8] = *b"ONCELOGC";
/// 1: with a digest of other terms.
const VERSION: u16 = 2;
const WHAT: &str = "log checkpoint";
const CRC_AT: usize = 12;
const NONE: i64 = -1;
const NO_EPOCH: i32 = -1;

/// Everything but the pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// Exclusive end of what it covers; the number in the file's name.
    pub log_end_offset: i64,
    /// The checkpoint that this one says the changes to; none: it says everything.
    pub parent: Option<i64>,
    /// Number of producers.
    pub producer_count: u64,
    /// Digest of the producers.
    pub digest: u64,
    /// Our clock when it was made, in ms: no producer appended later.
    pub made_ms: i64,
    /// Every batch from this offset on counts in what is said of transactions.
    pub complete_from: i64,
    /// Offset of the first batch by which producers used transactions, as far as that is remembered; none: they used
    /// none.
    pub transactional_from: Option<i64>,
    /// The newest leader epoch then; none: the log had none.
    pub leader_epoch: Option<i32>,
    /// The active segment then.
    pub segment: SegmentPoint,
    /// Open transactions: producer id and first offset.
    pub open_txns: Vec<(i64, i64)>,
    /// Entries of the segment's offset index from [`SegmentPoint::offset_entries_before`] on.
    pub offset_entries: Vec<OffsetEntry>,
    /// Entries of its time index from [`SegmentPoint::time_entries_before`] on.
    pub time_entries: Vec<TimeEntry>,
    /// Its aborted transactions from [`SegmentPoint::aborted_before`] on.
    pub aborted: Vec<AbortedTxn>,
    /// The pages of producers, in the order of their hashes.
    pub pages: Vec<PageRef>,
}

/// How far a segment had come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentPoint {
    /// Its base offset.
    pub base_offset: i64,
    /// Bytes of its batches.
    pub size_bytes: u64,
    /// Where its last batch begins, and the CRC in that batch; none in an empty segment.
    pub last_batch: Option<(u64, u32)>,
    /// Largest timestamp and the offset that has it; none without.
    pub largest: Option<TimeEntry>,
    /// Bytes since the last index entry.
    pub bytes_since_entry: u64,
    /// How many entries of the offset index came before those given.
    pub offset_entries_before: u32,
    /// The same of the time index.
    pub time_entries_before: u32,
    /// The same of the aborted transactions.
    pub aborted_before: u32,
}

/// Where a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageRef {
    /// Hash of its first block.
    pub first_hash: u64,
    /// Where it begins in the file.
    pub position: u64,
    /// Bytes.
    pub length: u32,
    /// CRC-32C of its bytes.
    pub crc: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: big_endian::U16,
    zero: big_endian::U16,
    crc: big_endian::U32,
    log_end_offset: big_endian::I64,
    parent: big_endian::I64,
    producer_count: big_endian::U64,
    digest: big_endian::U64,
    made_ms: big_endian::I64,
    complete_from: big_endian::I64,
    transactional_from: big_endian::I64,
    base_offset: big_endian::I64,
    size_bytes: big_endian::U64,
    last_batch_position: big_endian::I64,
    last_batch_crc: big_endian::U32,
    has_largest: big_endian::U32,
    largest_timestamp: big_endian::I64,
    largest_offset: big_endian::I64,
    bytes_since_entry: big_endian::U64,
    before: [big_endian::U32; 3],
    leader_epoch: big_endian::I32,
    /// Of transactions, offset entries, time entries, aborted, pages.
    counts: [big_endian::U32; 5],
    list_bytes: big_endian::U64,
}

/// Two numbers: producer id and first offset; offset and position; timestamp and offset.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPair(big_endian::I64, big_endian::I64);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawAborted([big_endian::I64; 4]);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawPage {
    first_hash: big_endian::U64,
    position: big_endian::U64,
    length: big_endian::U32,
    crc: big_endian::U32,
}

const _: () = {
    assert!(size_of::<RawHeader>() == HEADER_BYTES);
    assert!(size_of::<RawPage>() == 24);
};

impl LogCheckpoint {
    /// Header and lists. Positions of pages count from the first page, which stands right behind; `decode` makes them
    /// positions in the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let pair = |a: i64, b: i64| RawPair(a.into(), b.into());
        let mut lists = Vec::new();
        let mut pairs = Vec::new();
        pairs.extend(self.open_txns.iter().map(|(id, first)| pair(*id, *first)));
        pairs.extend(self.offset_entries.iter().map(|e| pair(e.offset, e.position.into())));
        pairs.extend(self.time_entries.iter().map(|e| pair(e.timestamp, e.offset)));
        lists.extend_from_slice(pairs.as_bytes());
        for txn in &self.aborted {
            let AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset } = *txn;
            let raw = RawAborted([producer_id, first_offset, last_offset, last_stable_offset].map(Into::into));
            lists.extend_from_slice(raw.as_bytes());
        }
        for page in &self.pages {
            let raw = RawPage {
                first_hash: page.first_hash.into(),
                position: page.position.into(),
                length: page.length.into(),
                crc: page.crc.into(),
            };
            lists.extend_from_slice(raw.as_bytes());
        }
        let mut header = self.header(lists.len());
        header.crc = crc32c_append(crc32c(header.as_bytes()), &lists).into();
        let mut bytes = Vec::from(header.as_bytes());
        bytes.extend_from_slice(&lists);
        bytes
    }

    fn header(&self, list_bytes: usize) -> RawHeader {
        let count = |length: usize| big_endian::U32::new(u32::try_from(length).unwrap_or(u32::MAX));
        let segment = &self.segment;
        let (position, crc) = segment.last_batch.map_or((NONE, 0), |(position, crc)| (position as i64, crc));
        let largest = segment.largest.unwrap_or(TimeEntry { timestamp: 0, offset: 0 });
        RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            zero: 0.into(),
            crc: 0.into(),
            log_end_offset: self.log_end_offset.into(),
            parent: self.parent.unwrap_or(NONE).into(),
            producer_count: self.producer_count.into(),
            digest: self.digest.into(),
            made_ms: self.made_ms.into(),
            complete_from: self.complete_from.into(),
            transactional_from: self.transactional_from.unwrap_or(NONE).into(),
            base_offset: segment.base_offset.into(),
            size_bytes: segment.size_bytes.into(),
            last_batch_position: position.into(),
            last_batch_crc: crc.into(),
            has_largest: u32::from(segment.largest.is_some()).into(),
            largest_timestamp: largest.timestamp.into(),
            largest_offset: largest.offset.into(),
            bytes_since_entry: segment.bytes_since_entry.into(),
            before: [segment.offset_entries_before, segment.time_entries_before, segment.aborted_before]
                .map(Into::into),
            leader_epoch: self.leader_epoch.unwrap_or(NO_EPOCH).into(),
            counts: [
                count(self.open_txns.len()),
                count(self.offset_entries.len()),
                count(self.time_entries.len()),
                count(self.aborted.len()),
                count(self.pages.len()),
            ],
            list_bytes: (list_bytes as u64).into(),
        }
    }

    /// How many bytes [`Self::decode`] needs, told from the first [`HEADER_BYTES`].
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn head_bytes(bytes: &[u8]) -> Result<u64> {
        let header = raw_header(bytes)?;
        Ok((HEADER_BYTES as u64).saturating_add(header.list_bytes.get()))
    }

    /// Reads header and lists.
    ///
    /// # Errors
    /// `Truncated`, `BadText` for another magic, `BadVersion`, `CrcMismatch`, `BadLength`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let header = raw_header(bytes)?;
        let need = Self::head_bytes(bytes)?;
        let whole = usize::try_from(need).ok().filter(|need| *need <= bytes.len());
        let truncated = FormatError::Truncated { what: WHAT, need: need as usize, have: bytes.len() };
        let lists = &bytes[HEADER_BYTES..whole.ok_or(truncated)?];
        let mut zeroed = [0; HEADER_BYTES];
        zeroed.copy_from_slice(&bytes[..HEADER_BYTES]);
        zeroed[CRC_AT..CRC_AT + 4].fill(0);
        let (stored, computed) = (header.crc.get(), crc32c_append(crc32c(&zeroed), lists));
        if stored != computed {
            return Err(FormatError::CrcMismatch { what: WHAT, stored, computed });
        }
        let bad = FormatError::BadLength { what: "lists of a log checkpoint", value: lists.len() as i64 };
        lists_of(header, lists, need).ok_or(bad)
    }
}

fn raw_header(bytes: &[u8]) -> Result<&RawHeader> {
    let truncated = FormatError::Truncated { what: WHAT, need: HEADER_BYTES, have: bytes.len() };
    let (header, _) = RawHeader::ref_from_prefix(bytes).map_err(|_| truncated)?;
    if header.magic != MAGIC {
        return Err(FormatError::BadText { what: WHAT, line: 0, reason: "not our magic" });
    }
    if header.version.get() != VERSION {
        return Err(FormatError::BadVersion { what: WHAT, version: header.version.get().into() });
    }
    Ok(header)
}

fn lists_of(header: &RawHeader, lists: &[u8], pages_at: u64) -> Option<LogCheckpoint> {
    let [txns, offsets, times, aborted, pages] = header.counts.map(|count| count.get() as usize);
    let (txns, rest) = <[RawPair]>::ref_from_prefix_with_elems(lists, txns).ok()?;
    let (offsets, rest) = <[RawPair]>::ref_from_prefix_with_elems(rest, offsets).ok()?;
    let (times, rest) = <[RawPair]>::ref_from_prefix_with_elems(rest, times).ok()?;
    let (aborted, rest) = <[RawAborted]>::ref_from_prefix_with_elems(rest, aborted).ok()?;
    let pages = <[RawPage]>::ref_from_bytes_with_elems(rest, pages).ok()?;
    let offset_entry =
        |raw: &RawPair| Some(OffsetEntry { offset: raw.0.get(), position: u32::try_from(raw.1.get()).ok()? });
    let aborted_txn = |raw: &RawAborted| {
        let [producer_id, first_offset, last_offset, last_stable_offset] = raw.0.map(|value| value.get());
        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset }
    };
    let page = |raw: &RawPage| {
        let position = raw.position.get().checked_add(pages_at)?;
        Some(PageRef { first_hash: raw.first_hash.get(), position, length: raw.length.get(), crc: raw.crc.get() })
    };
    let [offset_entries_before, time_entries_before, aborted_before] = header.before.map(|value| value.get());
    let largest = TimeEntry { timestamp: header.largest_timestamp.get(), offset: header.largest_offset.get() };
    let last_batch = u64::try_from(header.last_batch_position.get()).ok();
    Some(LogCheckpoint {
        log_end_offset: header.log_end_offset.get(),
        parent: Some(header.parent.get()).filter(|parent| *parent >= 0),
        producer_count: header.producer_count.get(),
        digest: header.digest.get(),
        made_ms: header.made_ms.get(),
        complete_from: header.complete_from.get(),
        transactional_from: Some(header.transactional_from.get()).filter(|offset| *offset >= 0),
        leader_epoch: Some(header.leader_epoch.get()).filter(|epoch| *epoch >= 0),
        segment: SegmentPoint {
            base_offset: header.base_offset.get(),
            size_bytes: header.size_bytes.get(),
            last_batch: last_batch.map(|position| (position, header.last_batch_crc.get())),
            largest: (header.has_largest.get() == 1).then_some(largest),
            bytes_since_entry: header.bytes_since_entry.get(),
            offset_entries_before,
            time_entries_before,
            aborted_before,
        },
        open_txns: txns.iter().map(|raw| (raw.0.get(), raw.1.get())).collect(),
        offset_entries: offsets.iter().map(offset_entry).collect::<Option<_>>()?,
        time_entries: times.iter().map(|raw| TimeEntry { timestamp: raw.0.get(), offset: raw.1.get() }).collect(),
        aborted: aborted.iter().map(aborted_txn).collect(),
        pages: pages.iter().map(page).collect::<Option<_>>()?,
    })
}

/// Name of the file that covers everything below `offset`, which must not be negative.
#[must_use]
pub fn file_name(offset: i64) -> String {
    alloc::format!("{offset:020}{EXTENSION}")
}

/// The offset in such a name; `None` for other names.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<i64> {
    let digits = name.strip_suffix(EXTENSION)?;
    let plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}

//! The part of a snapshot that Kafka does not know. Layout: `docs/formats.md`.
//!
//! It has a checksum of its own although Kafka's covers it: a program that rewrites the entries and keeps the bytes
//! behind them would produce a file that is right to Kafka; the magic, the exact length and the second checksum tell
//! whether what follows is ours and whole. Unused fields and flags must be zero, so one value has one encoding.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use super::Trailing;
use crate::crc32c::{crc32c, crc32c_append};

const MAGIC: [u8; 8] = *b"ONCELOGX";
/// 1: with a digest of other terms.
const VERSION: u16 = 2;
const HAS_SEALED: u16 = 1;
const HAS_LOG_ID: u16 = 2;
/// Header bytes in front of the checksum field, which covers them and the body.
const CRC_AT: usize = 16;

/// The bit of a producer that Kafka's rules have forgotten, beside the number of its batches.
const FORGOTTEN: u8 = 1 << 7;

/// Most batches kept of one producer, Kafka's window for recognising a retry.
pub const MAX_BATCHES: usize = 5;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BatchMeta {
    /// Sequence of its first record.
    pub first_sequence: i32,
    /// Sequence of its last record.
    pub last_sequence: i32,
    /// Its first offset.
    pub first_offset: i64,
    /// Its last offset.
    pub last_offset: i64,
    /// Its largest timestamp, in milliseconds.
    pub timestamp: i64,
}

/// What Kafka leaves out about one producer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerExtra {
    /// The producer.
    pub producer_id: i64,
    /// The clock when it last wrote, in milliseconds; its expiry counts from there and not from record timestamps.
    pub last_append_ms: i64,
    /// Kafka's own rules have forgotten it.
    pub forgotten: bool,
    /// Its last batches, oldest first; at most [`MAX_BATCHES`].
    pub batches: Vec<BatchMeta>,
}

/// A segment that will not change any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedSegment {
    /// Its base offset.
    pub base_offset: i64,
    /// Size of its batches in bytes.
    pub size_bytes: u64,
    /// The offset behind its last batch.
    pub next_offset: i64,
}

/// What Kafka leaves out about the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extension {
    /// More about the producers, in any order.
    pub producers: Vec<ProducerExtra>,
    /// Exclusive end of what the state covers; the file's name says the same.
    pub log_end_offset: i64,
    /// Everything below was known to be synced when this was written.
    pub durable_offset: i64,
    /// Digest of the producer state.
    pub digest: u64,
    /// The segment that was sealed when this was written, if one was.
    pub sealed: Option<SealedSegment>,
    /// Which log this belongs to, if it has an id.
    pub log_id: Option<[u8; 16]>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: big_endian::U16,
    flags: big_endian::U16,
    body_bytes: big_endian::U32,
    crc: big_endian::U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawFixed {
    log_end_offset: big_endian::I64,
    durable_offset: big_endian::I64,
    digest: big_endian::U64,
    sealed_base_offset: big_endian::I64,
    sealed_size_bytes: big_endian::U64,
    sealed_next_offset: big_endian::I64,
    log_id: [u8; 16],
    producer_count: big_endian::U32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawProducer {
    producer_id: big_endian::I64,
    last_append_ms: big_endian::I64,
    /// And [`FORGOTTEN`].
    batch_count: u8,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawBatch {
    first_sequence: big_endian::I32,
    last_sequence: big_endian::I32,
    first_offset: big_endian::I64,
    last_offset: big_endian::I64,
    timestamp: big_endian::I64,
}

/// Bytes from the beginning of an extension that [`peek_log_end_offset`] needs.
pub const PEEK_BYTES: usize = CRC_AT + 4 + 8;

/// The log end offset that an extension names, if these are the first bytes of one. Nothing is checked but the magic.
#[must_use]
pub fn peek_log_end_offset(bytes: &[u8]) -> Option<i64> {
    let (header, body) = RawHeader::ref_from_prefix(bytes).ok()?;
    let offset = body.first_chunk().map(|bytes| i64::from_be_bytes(*bytes));
    offset.filter(|_| header.magic == MAGIC && header.version.get() == VERSION)
}

const _: () = {
    assert!(size_of::<RawHeader>() == CRC_AT + 4);
    assert!(size_of::<RawFixed>() == 68);
    assert!(size_of::<RawProducer>() == 17);
    assert!(size_of::<RawBatch>() == 32);
};

/// Bytes of the header and the body's fixed part.
pub(super) const EXTENSION_HEAD_BYTES: usize = size_of::<RawHeader>() + size_of::<RawFixed>();
/// Bytes of a producer with all its batches.
pub(super) const MOST_PRODUCER_BYTES: usize = size_of::<RawProducer>() + MAX_BATCHES * size_of::<RawBatch>();

impl Extension {
    /// Header and the body's fixed part, for a body that goes on with `producers`, so many of them.
    pub(super) fn encode_head(&self, count: usize, producers: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.sealed.unwrap_or_default();
        let fixed = RawFixed {
            log_end_offset: self.log_end_offset.into(),
            durable_offset: self.durable_offset.into(),
            digest: self.digest.into(),
            sealed_base_offset: sealed.base_offset.into(),
            sealed_size_bytes: sealed.size_bytes.into(),
            sealed_next_offset: sealed.next_offset.into(),
            log_id: self.log_id.unwrap_or_default(),
            producer_count: u32::try_from(count).ok()?.into(),
        };
        let flags =
            if self.sealed.is_some() { HAS_SEALED } else { 0 } | if self.log_id.is_some() { HAS_LOG_ID } else { 0 };
        let mut header = RawHeader {
            magic: MAGIC,
            version: VERSION.into(),
            flags: flags.into(),
            body_bytes: u32::try_from(size_of::<RawFixed>() + producers.len()).ok()?.into(),
            crc: 0.into(),
        };
        let crc = crc32c_append(crc32c(&header.as_bytes()[..CRC_AT]), fixed.as_bytes());
        header.crc = crc32c_append(crc, producers).into();
        let mut head = Vec::from(header.as_bytes());
        head.extend_from_slice(fixed.as_bytes());
        Some(head)
    }

    /// What stands behind Kafka's entries.
    pub(super) fn decode(bytes: &[u8]) -> (Option<Self>, Trailing) {
        if bytes.is_empty() {
            return (None, Trailing::Nothing);
        }
        if !bytes.starts_with(&MAGIC) {
            return (None, Trailing::Foreign);
        }
        let Ok((header, body)) = RawHeader::ref_from_prefix(bytes) else {
            return (None, Trailing::Damaged);
        };
        let flags = header.flags.get();
        let is_whole = u32::try_from(body.len()) == Ok(header.body_bytes.get())
            && crc32c_append(crc32c(&bytes[..CRC_AT]), body) == header.crc.get();
        if header.version.get() != VERSION || flags & !(HAS_SEALED | HAS_LOG_ID) != 0 {
            return (None, Trailing::OtherVersion);
        }
        match Self::decode_body(flags, body).filter(|_| is_whole) {
            Some(extension) => (Some(extension), Trailing::Extension),
            None => (None, Trailing::Damaged),
        }
    }

    fn decode_body(flags: u16, body: &[u8]) -> Option<Self> {
        let (fixed, mut rest) = RawFixed::ref_from_prefix(body).ok()?;
        let sealed = SealedSegment {
            base_offset: fixed.sealed_base_offset.get(),
            size_bytes: fixed.sealed_size_bytes.get(),
            next_offset: fixed.sealed_next_offset.get(),
        };
        let count = usize::try_from(fixed.producer_count.get()).ok()?;
        if count > rest.len() / size_of::<RawProducer>() {
            return None;
        }
        let mut producers = Vec::with_capacity(count);
        for _ in 0..count {
            let (producer, behind) = ProducerExtra::decode(rest)?;
            producers.push(producer);
            rest = behind;
        }
        rest.is_empty().then_some(Self {
            producers,
            log_end_offset: fixed.log_end_offset.get(),
            durable_offset: fixed.durable_offset.get(),
            digest: fixed.digest.get(),
            sealed: present(flags & HAS_SEALED != 0, sealed)?,
            log_id: present(flags & HAS_LOG_ID != 0, fixed.log_id)?,
        })
    }
}

/// A field with a flag: there, absent and zero, or (the outer `None`) absent and yet not zero.
fn present<T: Default + PartialEq>(flag: bool, value: T) -> Option<Option<T>> {
    match flag {
        true => Some(Some(value)),
        false => (value == T::default()).then_some(None),
    }
}

/// One producer's part of the body. Of more than [`MAX_BATCHES`] the newest are written.
pub(super) fn encode_producer(
    producer_id: i64,
    last_append_ms: i64,
    forgotten: bool,
    batches: &[BatchMeta],
    out: &mut Vec<u8>,
) {
    let batches = &batches[batches.len().saturating_sub(MAX_BATCHES)..];
    let raw = RawProducer {
        producer_id: producer_id.into(),
        last_append_ms: last_append_ms.into(),
        batch_count: batches.len() as u8 | if forgotten { FORGOTTEN } else { 0 },
    };
    out.extend_from_slice(raw.as_bytes());
    for batch in batches {
        let raw = RawBatch {
            first_sequence: batch.first_sequence.into(),
            last_sequence: batch.last_sequence.into(),
            first_offset: batch.first_offset.into(),
            last_offset: batch.last_offset.into(),
            timestamp: batch.timestamp.into(),
        };
        out.extend_from_slice(raw.as_bytes());
    }
}

impl ProducerExtra {
    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (raw, rest) = RawProducer::ref_from_prefix(bytes).ok()?;
        let count = usize::from(raw.batch_count & !FORGOTTEN);
        let count = Some(count).filter(|count| *count <= MAX_BATCHES)?;
        let (batches, rest) = <[RawBatch]>::ref_from_prefix_with_elems(rest, count).ok()?;
        let batches = batches.iter().map(|batch| BatchMeta {
            first_sequence: batch.first_sequence.get(),
            last_sequence: batch.last_sequence.get(),
            first_offset: batch.first_offset.get(),
            last_offset: batch.last_offset.get(),
            timestamp: batch.timestamp.get(),
        });
        let producer = Self {
            producer_id: raw.producer_id.get(),
            last_append_ms: raw.last_append_ms.get(),
            forgotten: raw.batch_count & FORGOTTEN != 0,
            batches: batches.collect(),
        };
        Some((producer, rest))
    }
}

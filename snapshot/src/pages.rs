//! Blocks of producers as pages of a checkpoint file, and back. Layout: `docs/formats.md`, "Checkpoint of a log".
//!
//! A page ends with the first block that brings it to four KiB, so one block of sixty-four ids is a page of its own and
//! scattered ids share one. Lines are written as the table keeps them: reading a page back is a copy.

use crate::producer::{BatchMeta, Forgotten, ProducerEntry, WINDOW};
use crate::table::{Frozen, FrozenBlock, block_hash};

/// A page is closed when it holds so many bytes.
const PAGE_BYTES: usize = 4096;

/// A line and a lone id's share of a block.
const MOST_LINE_BYTES: usize = 128;

/// A page of those written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// Hash of its first block; the pages of a whole view stand in the order of these.
    pub first_hash: u64,
    /// Where it begins, counted from the first page.
    pub position: usize,
    /// Bytes.
    pub length: usize,
}

/// Pages being written.
#[derive(Debug, Default)]
pub struct PageWriter {
    bytes: Vec<u8>,
    pages: Vec<Page>,
    open: bool,
}

impl PageWriter {
    /// No page yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with room for all that a view shows, if that is everything: pages that grow are copied many megabytes
    /// at a time. Room that is not used takes no memory.
    pub fn for_view(view: &Frozen) -> Self {
        let most = if view.is_partial() { 0 } else { view.len * MOST_LINE_BYTES };
        let mut bytes = Vec::new();
        // Where that much is not to be had, they grow.
        let _asked = bytes.try_reserve_exact(most);
        Self { bytes, ..Self::default() }
    }

    /// The next blocks, in the order of their hashes.
    pub fn push(&mut self, blocks: &[FrozenBlock]) {
        for block in blocks {
            let hash = block_hash(block.block);
            if !self.open {
                self.pages.push(Page { first_hash: hash, position: self.bytes.len(), length: 0 });
            }
            encode_block(block, &mut self.bytes);
            if let Some(page) = self.pages.last_mut() {
                page.length = self.bytes.len() - page.position;
                self.open = page.length < PAGE_BYTES;
            }
        }
    }

    /// All pages and their bytes. At least one page, perhaps an empty one.
    pub fn finish(mut self) -> (Vec<Page>, Vec<u8>) {
        if self.pages.is_empty() {
            self.pages.push(Page { first_hash: 0, position: 0, length: 0 });
        }
        (self.pages, self.bytes)
    }
}

/// The blocks of a page; `None` if that is not what the bytes are.
pub fn decode_page(bytes: &[u8]) -> Option<Vec<FrozenBlock>> {
    let mut reader = Reader(bytes);
    let mut blocks = Vec::new();
    while !reader.0.is_empty() {
        blocks.push(decode_block(&mut reader)?);
    }
    Some(blocks)
}

fn encode_block(block: &FrozenBlock, out: &mut Vec<u8>) {
    out.extend_from_slice(&block.block.to_be_bytes());
    out.extend_from_slice(&block.present.to_be_bytes());
    out.extend_from_slice(&block.given.to_be_bytes());
    out.push(block.width as u8);
    out.push(block.odd.len() as u8);
    out.reserve(block.lines.len() * size_of::<u64>());
    for word in &block.lines {
        out.extend_from_slice(&word.to_be_bytes());
    }
    for (number, entry) in &block.odd {
        out.push(*number);
        encode_entry(entry, out);
    }
}

fn encode_entry(entry: &ProducerEntry, out: &mut Vec<u8>) {
    out.extend_from_slice(&entry.epoch.to_be_bytes());
    out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
    out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
    out.extend_from_slice(&entry.last_append_ms.to_be_bytes());
    out.push(u8::from(entry.txn_first_offset.is_some()));
    out.extend_from_slice(&entry.txn_first_offset.unwrap_or(0).to_be_bytes());
    out.push(match entry.forgotten {
        Forgotten::Nothing => 0,
        Forgotten::Batches => 1,
        Forgotten::Producer => 2,
    });
    out.push(entry.batches().len() as u8);
    for batch in entry.batches() {
        out.extend_from_slice(&batch.first_sequence.to_be_bytes());
        out.extend_from_slice(&batch.last_sequence.to_be_bytes());
        out.extend_from_slice(&batch.first_offset.to_be_bytes());
        out.extend_from_slice(&batch.last_offset.to_be_bytes());
        out.extend_from_slice(&batch.timestamp.to_be_bytes());
    }
}

fn decode_block(reader: &mut Reader<'_>) -> Option<FrozenBlock> {
    let (block, present, given) = (reader.u64()? as i64, reader.u64()?, reader.u64()?);
    let (width, odd_count) = (usize::from(reader.u8()?), reader.u8()?);
    if given & !present != 0 || !FrozenBlock::WIDTHS.contains(&width) {
        return None;
    }
    let words = reader.take(given.count_ones() as usize * width * size_of::<u64>())?;
    let lines = words.as_chunks().0.iter().map(|word| u64::from_be_bytes(*word)).collect();
    let odd = (0..odd_count).map(|_| Some((reader.u8()?, decode_entry(reader)?))).collect::<Option<Vec<_>>>()?;
    let block = FrozenBlock { block, present, given, width, lines, odd, spilled: None };
    block.is_sound().then_some(block)
}

fn decode_entry(reader: &mut Reader<'_>) -> Option<ProducerEntry> {
    let mut entry = ProducerEntry::default();
    entry.epoch = i16::from_be_bytes(reader.array()?);
    entry.coordinator_epoch = i32::from_be_bytes(reader.array()?);
    entry.last_timestamp = reader.u64()? as i64;
    entry.last_append_ms = reader.u64()? as i64;
    let (has_txn, first_offset) = (reader.u8()?, reader.u64()? as i64);
    entry.txn_first_offset = (has_txn == 1).then_some(first_offset);
    entry.forgotten = match reader.u8()? {
        0 => Forgotten::Nothing,
        1 => Forgotten::Batches,
        2 => Forgotten::Producer,
        _ => return None,
    };
    let count = usize::from(reader.u8()?);
    if count > WINDOW {
        return None;
    }
    for _ in 0..count {
        entry.push_batch(BatchMeta {
            first_sequence: i32::from_be_bytes(reader.array()?),
            last_sequence: i32::from_be_bytes(reader.array()?),
            first_offset: reader.u64()? as i64,
            last_offset: reader.u64()? as i64,
            timestamp: reader.u64()? as i64,
        });
    }
    Some(entry)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

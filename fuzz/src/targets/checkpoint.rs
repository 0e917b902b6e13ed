//! A log's checkpoint: its head and lists, and its pages of producers.

use oncelog_formats::crc32c::crc32c;
use oncelog_formats::log_checkpoint::{HEADER_BYTES, LogCheckpoint};
use oncelog_snapshot::pages::{PageWriter, decode_page};
use std::ops::Range;

use super::{Outcome, holds, same};

/// Where the checksum stands.
const CRC: Range<usize> = 12..16;
/// Where the length of the lists stands.
const LIST_BYTES: Range<usize> = HEADER_BYTES - 8..HEADER_BYTES;

pub fn log_checkpoint(input: &[u8]) -> Outcome {
    let Ok(head) = LogCheckpoint::decode(input) else {
        return Ok(false);
    };
    let need = LogCheckpoint::head_bytes(input).map_err(|error| format!("decoded, but no length: {error}"))?;
    holds("what was decoded was there", need <= input.len() as u64)?;
    let written = LogCheckpoint { pages: relative(&head, need), ..head.clone() }.encode();
    same("a decoded checkpoint comes back", &Ok(head), &LogCheckpoint::decode(&written))?;
    Ok(true)
}

/// The pages as they are given to `encode`: counted from the first.
fn relative(head: &LogCheckpoint, need: u64) -> Vec<oncelog_formats::log_checkpoint::PageRef> {
    let mut pages = head.pages.clone();
    pages.iter_mut().for_each(|page| page.position -= need);
    pages
}

/// Makes the length of the lists and the checksum right.
pub fn repair(input: &mut [u8]) {
    let Some(lists) = input.len().checked_sub(HEADER_BYTES) else { return };
    input[..10].copy_from_slice(b"ONCELOGC\0\x01");
    input[LIST_BYTES].copy_from_slice(&(lists as u64).to_be_bytes());
    input[CRC].fill(0);
    let crc = crc32c(input);
    input[CRC].copy_from_slice(&crc.to_be_bytes());
}

pub fn producer_page(input: &[u8]) -> Outcome {
    let Some(blocks) = decode_page(input) else {
        return Ok(false);
    };
    let mut writer = PageWriter::new();
    writer.push(&blocks);
    let (pages, bytes) = writer.finish();
    let mut again = Vec::new();
    for page in pages {
        again.extend(decode_page(&bytes[page.position..page.position + page.length]).ok_or("a written page is none")?);
    }
    same("decoded blocks come back", &blocks, &again)?;
    for block in &blocks {
        holds("a block has as many entries as it says", block.entries().count() == block.count())?;
    }
    Ok(true)
}

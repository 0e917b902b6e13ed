//! The bytes of one file as shared blocks. An absent block is zeroes, so a prepared segment costs nothing until it is
//! written, and two images of a file share what they agree on.

use crate::device::BLOCK_BYTES;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// One block's bytes.
pub(crate) type Block = [u8; BLOCK_BYTES];

/// [`BLOCK_BYTES`] as a position counts.
pub(crate) const BLOCK: u64 = BLOCK_BYTES as u64;

/// A block, or `None` where all of it is zero.
pub(crate) type SharedBlock = Option<Arc<Block>>;

/// Up to one block of bytes as a block, the rest zero.
pub(crate) fn shared_block(bytes: &[u8]) -> SharedBlock {
    if bytes.iter().all(|&byte| byte == 0) {
        return None;
    }
    let mut block = [0; BLOCK_BYTES];
    block[..bytes.len()].copy_from_slice(bytes);
    Some(Arc::new(block))
}

/// The block's bytes from `keep` on as zeroes.
pub(crate) fn cut_block(block: &SharedBlock, keep: usize) -> SharedBlock {
    block.as_ref().and_then(|block| shared_block(&block[..keep]))
}

/// A sparse file. Bytes of a block beyond the length are always zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Blocks {
    map: BTreeMap<u64, Arc<Block>>,
    length: u64,
}

impl Blocks {
    /// A file of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut blocks = Self::default();
        blocks.set_length(bytes.len() as u64);
        for (number, chunk) in (0..).zip(bytes.chunks(BLOCK_BYTES)) {
            blocks.set(number, shared_block(chunk));
        }
        blocks
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn get(&self, number: u64) -> SharedBlock {
        self.map.get(&number).cloned()
    }

    pub(crate) fn set(&mut self, number: u64, block: SharedBlock) {
        match block {
            Some(block) => self.map.insert(number, block),
            None => self.map.remove(&number),
        };
    }

    /// Numbers of the blocks in the range that are not zero.
    pub(crate) fn present(&self, range: Range<u64>) -> Vec<u64> {
        if range.is_empty() {
            return Vec::new();
        }
        self.map.range(range).map(|(&number, _)| number).collect()
    }

    /// Cuts, or extends with zeroes.
    pub(crate) fn set_length(&mut self, length: u64) {
        if length < self.length {
            self.map.split_off(&length.div_ceil(BLOCK));
            let keep = (length % BLOCK) as usize;
            if keep > 0 {
                self.set(length / BLOCK, cut_block(&self.get(length / BLOCK), keep));
            }
        }
        self.length = length;
    }

    /// Fills the buffer from `position`, as far as the file goes.
    pub(crate) fn read(&self, position: u64, buffer: &mut [u8]) -> usize {
        let have = self.length.saturating_sub(position);
        let count = usize::try_from(have).map_or(buffer.len(), |have| have.min(buffer.len()));
        let buffer = &mut buffer[..count];
        buffer.fill(0);
        let end = position + count as u64;
        for number in self.present(position / BLOCK..end.div_ceil(BLOCK)) {
            copy_overlap(number, &self.map[&number][..], position, buffer);
        }
        count
    }

    /// All bytes.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(self.length).unwrap_or(usize::MAX)];
        self.read(0, &mut bytes);
        bytes
    }
}

/// Copies what block `number` has of the bytes that `buffer` holds from `position`.
pub(crate) fn copy_overlap(number: u64, block: &[u8], position: u64, buffer: &mut [u8]) {
    let start = number * BLOCK;
    let from = start.max(position);
    let to = (start + BLOCK).min(position + buffer.len() as u64);
    if from < to {
        let target = &mut buffer[(from - position) as usize..(to - position) as usize];
        target.copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cross_blocks_and_stop_at_the_end() {
        let bytes: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8 + 1).collect();
        let blocks = Blocks::of(&bytes);
        let mut buffer = [0; 5_000];
        assert_eq!(blocks.read(3_000, &mut buffer), 5_000);
        assert_eq!(buffer[..], bytes[3_000..8_000]);
        assert_eq!(blocks.read(9_990, &mut buffer), 10);
        assert_eq!(buffer[..10], bytes[9_990..]);
        assert_eq!(blocks.read(20_000, &mut buffer), 0);
        assert_eq!(blocks.to_vec(), bytes);
    }

    #[test]
    fn what_was_cut_is_zero_when_the_file_grows_again() {
        let mut blocks = Blocks::of(&[7; 10_000]);
        blocks.set_length(4_100);
        blocks.set_length(10_000);
        let bytes = blocks.to_vec();
        assert!(bytes[..4_100].iter().all(|&byte| byte == 7));
        assert!(bytes[4_100..].iter().all(|&byte| byte == 0));
    }
}

//! Memory that direct I/O accepts: block-aligned, initialised, reused.
//!
//! A `Vec` of aligned blocks rather than a raw allocation: growth, clone and release are the standard library's, and the
//! only unsafe step is to look at the blocks as bytes. Buffers come from a pool because the first touch of a fresh page
//! costs microseconds.
#![expect(unsafe_code, reason = "views a slice of aligned blocks as bytes")]

use crate::device::BLOCK_BYTES;
use parking_lot::Mutex;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

const ZERO: Block = Block([0; BLOCK_BYTES]);

/// A heap buffer that starts at a multiple of [`BLOCK_BYTES`] and is a whole number of blocks long.
#[derive(Clone, Default)]
pub struct AlignedBuffer {
    blocks: Vec<Block>,
}

impl AlignedBuffer {
    /// Zeroes, `capacity` bytes rounded up to a whole block.
    pub fn new(capacity: usize) -> Self {
        Self { blocks: vec![ZERO; capacity.div_ceil(BLOCK_BYTES)] }
    }

    /// Length in bytes, a multiple of [`BLOCK_BYTES`].
    pub fn capacity_bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Grows or shrinks to `capacity` bytes rounded up to a whole block; keeps the content, what is new is zero.
    pub fn resize(&mut self, capacity: usize) {
        self.blocks.resize(capacity.div_ceil(BLOCK_BYTES), ZERO);
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: `Block` is `repr(C)` around `[u8; BLOCK_BYTES]` with size equal to its alignment (asserted above), so
        // the vector's blocks are `capacity_bytes()` consecutive initialised bytes; the borrow of `self` keeps them.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.capacity_bytes()) }
    }

    /// All bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        let bytes = self.capacity_bytes();
        // SAFETY: as in `as_slice`; any bytes are a valid `Block`, and the exclusive borrow of `self` rules out aliases.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), bytes) }
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.capacity_bytes())
    }
}

/// Keeps a few buffers for reuse.
#[derive(Debug)]
pub struct BufferPool {
    idle: Mutex<Vec<AlignedBuffer>>,
    buffer_bytes: usize,
    keep: usize,
}

impl BufferPool {
    /// Buffers of at least `buffer_bytes`, of which up to `keep` idle ones are kept.
    pub fn new(buffer_bytes: usize, keep: usize) -> Self {
        Self { idle: Mutex::new(Vec::new()), buffer_bytes, keep }
    }

    /// A buffer of at least the pool's size. **Its bytes are whatever its last user left**, zeroes if it is new.
    pub fn take(&self) -> AlignedBuffer {
        let reused = self.idle.lock().pop();
        reused.unwrap_or_else(|| AlignedBuffer::new(self.buffer_bytes))
    }

    /// Gives a buffer back. One that outgrew the pool's size fourfold, or that is too small, is freed instead.
    pub fn give(&self, buffer: AlignedBuffer) {
        let bytes = buffer.capacity_bytes();
        let fits = bytes >= self.buffer_bytes && bytes <= 4 * self.buffer_bytes.max(BLOCK_BYTES);
        let mut idle = self.idle.lock();
        if fits && idle.len() < self.keep {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_zeroed_and_keep_content_when_resized() {
        let mut buffer = AlignedBuffer::new(5_000);
        assert_eq!(buffer.capacity_bytes(), 8_192);
        assert_eq!(buffer.as_slice().as_ptr().addr() % BLOCK_BYTES, 0);
        assert!(buffer.as_slice().iter().all(|&byte| byte == 0));
        buffer.as_mut_slice()[4_999] = 7;
        buffer.resize(1 << 20);
        assert_eq!(buffer.as_slice()[4_999], 7);
        assert_eq!(buffer.as_slice().as_ptr().addr() % BLOCK_BYTES, 0);
        assert_eq!(buffer.as_slice().iter().map(|&byte| u64::from(byte)).sum::<u64>(), 7);
        assert!(AlignedBuffer::new(0).as_slice().is_empty());
    }

    #[test]
    fn the_pool_reuses_what_fits_and_keeps_few() {
        let pool = BufferPool::new(8_192, 1);
        let mut buffer = pool.take();
        buffer.as_mut_slice()[0] = 9;
        pool.give(buffer);
        pool.give(AlignedBuffer::new(8_192));
        assert_eq!(pool.take().as_slice()[0], 9);
        assert_eq!(pool.take().as_slice()[0], 0);
        pool.give(AlignedBuffer::new(1 << 20));
        assert_eq!(pool.take().capacity_bytes(), 8_192);
    }
}

//! Memory that direct I/O accepts: block-aligned, initialised, reused.
//!
//! A small buffer is a `Vec` of aligned blocks rather than a raw allocation: growth and release are the standard
//! library's, and the only unsafe step is to look at the blocks as bytes. One of [`HUGE_FROM_BYTES`] or more lies in
//! huge pages, which direct transfers of that size are 1.6 to 2.5 times faster with. Buffers come from a pool because
//! the first touch of a fresh page costs microseconds.
#![expect(unsafe_code, reason = "views a slice of aligned blocks as bytes")]

use crate::arena::{ARENA_BYTES, Arena, Lease, UNIT_BYTES};
use crate::device::BLOCK_BYTES;
use crate::huge_pages::HugePages;
use crate::lock::Mutex;
use std::sync::Arc;

/// Buffers of this many bytes or more lie in huge pages where the kernel has some.
pub const HUGE_FROM_BYTES: usize = 1 << 20;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const _: () = assert!(size_of::<Block>() == BLOCK_BYTES && align_of::<Block>() == BLOCK_BYTES);

const ZERO: Block = Block([0; BLOCK_BYTES]);

/// A buffer that starts at a multiple of [`BLOCK_BYTES`] and is a whole number of blocks long.
pub struct AlignedBuffer {
    memory: Memory,
}

enum Memory {
    Blocks(Vec<Block>),
    Huge(HugePages),
    Leased(Lease),
}

impl AlignedBuffer {
    /// Zeroes, `capacity` bytes rounded up to a whole block.
    pub fn new(capacity: usize) -> Self {
        let blocks = capacity.div_ceil(BLOCK_BYTES);
        let huge = if capacity < HUGE_FROM_BYTES { None } else { HugePages::new(blocks * BLOCK_BYTES) };
        Self { memory: huge.map_or_else(|| Memory::Blocks(vec![ZERO; blocks]), Memory::Huge) }
    }

    /// Length in bytes, a multiple of [`BLOCK_BYTES`].
    pub fn capacity_bytes(&self) -> usize {
        self.as_slice().len()
    }

    /// Grows or shrinks to `capacity` bytes rounded up to a whole block; keeps the content, what is new is zero.
    pub fn resize(&mut self, capacity: usize) {
        match &mut self.memory {
            Memory::Blocks(blocks) if capacity < HUGE_FROM_BYTES => blocks.resize(capacity.div_ceil(BLOCK_BYTES), ZERO),
            _ => {
                let mut resized = Self::new(capacity);
                let kept = resized.capacity_bytes().min(self.capacity_bytes());
                resized.as_mut_slice()[..kept].copy_from_slice(&self.as_slice()[..kept]);
                *self = resized;
            }
        }
    }

    /// All bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.memory {
            // SAFETY: `Block` is `repr(C)` around `[u8; BLOCK_BYTES]` with size equal to its alignment (asserted
            // above), so the vector's blocks are consecutive initialised bytes; the borrow of `self` keeps them.
            Memory::Blocks(blocks) => unsafe {
                std::slice::from_raw_parts(blocks.as_ptr().cast(), blocks.len() * BLOCK_BYTES)
            },
            Memory::Huge(pages) => pages.as_slice(),
            Memory::Leased(lease) => lease.as_slice(),
        }
    }

    /// All bytes, to change.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        match &mut self.memory {
            // SAFETY: as in `as_slice`; any bytes are a valid `Block`, and the exclusive borrow of `self` rules out
            // aliases.
            Memory::Blocks(blocks) => unsafe {
                std::slice::from_raw_parts_mut(blocks.as_mut_ptr().cast(), blocks.len() * BLOCK_BYTES)
            },
            Memory::Huge(pages) => pages.as_mut_slice(),
            Memory::Leased(lease) => lease.as_mut_slice(),
        }
    }
}

impl Default for AlignedBuffer {
    fn default() -> Self {
        Self::new(0)
    }
}

impl Clone for AlignedBuffer {
    fn clone(&self) -> Self {
        let mut copy = Self::new(self.capacity_bytes());
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl std::fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AlignedBuffer({} bytes)", self.capacity_bytes())
    }
}

/// Smallest and largest buffers that a pool keeps, bytes. The sizes between are powers of two.
const LEAST_POOLED_BYTES: usize = BLOCK_BYTES;
const MOST_POOLED_BYTES: usize = 16 << 20;
const CLASSES: usize = (MOST_POOLED_BYTES / LEAST_POOLED_BYTES).ilog2() as usize + 1;

/// Keeps buffers for reuse, by size: for all logs of an engine, so that a thousand idle ones hold none.
#[derive(Debug)]
pub struct BufferPool {
    idle: Mutex<Idle>,
    keep_bytes: usize,
    /// Where [`LEASED_BYTES`] come from; `None`: from nowhere else than the rest.
    arenas: Option<Mutex<Vec<Arc<Arena>>>>,
}

/// Buffers of these sizes are lent from arenas, the earliest first: whatever size is in use now gets the memory that
/// was in use last, in huge pages. Smaller ones gain nothing by it, larger ones have huge pages of their own.
const LEASED_BYTES: std::ops::RangeInclusive<usize> = UNIT_BYTES..=ARENA_BYTES;

#[derive(Debug, Default)]
struct Idle {
    classes: [Vec<AlignedBuffer>; CLASSES],
    bytes: usize,
}

impl BufferPool {
    /// Idle buffers of up to `keep_bytes` in all are kept.
    pub fn new(keep_bytes: usize) -> Self {
        Self { idle: Mutex::default(), keep_bytes, arenas: None }
    }

    /// As [`BufferPool::new`], and large buffers are lent from arenas, of which the device may have registered the
    /// first.
    pub(crate) fn with_arenas(keep_bytes: usize, first: Option<Arc<Arena>>) -> Self {
        Self { arenas: Some(Mutex::new(first.into_iter().collect())), ..Self::new(keep_bytes) }
    }

    /// A buffer of at least `least_bytes`, a power of two long. **Its bytes are whatever its last user left**, zeroes
    /// if it is new.
    pub fn take(&self, least_bytes: usize) -> AlignedBuffer {
        let bytes = least_bytes.max(LEAST_POOLED_BYTES).next_power_of_two();
        if let Some(lease) = self.lease(bytes) {
            return AlignedBuffer { memory: Memory::Leased(lease) };
        }
        if let Some(class) = class_of(bytes) {
            let mut idle = self.idle.lock();
            if let Some(buffer) = idle.classes[class].pop() {
                idle.bytes -= bytes;
                return buffer;
            }
        }
        AlignedBuffer::new(bytes)
    }

    /// Gives a buffer back; one that is not of a pooled size is freed. Where that makes one too many, one of the size
    /// that lies idle most is freed: what is in use now comes and goes, what was in use once must not keep it out.
    pub fn give(&self, buffer: AlignedBuffer) {
        if matches!(buffer.memory, Memory::Leased(_)) {
            drop(buffer);
            return self.shed_arena();
        }
        let bytes = buffer.capacity_bytes();
        let Some(class) = class_of(bytes) else { return };
        let mut freed = Vec::new();
        let mut idle = self.idle.lock();
        idle.bytes += bytes;
        idle.classes[class].push(buffer);
        while idle.bytes > self.keep_bytes
            && let Some(least_used) = idle.take_least_used()
        {
            freed.push(least_used);
        }
        drop(idle);
        // The kernel takes memory back without the lock.
        drop(freed);
    }
}

impl BufferPool {
    fn lease(&self, bytes: usize) -> Option<Lease> {
        if !LEASED_BYTES.contains(&bytes) {
            return None;
        }
        let mut arenas = self.arenas.as_ref()?.lock();
        if let Some(lease) = arenas.iter().find_map(|arena| arena.lend(bytes)) {
            return Some(lease);
        }
        let arena = Arena::new()?;
        let lease = arena.lend(bytes);
        arenas.push(arena);
        lease
    }

    /// Gives an arena back to the kernel if more than may lie idle does, and one is empty. The first stays.
    fn shed_arena(&self) {
        let Some(arenas) = &self.arenas else { return };
        let mut arenas = arenas.lock();
        let idle_bytes: usize = arenas.iter().map(|arena| arena.idle_bytes()).sum();
        let empty = match idle_bytes > self.keep_bytes.max(ARENA_BYTES) {
            true => arenas.iter().skip(1).rposition(|arena| arena.idle_bytes() == ARENA_BYTES),
            false => None,
        };
        let shed = empty.map(|at| arenas.remove(at + 1));
        drop(arenas);
        drop(shed);
    }
}

impl Idle {
    fn take_least_used(&mut self) -> Option<AlignedBuffer> {
        let bytes = |(class, buffers): &(usize, &mut Vec<AlignedBuffer>)| (buffers.len() * LEAST_POOLED_BYTES) << class;
        let (_, most) = self.classes.iter_mut().enumerate().max_by_key(bytes)?;
        let buffer = most.pop()?;
        self.bytes -= buffer.capacity_bytes();
        Some(buffer)
    }
}

fn class_of(bytes: usize) -> Option<usize> {
    let pooled = bytes.is_power_of_two() && (LEAST_POOLED_BYTES..=MOST_POOLED_BYTES).contains(&bytes);
    pooled.then(|| (bytes / LEAST_POOLED_BYTES).ilog2() as usize)
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
    fn a_buffer_crosses_into_huge_pages_and_back_with_its_content() {
        let mut buffer = AlignedBuffer::new(HUGE_FROM_BYTES - BLOCK_BYTES);
        assert!(matches!(buffer.memory, Memory::Blocks(_)));
        buffer.as_mut_slice().fill(3);
        buffer.resize(5 * HUGE_FROM_BYTES);
        assert_eq!(buffer.as_slice().as_ptr().addr() % (2 << 20), 0, "a huge page begins here");
        assert_eq!(buffer.capacity_bytes(), 5 * HUGE_FROM_BYTES);
        let (kept, new) = buffer.as_slice().split_at(HUGE_FROM_BYTES - BLOCK_BYTES);
        assert!(kept.iter().all(|&byte| byte == 3) && new.iter().all(|&byte| byte == 0));
        let copy = buffer.clone();
        buffer.resize(BLOCK_BYTES);
        assert_eq!((buffer.capacity_bytes(), buffer.as_slice()[BLOCK_BYTES - 1]), (BLOCK_BYTES, 3));
        assert!(copy.as_slice().starts_with(buffer.as_slice()));
    }

    #[test]
    fn the_pool_reuses_what_fits_and_keeps_no_more_than_it_may() {
        let pool = BufferPool::new(3 * BLOCK_BYTES);
        let mut buffer = pool.take(5_000);
        assert_eq!(buffer.capacity_bytes(), 8_192);
        buffer.as_mut_slice()[0] = 9;
        pool.give(buffer);
        pool.give(AlignedBuffer::new(8_192));
        assert_eq!(pool.take(1).capacity_bytes(), 4_096);
        assert_eq!(pool.take(8_192).as_slice()[0], 9);
        assert_eq!(pool.take(8_192).as_slice()[0], 0);
        pool.give(AlignedBuffer::new(3 * BLOCK_BYTES));
        pool.give(AlignedBuffer::new(64 << 20));
        assert_eq!(pool.idle.lock().bytes, 0);
        assert_eq!(pool.take(32 << 20).capacity_bytes(), 32 << 20);
    }

    #[test]
    fn arenas_come_as_they_are_needed_and_go_when_they_lie_idle() {
        let pool = BufferPool::with_arenas(ARENA_BYTES, None);
        let count = || pool.arenas.as_ref().unwrap().lock().len();
        let lent: Vec<_> = (0..5).map(|_| pool.take(ARENA_BYTES / 2)).collect();
        assert_eq!((count(), lent[4].capacity_bytes()), (3, ARENA_BYTES / 2));
        lent.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(count(), 1);
        let first = pool.take(UNIT_BYTES).as_slice().as_ptr();
        assert_eq!(pool.take(2 * UNIT_BYTES).as_slice().as_ptr(), first, "another size has the same memory");
    }

    #[test]
    fn sizes_that_were_in_use_once_do_not_keep_out_what_is_in_use_now() {
        let pool = BufferPool::new(8 * BLOCK_BYTES);
        (0..8).for_each(|_| pool.give(AlignedBuffer::new(BLOCK_BYTES)));
        pool.give(AlignedBuffer::new(4 * BLOCK_BYTES));
        assert_eq!(pool.idle.lock().bytes, 8 * BLOCK_BYTES);
        assert_eq!(pool.idle.lock().classes[class_of(4 * BLOCK_BYTES).unwrap()].len(), 1);
        pool.give(AlignedBuffer::new(16 * BLOCK_BYTES));
        assert_eq!(pool.idle.lock().bytes, 8 * BLOCK_BYTES, "one that is larger than all may be does not stay");
    }
}

//! One reader's windows, in the order of the log.

use std::collections::VecDeque;
use std::sync::Arc;

use oncelog_device::{BLOCK_BYTES, BufferPool, DeviceFile};

use super::readers::{Expected, Readers};
use super::{DEPTH, Permit};
use crate::bytes::{Lent, SharedBytes};

/// A place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub base_offset: i64,
    pub position: u64,
}

/// See the module.
pub(crate) struct Stream {
    log: u64,
    generation: u64,
    /// Comes next.
    offset: i64,
    /// Where it begins.
    spot: Spot,
    /// What has landed from `spot` on.
    bytes: SharedBytes,
    /// Behind `bytes`, without a gap in a segment.
    windows: VecDeque<Window>,
    /// Where the next window begins.
    next: Spot,
    /// So many windows at most, for now: a reader who stops soon has had little read for nothing.
    depth: usize,
    pub(super) used_ns: u64,
    _permit: Permit,
}

struct Window {
    /// Of its first byte that is new.
    spot: Spot,
    /// Where that lies in the buffer.
    from: usize,
    length: usize,
    /// Bytes in front of `from` that were read for alignment.
    skip: usize,
    expected: Expected,
}

impl Stream {
    pub(super) fn new(log: u64, generation: u64, offset: i64, spot: Spot, permit: Permit) -> Self {
        let (bytes, windows) = (SharedBytes::default(), VecDeque::with_capacity(DEPTH));
        Self { log, generation, offset, spot, bytes, windows, next: spot, depth: 1, used_ns: 0, _permit: permit }
    }

    pub(super) fn stands_at(&self, log: u64, generation: u64, offset: i64) -> bool {
        (self.log, self.generation, self.offset) == (log, generation, offset)
    }

    pub(super) fn is_of(&self, log: u64) -> bool {
        self.log == log
    }

    /// Where [`Stream::bytes`] begins.
    pub fn spot(&self) -> Spot {
        self.spot
    }

    /// What has landed.
    pub fn bytes(&self) -> &SharedBytes {
        &self.bytes
    }

    /// Where the next window would begin.
    pub fn next(&self) -> Spot {
        self.next
    }

    pub fn is_full(&self) -> bool {
        self.windows.len() >= self.depth
    }

    /// The windows go on in the next segment.
    pub fn go_on_in(&mut self, base_offset: i64) {
        self.next = Spot { base_offset, position: 0 };
    }

    /// The first `bytes` were handed out, up to `offset`.
    pub fn advance(&mut self, bytes: usize, offset: i64) {
        self.bytes = self.bytes.slice(bytes..self.bytes.len());
        self.spot.position += bytes as u64;
        self.offset = offset;
    }

    /// Waits for the next window and puts what is left in front of it. `None` where that cannot be: there is none, it
    /// could not be read, it is of another segment, or what is left is too long.
    pub fn join_next(&mut self, base_offset: i64) -> Option<()> {
        if self.windows.front()?.spot.base_offset != base_offset {
            return None;
        }
        let Window { spot, from, length, skip, expected } = self.windows.pop_front()?;
        let (mut lent, count) = expected.wait().ok()?;
        let left = self.bytes.len();
        if spot.base_offset != self.spot.base_offset {
            if left > 0 {
                return None;
            }
            self.spot = spot;
        }
        let front = from.checked_sub(left)?;
        lent.buffer_mut().as_mut_slice()[front..from].copy_from_slice(&self.bytes);
        self.bytes = lent.share(front..from + length.min(count.checked_sub(skip)?));
        self.depth = (2 * self.depth).min(DEPTH);
        Some(())
    }

    /// Puts windows on their way, up to `upto` in the segment of the next one.
    pub(super) fn fill(
        &mut self,
        file: &Arc<dyn DeviceFile>,
        upto: u64,
        buffer_bytes: usize,
        pool: &Arc<BufferPool>,
        readers: &Readers,
    ) {
        while !self.is_full() && self.next.position < upto {
            let head = buffer_bytes / 4;
            let skip = (self.next.position % BLOCK_BYTES as u64) as usize;
            let room = buffer_bytes - head - skip;
            let length = usize::try_from(upto - self.next.position).map_or(room, |left| left.min(room));
            let place = head..head + (skip + length).next_multiple_of(BLOCK_BYTES);
            let lent = Lent::take(pool, buffer_bytes);
            let expected = readers.read(file.clone(), self.next.position - skip as u64, lent, place);
            self.windows.push_back(Window { spot: self.next, from: head + skip, length, skip, expected });
            self.next.position += length as u64;
        }
    }
}

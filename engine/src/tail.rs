//! What was just written, kept in memory for those who read it next.
//!
//! Writes go past the page cache, so without this every reader that keeps up with the log would go to the disk for
//! bytes which this process has just had in its hands. The buffers of large groups are lent here as they are; those of
//! small ones are copied together, so that a hundred bytes do not hold a buffer of their own. A reader shares a buffer
//! instead of copying it, and no reader moves anything: one that lags falls behind the tail and reads the file.
//!
//! Kept for [`KEEP_NS`], as far as the engine's budget reaches (a fixed number of bytes a log would be too much for a
//! thousand idle logs and too little for a busy one). Offsets and checksums of what lies here were checked when it was
//! appended: it is not checked again.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use oncelog_device::BufferPool;
use oncelog_formats::BatchHeader;

use crate::bytes::{Lent, SharedBytes};

/// Nothing stays longer than this.
const KEEP_NS: u64 = 1_000_000_000;
/// Groups of fewer bytes are copied together.
const LEND_FROM_BYTES: usize = 16 << 10;
/// What they are copied into.
const CHUNK_BYTES: usize = 64 << 10;
/// A mark every so many bytes leads a reader into a piece.
const MARK_EVERY_BYTES: usize = 16 << 10;

/// How much all tails of an engine may hold.
#[derive(Debug)]
pub(crate) struct Budget {
    limit_bytes: usize,
    held_bytes: AtomicUsize,
}

impl Budget {
    pub fn new(limit_bytes: usize) -> Arc<Self> {
        Arc::new(Self { limit_bytes, held_bytes: AtomicUsize::new(0) })
    }

    pub fn held_bytes(&self) -> usize {
        self.held_bytes.load(Ordering::Relaxed)
    }

    fn is_exceeded(&self) -> bool {
        self.held_bytes() > self.limit_bytes
    }
}

/// A written group: where its new batches lie in the file, and in the buffer that it was written from.
pub(crate) struct Written {
    pub base_offset: i64,
    /// File position of the first new batch.
    pub position: u64,
    /// Offset behind the last one.
    pub end_offset: i64,
    pub buffer: Lent,
    /// The new batches in the buffer.
    pub range: std::ops::Range<usize>,
}

/// Contiguous batches of one segment.
pub(crate) struct Piece {
    base_offset: i64,
    pub position: u64,
    end_offset: i64,
    pub bytes: SharedBytes,
    written_ns: u64,
    /// Offsets behind the batch before a place in `bytes`, and that place; made by the first who asks.
    marks: OnceLock<Vec<(i64, usize)>>,
}

/// Small groups copied together.
struct Chunk {
    base_offset: i64,
    position: u64,
    end_offset: i64,
    buffer: Lent,
    length: usize,
    written_ns: u64,
}

/// The tail of one log.
pub(crate) struct Tail {
    budget: Arc<Budget>,
    pool: Arc<BufferPool>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// Oldest first; those of one segment without a gap.
    pieces: VecDeque<Arc<Piece>>,
    /// Behind all pieces.
    chunk: Option<Chunk>,
}

impl Tail {
    pub fn new(budget: Arc<Budget>, pool: Arc<BufferPool>) -> Self {
        Self { budget, pool, kept: Mutex::default() }
    }

    /// Takes a written group in, before anyone is told of it.
    pub fn push(&self, written: Written, now_ns: u64) {
        if self.budget.limit_bytes == 0 || written.range.is_empty() {
            return;
        }
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        match kept.end() {
            Some((base_offset, _)) if base_offset < written.base_offset => self.close_chunk(&mut kept),
            Some(end) if end != (written.base_offset, written.position) => {
                // What stands before this is not here: a hole would be read over.
                self.close_chunk(&mut kept);
                self.remove_while(&mut kept, &mut gone, |_| true);
            }
            _ => {}
        }
        if written.is_worth_lending() {
            self.close_chunk(&mut kept);
            let Written { base_offset, position, end_offset, buffer, range } = written;
            self.hold(buffer.buffer().capacity_bytes());
            let bytes = buffer.share(range);
            let piece = Piece { base_offset, position, end_offset, bytes, written_ns: now_ns, marks: OnceLock::new() };
            kept.pieces.push_back(Arc::new(piece));
        } else {
            self.copy_in(&mut kept, &written, now_ns);
        }
        let is_old = |piece: &Piece| now_ns.saturating_sub(piece.written_ns) > KEEP_NS;
        self.remove_while(&mut kept, &mut gone, |piece| is_old(piece) || self.budget.is_exceeded());
        if kept.pieces.is_empty() && self.budget.is_exceeded() {
            self.close_chunk(&mut kept);
            self.remove_while(&mut kept, &mut gone, |_| true);
        }
        drop(kept);
        // Buffers go back to their pool without the lock.
        drop(gone);
    }

    /// Lets go of what is too old, for a log that is not written to any more.
    pub fn expire(&self, now_ns: u64) {
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        if kept.chunk.as_ref().is_some_and(|chunk| now_ns.saturating_sub(chunk.written_ns) > KEEP_NS) {
            self.close_chunk(&mut kept);
        }
        self.remove_while(&mut kept, &mut gone, |piece| now_ns.saturating_sub(piece.written_ns) > KEEP_NS);
        drop(kept);
        drop(gone);
    }

    /// Forgets everything: the log was truncated, or ends.
    pub fn clear(&self) {
        let mut gone = Vec::new();
        let mut kept = self.kept.lock();
        self.close_chunk(&mut kept);
        self.remove_while(&mut kept, &mut gone, |_| true);
        drop(kept);
        drop(gone);
    }

    /// The pieces from the one that holds `wanted` on, until they have `max_bytes` or end; `None` if it lies before the
    /// tail.
    pub fn since(&self, base_offset: i64, wanted: i64, max_bytes: usize) -> Option<Vec<Arc<Piece>>> {
        let kept = self.kept.lock();
        let first = kept.pieces.partition_point(|piece| (piece.base_offset, piece.end_offset) <= (base_offset, wanted));
        let before = first.checked_sub(1).is_some_and(|before| kept.pieces[before].base_offset == base_offset);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for piece in kept.pieces.range(first..).take_while(|piece| piece.base_offset == base_offset) {
            found.push(piece.clone());
            // The first piece may begin far before `wanted`.
            bytes += if found.len() == 1 { 0 } else { piece.bytes.len() };
            if bytes >= max_bytes {
                break;
            }
        }
        let mut skipped = 0;
        if (found.is_empty() || bytes < max_bytes)
            && let Some(chunk) = kept.chunk.as_ref().filter(|c| c.base_offset == base_offset && c.end_offset > wanted)
        {
            skipped = if found.is_empty() { find(chunk.bytes(), 0, wanted) } else { 0 };
            found.push(Arc::new(self.copy_out(chunk, skipped)));
        }
        drop(kept);
        let first = found.first()?;
        let covered = before || skipped > 0 || first.position == 0 || first.first_offset() <= wanted;
        covered.then_some(found)
    }

    fn hold(&self, bytes: usize) {
        self.budget.held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn copy_in(&self, kept: &mut Kept, written: &Written, now_ns: u64) {
        let bytes = &written.buffer.buffer().as_slice()[written.range.clone()];
        if kept.chunk.as_ref().is_some_and(|chunk| chunk.length + bytes.len() > CHUNK_BYTES) {
            self.close_chunk(kept);
        }
        let chunk = kept.chunk.get_or_insert_with(|| {
            let buffer = Lent::take(&self.pool, CHUNK_BYTES);
            self.hold(buffer.buffer().capacity_bytes());
            let (base_offset, position) = (written.base_offset, written.position);
            Chunk { base_offset, position, end_offset: 0, buffer, length: 0, written_ns: now_ns }
        });
        chunk.buffer.buffer_mut().as_mut_slice()[chunk.length..chunk.length + bytes.len()].copy_from_slice(bytes);
        chunk.length += bytes.len();
        chunk.end_offset = written.end_offset;
        chunk.written_ns = now_ns;
    }

    /// Nothing more comes into the chunk: it becomes a piece like others.
    fn close_chunk(&self, kept: &mut Kept) {
        if let Some(Chunk { base_offset, position, end_offset, buffer, length, written_ns }) = kept.chunk.take() {
            let bytes = buffer.share(0..length);
            let piece = Piece { base_offset, position, end_offset, bytes, written_ns, marks: OnceLock::new() };
            kept.pieces.push_back(Arc::new(piece));
        }
    }

    fn copy_out(&self, chunk: &Chunk, from: usize) -> Piece {
        let bytes = &chunk.bytes()[from..];
        let mut copy = Lent::take(&self.pool, bytes.len());
        copy.buffer_mut().as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        Piece {
            base_offset: chunk.base_offset,
            position: chunk.position + from as u64,
            end_offset: chunk.end_offset,
            bytes: copy.share(0..bytes.len()),
            written_ns: chunk.written_ns,
            marks: OnceLock::new(),
        }
    }

    fn remove_while(&self, kept: &mut Kept, gone: &mut Vec<Arc<Piece>>, mut may_go: impl FnMut(&Piece) -> bool) {
        while let Some(piece) = kept.pieces.pop_front() {
            if !may_go(&piece) {
                kept.pieces.push_front(piece);
                break;
            }
            self.budget.held_bytes.fetch_sub(piece.bytes.held_bytes(), Ordering::Relaxed);
            gone.push(piece);
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Kept {
    /// Segment and position behind the newest batch.
    fn end(&self) -> Option<(i64, u64)> {
        match (&self.chunk, self.pieces.back()) {
            (Some(chunk), _) => Some((chunk.base_offset, chunk.position + chunk.length as u64)),
            (None, piece) => piece.map(|piece| (piece.base_offset, piece.position + piece.bytes.len() as u64)),
        }
    }
}

impl Written {
    /// Large, and not the smaller part of its buffer.
    fn is_worth_lending(&self) -> bool {
        let bytes = self.range.len();
        bytes > CHUNK_BYTES || (bytes >= LEND_FROM_BYTES && bytes * 4 >= self.buffer.buffer().capacity_bytes())
    }
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        &self.buffer.buffer().as_slice()[..self.length]
    }
}

impl Piece {
    fn first_offset(&self) -> i64 {
        BatchHeader::parse(&self.bytes).map_or(i64::MAX, |header| header.base_offset)
    }

    /// Where the first batch begins whose last offset is not below `wanted`.
    pub fn locate(&self, wanted: i64) -> usize {
        let marks = self.marks.get_or_init(|| marks(&self.bytes));
        let after = marks.partition_point(|(offset, _)| *offset <= wanted);
        let from = after.checked_sub(1).map_or(0, |mark| marks[mark].1);
        find(&self.bytes, from, wanted)
    }
}

fn marks(bytes: &[u8]) -> Vec<(i64, usize)> {
    let (mut marks, mut at, mut due) = (Vec::new(), 0, MARK_EVERY_BYTES);
    while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
        at = (at + header.size_bytes()).min(bytes.len());
        if at >= due {
            marks.push((header.next_offset(), at));
            due = at + MARK_EVERY_BYTES;
        }
    }
    marks
}

/// Where the first batch at or behind `from` begins whose last offset is not below `wanted`; the end if there is none.
fn find(bytes: &[u8], from: usize, wanted: i64) -> usize {
    let mut at = from;
    while let Ok(header) = BatchHeader::parse(&bytes[at..]) {
        if header.last_offset() >= wanted {
            break;
        }
        at = (at + header.size_bytes()).min(bytes.len());
    }
    at
}

#[cfg(test)]
mod tests;

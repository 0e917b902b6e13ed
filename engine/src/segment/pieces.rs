//! Reads what a recovery is about to look at before it gets there, and checks it on the way.
//!
//! A rebuild is bound by three things that one thread does in turn: waiting for the disk, checksums, and producers,
//! which must be told of batches in the order of their offsets. Here workers read pieces of the segments, several at a
//! time, and check the batches in them; the recovery takes the pieces in order and does the rest. What a worker says is
//! only that the checksum of certain bytes holds: [`super::scan`] judges by the same rules with workers or without, so
//! both lead to the same.
//!
//! Where a batch begins is known only from the one before it, so the workers walk their pieces from header to header
//! one after the other, which is quick, and compute the checksums side by side. A batch that lies in two pieces is left
//! to the scan. Without threads the scan does a worker's steps itself when it needs the next piece.
//!
//! Reading by blocking calls from several threads was chosen over a queue in a ring: a piece of 4 MiB keeps the disk
//! busy alone, the thread that reads it checks it while another one reads, and every device can do it.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oncelog_device::{AlignedBuffer, BLOCK_BYTES, BufferPool, DeviceFile};
use oncelog_formats::BatchView;
use oncelog_formats::batch::FRAME_BYTES;

use super::scan::frame;
use crate::error::Result;

/// How many bytes the first piece has, and how many the following ones come to: there may be a few bytes to look at or
/// a log, which is read past the page cache in pieces that keep the disk busy.
pub(super) const FIRST_BYTES: usize = 128 << 10;
pub(super) const PIECE_BYTES: usize = 4 << 20;

/// So many pieces are in memory at once.
const MOST_PIECES: u64 = 8;

/// A part of a file that is going to be scanned from front to back.
pub(crate) struct Stretch {
    pub file: Arc<dyn DeviceFile>,
    pub range: Range<u64>,
}

impl Stretch {
    fn length(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    fn ends_by(&self, position: u64) -> bool {
        self.range.is_empty() || self.range.end <= position
    }
}

/// How far the scans have come, for those who look on.
#[derive(Debug, Default)]
pub(crate) struct Gauge {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
}

impl Gauge {
    fn begin(&self, total_bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    /// Bytes behind the scan, and all of them.
    pub fn bytes(&self) -> (u64, u64) {
        (self.done_bytes.load(Ordering::Relaxed), self.total_bytes.load(Ordering::Relaxed))
    }
}

/// Some bytes of a file.
#[derive(Default)]
pub(super) struct Piece {
    pub start: u64,
    pub buffer: AlignedBuffer,
    pub filled: usize,
    /// Batches with the right checksum stand here, one behind the other.
    pub checked: Range<u64>,
    /// Its memory belongs to who reads ahead.
    pub is_lent: bool,
}

impl Piece {
    pub fn end(&self) -> u64 {
        self.start + self.filled as u64
    }

    /// Bytes `from..to` of the file, which must lie within.
    pub fn bytes(&self, from: u64, to: u64) -> &[u8] {
        &self.buffer.as_slice()[(from - self.start) as usize..(to - self.start) as usize]
    }
}

/// See the module.
pub(crate) struct Pieces<'a> {
    stretches: &'a [Stretch],
    /// Bytes of the stretches before each.
    before: Vec<u64>,
    buffers: &'a BufferPool,
    gauge: &'a Gauge,
    belt: Mutex<Belt>,
    changed: Condvar,
}

/// A piece that somebody reads.
struct Claim {
    number: u64,
    stretch: usize,
    range: Range<u64>,
}

/// Pieces on their way, numbered in the order of their places.
#[derive(Default)]
struct Belt {
    /// Where the next piece begins, and its length.
    stretch: usize,
    position: u64,
    length: usize,
    /// How many pieces were claimed by a reader, walked, taken by the scan, and are done with.
    claimed: u64,
    walked: u64,
    taken: u64,
    released: u64,
    /// Where the first batch behind the walked pieces begins. `None`: that is not known in the rest of their stretch.
    walk: Option<Walk>,
    /// Checked, with their stretches.
    done: BTreeMap<u64, (usize, Result<Piece>)>,
    is_over: bool,
}

struct Walk {
    stretch: usize,
    position: u64,
    /// What the pieces behind us hold of its frame.
    head: Vec<u8>,
}

/// Lets `body` scan `stretches` in order, with up to `helpers` threads reading ahead of it.
pub(crate) fn read_ahead<T>(
    stretches: &[Stretch],
    helpers: usize,
    buffers: &BufferPool,
    gauge: &Gauge,
    body: impl FnOnce(&Pieces<'_>) -> T,
) -> T {
    let mut bytes = 0;
    let mut before = Vec::with_capacity(stretches.len());
    for stretch in stretches {
        before.push(bytes);
        bytes += stretch.length();
    }
    gauge.begin(bytes);
    let belt = Mutex::new(Belt { length: FIRST_BYTES, ..Belt::default() });
    let ahead = Pieces { stretches, before, buffers, gauge, belt, changed: Condvar::new() };
    ahead.begin(&mut ahead.belt.lock(), 0);
    // Threads for less than that cost more than they save.
    let helpers = if bytes > PIECE_BYTES as u64 { helpers } else { 0 };
    std::thread::scope(|scope| {
        let _end = End(&ahead);
        for _ in 0..helpers {
            let thread = std::thread::Builder::new().name("oncelog-recovery".into());
            if let Err(error) = thread.spawn_scoped(scope, || ahead.help()) {
                tracing::warn!(%error, "one thread less for the recovery");
            }
        }
        body(&ahead)
    })
}

/// Ends the work when it goes out of scope, by a panic too: nobody is to wait for who is gone.
struct End<'a>(&'a Pieces<'a>);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.belt.lock().is_over = true;
        self.0.changed.notify_all();
    }
}

impl Pieces<'_> {
    pub(super) fn stretch(&self, number: usize) -> &Stretch {
        &self.stretches[number]
    }

    /// Whether something of the file lies before the stretch.
    pub fn begins_within(&self, stretch: usize) -> bool {
        self.stretches[stretch].range.start > 0
    }

    /// The piece of `stretch` that follows those handed out, if it is one that should be read ahead.
    pub(super) fn take(&self, stretch: usize) -> Result<Option<Piece>> {
        let mut belt = self.belt.lock();
        if belt.stretch < stretch {
            self.begin(&mut belt, stretch);
        }
        loop {
            let number = belt.taken;
            match belt.done.get(&number) {
                Some((of, _)) if *of > stretch => return Ok(None),
                Some(_) => {
                    let (of, piece) = belt.done.remove(&number).expect("it was there");
                    belt.taken += 1;
                    if of == stretch {
                        return piece.map(Some);
                    }
                    self.let_go(&mut belt, piece.unwrap_or_default().buffer);
                }
                None if belt.is_over || (number == belt.claimed && belt.stretch != stretch) => return Ok(None),
                None if number < belt.claimed => self.changed.wait(&mut belt),
                None => match self.claim(&mut belt) {
                    Some(claim) => MutexGuard::unlocked(&mut belt, || self.work(claim)),
                    None => return Ok(None),
                },
            }
        }
    }

    /// The scan of `stretch` has come to `position`.
    pub(super) fn note(&self, stretch: usize, position: u64) {
        let within = position.saturating_sub(self.stretches[stretch].range.start);
        self.gauge.done_bytes.store(self.before[stretch] + within, Ordering::Relaxed);
    }

    /// Nobody looks into the piece any more.
    pub(super) fn release(&self, piece: Piece) {
        if piece.is_lent {
            let mut belt = self.belt.lock();
            self.let_go(&mut belt, piece.buffer);
        }
    }

    fn let_go(&self, belt: &mut Belt, buffer: AlignedBuffer) {
        belt.released += 1;
        self.buffers.give(buffer);
        self.changed.notify_all();
    }

    fn help(&self) {
        let _end = End(self);
        let mut belt = self.belt.lock();
        while !belt.is_over {
            match self.claim(&mut belt) {
                Some(claim) => MutexGuard::unlocked(&mut belt, || self.work(claim)),
                None => self.changed.wait(&mut belt),
            }
        }
    }

    fn begin(&self, belt: &mut Belt, stretch: usize) {
        belt.stretch = stretch;
        belt.position = self.stretches.get(stretch).map_or(0, |s| block_of(s.range.start));
    }

    /// The next piece, if there is one to read now.
    fn claim(&self, belt: &mut Belt) -> Option<Claim> {
        if belt.claimed - belt.released >= MOST_PIECES {
            return None;
        }
        while self.stretches.get(belt.stretch)?.ends_by(belt.position) {
            self.begin(belt, belt.stretch + 1);
        }
        let end = self.stretches[belt.stretch].range.end;
        let range = belt.position..end.min(belt.position + belt.length as u64);
        let claim = Claim { number: belt.claimed, stretch: belt.stretch, range };
        belt.claimed += 1;
        belt.position = claim.range.end;
        belt.length = (belt.length * 2).min(PIECE_BYTES);
        Some(claim)
    }

    /// Reads a piece, says where the next one's first batch begins, and checks the batches in it.
    fn work(&self, claim: Claim) {
        let Claim { number, stretch, range } = claim;
        let read = self.read(stretch, &range);
        let mut belt = self.belt.lock();
        while belt.walked < number && !belt.is_over {
            self.changed.wait(&mut belt);
        }
        if belt.is_over {
            return;
        }
        let known = belt.walk.take().filter(|walk| walk.stretch == stretch);
        drop(belt);
        let start = self.stretches[stretch].range.start;
        let is_first = block_of(start) == range.start;
        let from = known.or_else(|| is_first.then(|| Walk { stretch, position: start, head: Vec::new() }));
        let (walk, whole) = match (&read, from) {
            // One that ends early is of a file that has been cut meanwhile.
            (Ok(piece), Some(from)) if piece.end() == range.end => self.walk(piece, from),
            _ => (None, 0..0),
        };
        let mut belt = self.belt.lock();
        if walk.is_none() && belt.stretch == stretch {
            // Nothing that could be a batch: the scan will end here, or goes on alone.
            self.begin(&mut belt, stretch + 1);
        }
        (belt.walk, belt.walked) = (walk, number + 1);
        drop(belt);
        self.changed.notify_all();
        let piece = read.map(|piece| Piece { checked: check(&piece, whole), ..piece });
        self.belt.lock().done.insert(number, (stretch, piece));
        self.changed.notify_all();
    }

    fn read(&self, stretch: usize, range: &Range<u64>) -> Result<Piece> {
        let want = (range.end - range.start) as usize;
        let length = want.next_multiple_of(BLOCK_BYTES);
        let mut buffer = self.buffers.take(length);
        let filled =
            self.stretches[stretch].file.read_blocks(range.start, &mut buffer.as_mut_slice()[..length])?.min(want);
        Ok(Piece { start: range.start, buffer, filled, checked: 0..0, is_lent: true })
    }

    /// Goes from header to header: where the first batch behind this piece begins, and what lies between the first and
    /// the last header in it.
    fn walk(&self, piece: &Piece, from: Walk) -> (Option<Walk>, Range<u64>) {
        let Walk { stretch, mut position, mut head } = from;
        let (end, file_end) = (piece.end(), self.stretches[stretch].range.end);
        if !head.is_empty() {
            let rest = (FRAME_BYTES - head.len()).min(piece.filled);
            head.extend_from_slice(&piece.buffer.as_slice()[..rest]);
            match frame(&head, file_end - position) {
                Ok(bytes) => position += bytes as u64,
                Err(_) => return (None, 0..0),
            }
        }
        let first = position;
        while position < end {
            let bytes = piece.bytes(position, end.min(position + FRAME_BYTES as u64));
            if bytes.len() < FRAME_BYTES && end < file_end {
                return (Some(Walk { stretch, position, head: bytes.to_vec() }), first..position);
            }
            match frame(bytes, file_end - position) {
                Ok(bytes) => position += bytes as u64,
                Err(_) => return (None, first..position),
            }
        }
        (Some(Walk { stretch, position, head: Vec::new() }), first..end)
    }
}

/// How far the batches within `whole` have the right checksum.
fn check(piece: &Piece, whole: Range<u64>) -> Range<u64> {
    let mut good = whole.start;
    while good < whole.end {
        let view = BatchView::new(piece.bytes(good, whole.end)).ok().filter(|view| view.verify_crc().is_ok());
        let Some(view) = view else { break };
        good += view.header().size_bytes() as u64;
    }
    whole.start..good
}

/// Where the block of `position` begins.
pub(super) fn block_of(position: u64) -> u64 {
    position / BLOCK_BYTES as u64 * BLOCK_BYTES as u64
}

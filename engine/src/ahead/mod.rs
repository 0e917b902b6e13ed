//! Reading ahead of those who read on: while one window is looked through, the next ones are on their way.
//!
//! A read that begins where an earlier one ended is followed by more of them, mostly; the second in a row begins a
//! *stream*. Its windows are whole buffers, each read past the page cache by a thread of its own kind, so the device
//! has several large transfers at once and nothing else is evicted. A batch that two windows share is the only thing
//! that is ever copied: its front moves in front of the second. A ring for each stream was not chosen: transfers of
//! this size cost a thread little, and these threads serve every device alike.
//!
//! Nothing here is trusted: what a window holds goes through the checks of any other read, in [`crate::log`], and
//! whoever finds less than he looks for drops the stream and reads the file. So a window that is out of date (the log
//! was truncated, or had not been written that far) costs a transfer and no more. The memory is bounded for all logs
//! together; a lookup, which reads on from nowhere, pays a look at a list.

mod readers;
mod stream;

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use oncelog_device::{BLOCK_BYTES, BufferPool};

pub(crate) use readers::{READERS, Readers};
pub(crate) use stream::{Spot, Stream};

/// Windows of a stream, on their way or waiting for the reader; one more is in his hands.
pub(crate) const DEPTH: usize = 3;
/// Largest buffer of a window.
const BUFFER_BYTES: usize = 2 << 20;
/// Nobody reads on after this time.
const PATIENCE_NS: u64 = 5_000_000_000;
/// A stream that was used within this time is not given up for another.
const GRACE_NS: u64 = 100_000_000;

/// The streams of an engine.
pub(crate) struct Ahead {
    readers: Readers,
    pool: Arc<BufferPool>,
    /// Of one window.
    buffer_bytes: usize,
    most: usize,
    live: Arc<AtomicUsize>,
    logs: AtomicU64,
    /// Those that nobody reads from at this moment, the last used at the end.
    idle: Mutex<Vec<Stream>>,
}

/// Counts a stream for as long as it lives.
struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ahead {
    /// All streams together hold up to `limit_bytes`; too few for one: there are none.
    pub fn new(limit_bytes: usize, pool: Arc<BufferPool>, readers: Readers) -> Self {
        let blocks = limit_bytes / (DEPTH + 1) / BLOCK_BYTES;
        let buffer_bytes = match blocks {
            0..4 => 0,
            blocks => BUFFER_BYTES.min(BLOCK_BYTES << blocks.ilog2()),
        };
        let most = limit_bytes.checked_div(buffer_bytes * (DEPTH + 1)).unwrap_or(0);
        let (live, logs, idle) = Default::default();
        Self { readers, pool, buffer_bytes, most, live, logs, idle }
    }

    /// How many there are.
    pub fn streams(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// A number that no other log of this engine has or had.
    pub fn number_log(&self) -> u64 {
        self.logs.fetch_add(1, Ordering::Relaxed)
    }

    /// The stream that stands at this offset.
    pub fn take(&self, log: u64, generation: u64, offset: i64) -> Option<Stream> {
        if self.live.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut idle = self.idle.lock();
        let at = idle.iter().rposition(|stream| stream.stands_at(log, generation, offset))?;
        Some(idle.remove(at))
    }

    /// One is left here for the next read.
    pub fn put(&self, mut stream: Stream, now_ns: u64) {
        stream.used_ns = now_ns;
        self.idle.lock().push(stream);
    }

    /// A stream that begins at `spot` with the batch of `offset`; `None` where all memory is in use.
    pub fn begin(&self, log: u64, generation: u64, offset: i64, spot: Spot, now_ns: u64) -> Option<Stream> {
        let live = self.live.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.live.clone());
        if live >= self.most {
            self.drop_unused(now_ns.saturating_sub(GRACE_NS), 1)?;
        }
        Some(Stream::new(log, generation, offset, spot, permit))
    }

    /// Puts windows on their way until there are enough, or `upto` is reached.
    pub fn fill(&self, stream: &mut Stream, file: &Arc<dyn oncelog_device::DeviceFile>, upto: u64) {
        stream.fill(file, upto, self.buffer_bytes, &self.pool, &self.readers);
    }

    /// Bytes that make a window worth its transfer.
    pub fn worth_bytes(&self) -> u64 {
        self.buffer_bytes as u64 / 4
    }

    /// Lets go of streams that nobody has used for long.
    pub fn expire(&self, now_ns: u64) {
        if self.live.load(Ordering::Relaxed) > 0 {
            let _none_too_old = self.drop_unused(now_ns.saturating_sub(PATIENCE_NS), usize::MAX);
        }
    }

    /// Lets go of up to `most` streams last used before `before_ns`, the oldest first; `None` if there was none.
    fn drop_unused(&self, before_ns: u64, most: usize) -> Option<()> {
        let gone: Vec<Stream> = {
            let mut idle = self.idle.lock();
            let old = idle.iter().take(most).take_while(|stream| stream.used_ns < before_ns).count();
            idle.drain(..old).collect()
        };
        (!gone.is_empty()).then_some(())
    }

    /// The body of a reader thread.
    pub fn serve(&self) {
        self.readers.serve();
    }

    /// Ends the reader threads.
    pub fn stop(&self) {
        self.readers.stop();
    }

    /// Lets go of what a log has here: it was truncated, or ends.
    pub fn forget(&self, log: u64) {
        let gone: Vec<Stream> = self.idle.lock().extract_if(.., |stream| stream.is_of(log)).collect();
        drop(gone);
    }
}

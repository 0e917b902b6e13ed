//! Walks the batches of a segment file from front to back, checking each whole.
//!
//! The scan knows no producer and no index: it hands each good batch to a visitor and says where and why it stopped.
//! Whether what lies behind is a torn tail or damage is for `log/recover` to judge, which knows what was promised.

use std::ops::ControlFlow;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, DeviceFile};
use oncelog_formats::batch::{FRAME_BYTES, HEADER_BYTES, MAGIC};
use oncelog_formats::{BatchHeader, BatchView};

use crate::error::Result;

/// How many bytes the first read of a scan asks for, and how many the following ones come to: a scan may have a few bytes
/// to look at or a log, which is read past the page cache in pieces that keep the disk busy.
const FIRST_BYTES: usize = 128 << 10;
const CHUNK_BYTES: usize = 4 << 20;

/// How far behind the last good batch anything but zeroes is looked for. What a crash leaves half written is shorter; a
/// prepared file is much longer, and reading its zeroes would take as long as reading a log.
const LOOK_BYTES: u64 = 8 << 20;

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Exactly at the given end.
    End,
    /// What follows holds only zeroes, as far as was looked: a prepared tail.
    Zeroes,
    /// The bytes that follow are no whole valid batch.
    Broken(String),
}

/// Where a scan came to.
#[derive(Debug, Clone)]
pub(crate) struct ScanEnd {
    /// First byte that is not part of a good batch.
    pub position: u64,
    /// Offset after the last good batch, or the one that was expected at the start.
    pub next_offset: i64,
    /// Why it stopped there.
    pub stop: Stop,
    /// Up to here there are only zeroes behind it.
    pub zeroes_to: u64,
}

/// Reads `file` over `position..end` and calls `visit` with the position of each whole batch whose checksum holds
/// and whose offsets lie at or above the ones before it, until it breaks. Memory: one chunk, or one batch if that is larger.
pub(crate) fn scan(
    file: &dyn DeviceFile,
    position: u64,
    end: u64,
    expected_offset: i64,
    mut visit: impl FnMut(u64, BatchView<'_>) -> Result<ControlFlow<()>>,
) -> Result<ScanEnd> {
    let mut window = Window::new(file, end);
    let mut at = ScanEnd { position, next_offset: expected_offset, stop: Stop::End, zeroes_to: position };
    while at.position < end {
        let left = end - at.position;
        let batch_bytes = match frame(window.at(at.position, (FRAME_BYTES as u64).min(left) as usize)?, left) {
            Ok(bytes) => bytes,
            Err(reason) => {
                (at.stop, at.zeroes_to) = window.classify(at.position, reason)?;
                break;
            }
        };
        let bytes = window.at(at.position, batch_bytes)?;
        match check(bytes, at.next_offset) {
            Ok(view) => {
                let next = view.header().next_offset();
                let goes_on = visit(at.position, view)?;
                at.next_offset = next;
                at.position += batch_bytes as u64;
                if goes_on.is_break() {
                    break;
                }
            }
            Err(reason) => {
                (at.stop, at.zeroes_to) = window.classify(at.position, reason)?;
                break;
            }
        }
    }
    Ok(at)
}

/// Size of the batch that starts here, or why none does.
fn frame(head: &[u8], left: u64) -> std::result::Result<usize, String> {
    if head.len() < FRAME_BYTES {
        return Err(format!("{} bytes are no batch", head.len()));
    }
    let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let total = i64::from(length) + 12;
    if total < HEADER_BYTES as i64 {
        return Err(format!("batch length {length}"));
    }
    if total as u64 > left {
        return Err(format!("a batch of {total} bytes in the last {left}"));
    }
    if head[16] as i8 != MAGIC {
        return Err(format!("magic {}", head[16] as i8));
    }
    Ok(total as usize)
}

fn check(bytes: &[u8], expected_offset: i64) -> std::result::Result<BatchView<'_>, String> {
    let view = BatchView::new(bytes).map_err(|e| e.to_string())?;
    if !planted(Bug::RecoveryChecksumSkipped) {
        view.verify_crc().map_err(|e| e.to_string())?;
    }
    let header: BatchHeader = *view.header();
    if header.base_offset < expected_offset {
        return Err(format!("offset {} where {expected_offset} or more must follow", header.base_offset));
    }
    if header.last_offset_delta < 0 || header.last_offset().checked_add(1).is_none() {
        return Err(format!("last offset delta {}", header.last_offset_delta));
    }
    Ok(view)
}

/// A sliding view of the file.
struct Window<'a> {
    file: &'a dyn DeviceFile,
    end: u64,
    start: u64,
    buffer: AlignedBuffer,
    filled: usize,
    chunk: usize,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DeviceFile, end: u64) -> Self {
        Self { file, end, start: 0, buffer: AlignedBuffer::new(0), filled: 0, chunk: FIRST_BYTES }
    }

    /// Bytes `position..position + length`, which must lie before the end; fewer where the file ends before.
    fn at(&mut self, position: u64, length: usize) -> Result<&[u8]> {
        let held = self.start..self.start + self.filled as u64;
        if !(held.contains(&position) && position + length as u64 <= held.end) {
            self.read(position, length)?;
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer.as_slice()[from.min(self.filled)..(from + length).min(self.filled)])
    }

    fn read(&mut self, position: u64, length: usize) -> Result<()> {
        let skip = (position % BLOCK_BYTES as u64) as usize;
        let left = (self.end - position) as usize + skip;
        let want = (skip + length).max(self.chunk).min(left).next_multiple_of(BLOCK_BYTES);
        if want > self.buffer.capacity_bytes() {
            self.buffer = AlignedBuffer::new(want);
        }
        self.chunk = (self.chunk * 2).min(CHUNK_BYTES);
        // Should this fail, nothing is held.
        (self.start, self.filled) = (position - skip as u64, 0);
        self.filled = self.file.read_blocks(self.start, &mut self.buffer.as_mut_slice()[..want])?.min(left);
        Ok(())
    }

    fn classify(&mut self, position: u64, reason: String) -> Result<(Stop, u64)> {
        let mut at = position;
        let end = self.end.min(position.saturating_add(LOOK_BYTES));
        while at < end {
            let length = (end - at).min(FIRST_BYTES as u64) as usize;
            let bytes = self.at(at, length)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|&b| b != 0) {
                return Ok((Stop::Broken(reason), position));
            }
            at += bytes.len() as u64;
        }
        Ok((Stop::Zeroes, at))
    }
}

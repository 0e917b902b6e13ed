//! Walks the batches of a segment file from front to back, checking each whole.
//!
//! The scan knows no producer and no index: it hands each good batch to a visitor and says where and why it stopped.
//! Whether what lies behind is a torn tail or damage is for `log/recover` to judge, which knows what was promised.

use std::ops::ControlFlow;

use oncelog_device::DeviceFile;
use oncelog_formats::batch::{FRAME_BYTES, HEADER_BYTES, MAGIC};
use oncelog_formats::{BatchHeader, BatchView};

use crate::error::Result;

/// How many bytes one read of a scan asks for.
const CHUNK_BYTES: usize = 1 << 20;

/// Why a scan stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Exactly at the given end.
    End,
    /// What follows holds only zeroes: a prepared tail.
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
    let mut at = ScanEnd { position, next_offset: expected_offset, stop: Stop::End };
    while at.position < end {
        let left = end - at.position;
        let batch_bytes = match frame(window.at(at.position, (FRAME_BYTES as u64).min(left) as usize)?, left) {
            Ok(bytes) => bytes,
            Err(reason) => {
                at.stop = window.classify(at.position, reason)?;
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
                at.stop = window.classify(at.position, reason)?;
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
    view.verify_crc().map_err(|e| e.to_string())?;
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
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DeviceFile, end: u64) -> Self {
        Self { file, end, start: 0, buffer: Vec::new() }
    }

    /// Bytes `position..position + length`, which must lie before the end.
    fn at(&mut self, position: u64, length: usize) -> Result<&[u8]> {
        let held = self.start..self.start + self.buffer.len() as u64;
        if !(held.contains(&position) && position + length as u64 <= held.end) {
            let want = length.max(CHUNK_BYTES).min((self.end - position) as usize);
            self.buffer.resize(want, 0);
            self.start = position;
            let read = self.file.read(position, &mut self.buffer)?;
            self.buffer.truncate(read);
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer[from..(from + length).min(self.buffer.len())])
    }

    fn classify(&mut self, position: u64, reason: String) -> Result<Stop> {
        let mut at = position;
        while at < self.end {
            let length = (self.end - at).min(CHUNK_BYTES as u64) as usize;
            let bytes = self.at(at, length)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|&b| b != 0) {
                return Ok(Stop::Broken(reason));
            }
            at += bytes.len() as u64;
        }
        Ok(Stop::Zeroes)
    }
}

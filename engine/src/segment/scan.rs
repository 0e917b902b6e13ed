//! Walks the batches of a segment file from front to back, checking each whole.
//!
//! The scan knows no producer and no index: it hands each good batch to a visitor and says where and why it stopped.
//! Whether what lies behind is a torn tail or damage is for `log/recover` to judge, which knows what was promised.

use std::ops::ControlFlow;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, DeviceFile};
use oncelog_formats::batch::{FRAME_BYTES, HEADER_BYTES, MAGIC};
use oncelog_formats::{BatchHeader, BatchView};

use super::pieces::{FIRST_BYTES, PIECE_BYTES, Piece, Pieces, Stretch, block_of};
use crate::error::Result;

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
    /// The last good batch, if it lies behind a gap and nothing behind it bears its offsets out.
    pub unborne: Option<Unborne>,
}

/// A batch whose offsets are what its header says and no checksum covers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unborne {
    pub position: u64,
    /// Where the gap before it begins.
    pub offset: i64,
    pub base_offset: i64,
    /// The scan stopped at a whole batch that begins before this one ends.
    pub overlapped: bool,
}

/// Reads `file` over `position..end` and calls `visit` with the position of each whole batch whose checksum holds and
/// whose offsets lie at or above the ones before it, until it breaks. Memory: one chunk, or one batch if that is
/// larger.
pub(crate) fn scan(
    file: &dyn DeviceFile,
    position: u64,
    end: u64,
    expected_offset: i64,
    visit: impl FnMut(u64, BatchView<'_>) -> Result<ControlFlow<()>>,
) -> Result<ScanEnd> {
    scan_window(Window::new(file, end, None), position, expected_offset, visit)
}

/// The same over one of the stretches that are read ahead, from its start.
pub(crate) fn scan_ahead(
    ahead: &Pieces<'_>,
    stretch: usize,
    expected_offset: i64,
    visit: impl FnMut(u64, BatchView<'_>) -> Result<ControlFlow<()>>,
) -> Result<ScanEnd> {
    let Stretch { file, range } = ahead.stretch(stretch);
    let window = Window::new(&**file, range.end, Some((ahead, stretch)));
    let end = scan_window(window, range.start, expected_offset, visit)?;
    ahead.note(stretch, range.end);
    Ok(end)
}

fn scan_window(
    mut window: Window<'_>,
    position: u64,
    expected_offset: i64,
    mut visit: impl FnMut(u64, BatchView<'_>) -> Result<ControlFlow<()>>,
) -> Result<ScanEnd> {
    let end = window.end;
    let mut at =
        ScanEnd { position, next_offset: expected_offset, stop: Stop::End, zeroes_to: position, unborne: None };
    while at.position < end {
        let left = end - at.position;
        let head = window.at(at.position, (FRAME_BYTES as u64).min(left) as usize)?;
        let behind_gap = base_offset(head) > Some(at.next_offset);
        let batch_bytes = match frame(head, left) {
            Ok(bytes) => bytes,
            Err(reason) => {
                (at.stop, at.zeroes_to) = window.classify(at.position, reason)?;
                break;
            }
        };
        if behind_gap && is_moved(&mut window, &at, batch_bytes)? {
            at.stop = Stop::Broken("a batch behind a gap, but the one behind it follows on without".into());
            (at.unborne, at.zeroes_to) = (None, at.position);
            break;
        }
        let (bytes, is_checked) = window.batch_at(at.position, batch_bytes)?;
        match check(bytes, is_checked, at.next_offset) {
            Ok(view) => {
                let next = view.header().next_offset();
                let (position, offset, base_offset) = (at.position, at.next_offset, view.header().base_offset);
                at.unborne = behind_gap.then_some(Unborne { position, offset, base_offset, overlapped: false });
                let goes_on = visit(at.position, view)?;
                at.next_offset = next;
                at.position += batch_bytes as u64;
                if goes_on.is_break() {
                    break;
                }
            }
            Err(Unfit { reason, overlaps }) => {
                at.unborne = at.unborne.map(|unborne| Unborne { overlapped: overlaps, ..unborne });
                (at.stop, at.zeroes_to) = window.classify(at.position, reason)?;
                break;
            }
        }
    }
    Ok(at)
}

/// Whether the batch that comes next lies behind a gap that is not there: the whole batch behind it stands where it
/// would without. No checksum covers the base offset that says so.
fn is_moved(window: &mut Window<'_>, at: &ScanEnd, batch_bytes: usize) -> Result<bool> {
    let left = window.end - at.position - batch_bytes as u64;
    let bytes = window.at(at.position, batch_bytes + (FRAME_BYTES as u64).min(left) as usize)?;
    let Some((batch, next)) = bytes.split_at_checked(batch_bytes) else { return Ok(false) };
    let (Ok(header), Ok(next_bytes)) = (BatchHeader::parse(batch), frame(next, left)) else { return Ok(false) };
    let unmoved = at.next_offset.saturating_add(i64::from(header.last_offset_delta) + 1);
    if base_offset(next) != Some(unmoved) || planted(Bug::GapBelieved) {
        return Ok(false);
    }
    let bytes = window.at(at.position, batch_bytes + next_bytes)?;
    Ok(BatchView::new(&bytes[batch_bytes.min(bytes.len())..]).is_ok_and(|view| view.is_valid()))
}

pub(super) fn base_offset(head: &[u8]) -> Option<i64> {
    head.first_chunk().map(|bytes| i64::from_be_bytes(*bytes))
}

/// Size of the batch that starts here, or why none does.
pub(super) fn frame(head: &[u8], left: u64) -> std::result::Result<usize, String> {
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

/// Why a batch does not come next.
struct Unfit {
    reason: String,
    /// It is whole and begins before the one before it ends.
    overlaps: bool,
}

fn check(bytes: &[u8], is_checked: bool, expected_offset: i64) -> std::result::Result<BatchView<'_>, Unfit> {
    let unfit = |reason: String| Unfit { reason, overlaps: false };
    let view = BatchView::new(bytes).map_err(|e| unfit(e.to_string()))?;
    if !is_checked && !planted(Bug::RecoveryChecksumSkipped) {
        view.verify_crc().map_err(|e| unfit(e.to_string()))?;
    }
    let header: BatchHeader = *view.header();
    if header.base_offset < expected_offset && !planted(Bug::OffsetOrderIgnored) {
        let reason = format!("offset {} where {expected_offset} or more must follow", header.base_offset);
        return Err(Unfit { reason, overlaps: true });
    }
    if header.last_offset_delta < 0 || header.last_offset().checked_add(1).is_none() {
        return Err(unfit(format!("last offset delta {}", header.last_offset_delta)));
    }
    Ok(view)
}

/// A sliding view of the file.
struct Window<'a> {
    file: &'a dyn DeviceFile,
    end: u64,
    /// Who reads ahead, and the stretch that this is.
    ahead: Option<(&'a Pieces<'a>, usize)>,
    held: Piece,
    chunk: usize,
    /// What lies in more than one piece, and where it begins.
    joined: Vec<u8>,
    joined_start: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn DeviceFile, end: u64, ahead: Option<(&'a Pieces<'a>, usize)>) -> Self {
        let (held, joined) = (Piece::default(), Vec::new());
        Self { file, end, ahead, held, chunk: FIRST_BYTES, joined, joined_start: 0 }
    }

    /// A batch that should stand there, and whether its checksum is known to be right.
    fn batch_at(&mut self, position: u64, length: usize) -> Result<(&[u8], bool)> {
        let end = position + length as u64;
        self.hold(position, end)?;
        let is_checked = self.held.checked.start <= position && end <= self.held.checked.end;
        Ok((self.view(position, end), is_checked))
    }

    /// Bytes `position..position + length`, which must lie before the end; fewer where the file ends before.
    fn at(&mut self, position: u64, length: usize) -> Result<&[u8]> {
        let end = position + length as u64;
        self.hold(position, end)?;
        Ok(self.view(position, end))
    }

    fn is_held(&self, position: u64, end: u64) -> bool {
        self.held.start <= position && end <= self.held.end()
    }

    fn view(&self, position: u64, end: u64) -> &[u8] {
        match self.held.start <= position {
            true => {
                let held_end = self.held.end();
                self.held.bytes(position.min(held_end), end.min(held_end))
            }
            false => {
                let from = (position - self.joined_start) as usize;
                let to = (end - self.joined_start) as usize;
                &self.joined[from.min(self.joined.len())..to.min(self.joined.len())]
            }
        }
    }

    fn hold(&mut self, position: u64, end: u64) -> Result<()> {
        while !self.is_held(position, end) {
            let Some((ahead, stretch)) = self.ahead else { return self.read(position, end) };
            let joined_end = self.joined_start + self.joined.len() as u64;
            if !(self.joined_start..joined_end).contains(&position) {
                self.joined.clear();
                self.joined_start = position;
            }
            let joined_end = self.joined_start + self.joined.len() as u64;
            if end <= joined_end {
                return Ok(());
            }
            if (self.held.start..self.held.end()).contains(&joined_end) {
                // No more than is asked for: what follows may be looked at where it lies.
                let to = end.min(self.held.end());
                self.joined.extend_from_slice(self.held.bytes(joined_end, to));
                continue;
            }
            match ahead.take(stretch)? {
                Some(piece) => {
                    ahead.note(stretch, piece.start);
                    ahead.release(std::mem::replace(&mut self.held, piece));
                }
                None => return self.read(position, end),
            }
        }
        Ok(())
    }

    fn read(&mut self, position: u64, end: u64) -> Result<()> {
        let start = block_of(position);
        let left = (self.end - start) as usize;
        let want = ((end - start) as usize).max(self.chunk).min(left);
        let length = want.next_multiple_of(BLOCK_BYTES);
        self.chunk = (self.chunk * 2).min(PIECE_BYTES);
        // Should this fail, nothing is held.
        let mut own = std::mem::take(&mut self.held);
        if own.is_lent {
            self.release(std::mem::take(&mut own));
        }
        let mut buffer = own.buffer;
        if length > buffer.capacity_bytes() {
            buffer = AlignedBuffer::new(length);
        }
        let filled = self.file.read_blocks(start, &mut buffer.as_mut_slice()[..length])?.min(want);
        self.held = Piece { start, buffer, filled, ..Piece::default() };
        Ok(())
    }

    fn release(&self, piece: Piece) {
        if let Some((ahead, _)) = self.ahead {
            ahead.release(piece);
        }
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

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.release(held);
    }
}

//! One segment, batch by batch: framing, checksums, records, order, and what the indexes say about each batch.
//!
//! Where bytes are no batch, the rest of the file is searched for the next one. That tells a torn end (nothing behind
//! it) from damage in the middle (batches behind it), and everything behind the damage is still checked.

use super::findings::Findings;
use super::indexes::Indexes;
use super::window::Window;
use crate::common::CliResult;
use crate::read::DECODE_LIMIT_BYTES;
use oncelog_device::DeviceError;
use oncelog_formats::batch::{FRAME_BYTES, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC};
use oncelog_formats::{BatchView, FormatError};
use std::time::Duration;

/// A batch header that fits less than this behind the last batch is no batch: zeros here end a segment.
const ZERO_GUARD_BYTES: usize = 64;
const SEARCH_BYTES: usize = 1 << 20;
/// A write under way is over by then.
const LOOKS_AGAIN: usize = 3;
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(30);

/// Something that wants to see every good batch.
pub trait Visitor {
    /// Called in log order with the batch's position in its file.
    fn batch(&mut self, file: &str, position: u64, batch: &BatchView<'_>, findings: &mut Findings);
}

/// Totals of a walk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// Batches that were good.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Walks one segment file.
pub struct SegmentWalk<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// First offset that it may hold.
    pub base_offset: i64,
    /// Somebody may be writing to it now.
    pub unsettled: bool,
    /// Its bytes.
    pub window: Window,
    /// What the indexes say about it.
    pub indexes: Indexes,
    /// Where to report.
    pub findings: &'a mut Findings,
    /// What to count.
    pub totals: &'a mut Totals,
}

enum Found {
    Good(usize),
    Zeros,
    Bad(FormatError),
}

impl SegmentWalk<'_> {
    /// Checks everything and shows every good batch to `visitor`; `advance` hears how many bytes are done. Gives the
    /// offset behind the last batch.
    pub fn run(mut self, visitor: &mut dyn Visitor, advance: &dyn Fn(u64)) -> CliResult<i64> {
        let (mut position, mut next_offset) = (0, self.base_offset);
        while position < self.window.length() {
            match self.settled_batch_at(position, next_offset)? {
                Found::Good(size) => {
                    let batch = self.window.at(position, size)?;
                    if let Ok(batch) = BatchView::new(batch) {
                        next_offset = check(self.file, position, &batch, next_offset, self.findings, self.totals);
                        self.indexes.batch(position, batch.header(), self.findings);
                        visitor.batch(self.file, position, &batch, self.findings);
                    }
                    position += size as u64;
                    advance(size as u64);
                }
                found => match self.skip_damage(position, next_offset, &found)? {
                    Some(next) => position = next,
                    None => break,
                },
            }
        }
        self.indexes.finish(next_offset, self.findings);
        Ok(next_offset)
    }

    /// What stands at `position`. What looks damaged while somebody may be writing is looked at again a little later.
    fn settled_batch_at(&mut self, position: u64, expected: i64) -> CliResult<Found> {
        let mut found = self.batch_at(position)?;
        for _ in 0..if self.unsettled { LOOKS_AGAIN } else { 0 } {
            let at_rest = match found {
                Found::Good(_) => true,
                Found::Zeros => self.search(position + 1, expected)?.is_none(),
                Found::Bad(_) => false,
            };
            if at_rest {
                break;
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
            self.window.forget()?;
            found = self.batch_at(position)?;
        }
        Ok(found)
    }

    fn batch_at(&mut self, position: u64) -> Result<Found, DeviceError> {
        let head = self.window.at(position, ZERO_GUARD_BYTES)?;
        if head.iter().all(|byte| *byte == 0) {
            return Ok(Found::Zeros);
        }
        Ok(match self.checked_size(position)? {
            Ok(size) => Found::Good(size),
            Err(error) => Found::Bad(error),
        })
    }

    fn checked_size(&mut self, position: u64) -> Result<Result<usize, FormatError>, DeviceError> {
        let left = self.window.length() - position;
        let head = self.window.at(position, FRAME_BYTES)?;
        let Some(length) =
            head.get(8..LOG_OVERHEAD_BYTES).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes)
        else {
            return Ok(Err(FormatError::Truncated { what: "record batch", need: HEADER_BYTES, have: head.len() }));
        };
        let Ok(size) = usize::try_from(i64::from(length) + LOG_OVERHEAD_BYTES as i64) else {
            return Ok(Err(FormatError::BadLength { what: "record batch", value: length.into() }));
        };
        if size as u64 > left {
            return Ok(Err(FormatError::Truncated { what: "record batch", need: size, have: left as usize }));
        }
        let bytes = self.window.at(position, size)?;
        Ok(BatchView::new(bytes).and_then(|batch| batch.verify_crc()).map(|()| size))
    }

    /// Reports what stands at `position` and gives the position of the next batch behind it.
    fn skip_damage(&mut self, position: u64, expected: i64, found: &Found) -> CliResult<Option<u64>> {
        let next = self.search(position + 1, expected)?;
        let left = self.window.length() - position;
        let what = match (found, next) {
            (Found::Zeros, None) => return Ok(None),
            (Found::Zeros, Some(next)) => {
                format!("{} bytes without a batch, then batches go on at byte {next}", next - position)
            }
            (Found::Bad(error), Some(next)) => {
                format!("{error}; {} bytes damaged, batches go on at byte {next}", next - position)
            }
            (Found::Bad(error), None) => format!(
                "{error}; no whole batch in the last {left} bytes, which recovery cuts off if they are a torn end"
            ),
            (Found::Good(_), _) => return Ok(None),
        };
        self.findings.problem(self.file, Some(position), Some(expected), what);
        Ok(next)
    }

    /// The first whole batch with a good checksum at or behind `from` that can follow offset `expected`.
    fn search(&mut self, from: u64, expected: i64) -> CliResult<Option<u64>> {
        let mut start = from;
        while start + (HEADER_BYTES as u64) <= self.window.length() {
            let candidates: Vec<u64> =
                candidates(self.window.at(start, SEARCH_BYTES)?, expected).map(|at| start + at as u64).collect();
            for candidate in candidates {
                if self.checked_size(candidate)?.is_ok() {
                    return Ok(Some(candidate));
                }
            }
            start += (SEARCH_BYTES - FRAME_BYTES) as u64;
        }
        Ok(None)
    }
}

fn candidates(bytes: &[u8], expected: i64) -> impl Iterator<Item = usize> {
    bytes.windows(FRAME_BYTES).enumerate().filter_map(move |(at, frame)| {
        let magic = frame[FRAME_BYTES - 1] == MAGIC as u8;
        let offset = i64::from_be_bytes(frame[..8].try_into().ok()?);
        (magic && offset >= expected && offset - expected <= i64::from(i32::MAX)).then_some(at)
    })
}

/// Checks one batch whose checksum is right, and gives the offset behind it.
fn check(
    file: &str,
    position: u64,
    batch: &BatchView<'_>,
    expected: i64,
    findings: &mut Findings,
    totals: &mut Totals,
) -> i64 {
    let header = batch.header();
    let (at, offset) = (Some(position), Some(header.base_offset));
    if header.base_offset < expected {
        findings.problem(file, at, offset, format_args!("base offset below {expected}, where the batch before ended"));
    }
    if header.last_offset_delta < 0 {
        findings.problem(file, at, offset, format_args!("last offset delta is {}", header.last_offset_delta));
    }
    match batch.decode(DECODE_LIMIT_BYTES).and_then(|records| records.validate()) {
        Ok(()) => totals.records += u64::try_from(header.record_count).unwrap_or(0),
        Err(error) => findings.problem(file, at, offset, error),
    }
    if header.is_control()
        && header.record_count > 0
        && let Err(error) = batch.control()
    {
        findings.problem(file, at, offset, error);
    }
    totals.batches += 1;
    totals.bytes += header.size_bytes() as u64;
    header.next_offset().max(expected)
}

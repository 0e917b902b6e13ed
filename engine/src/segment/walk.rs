//! Steps from batch to batch by their headers alone, to find an offset or a position in a segment.
//!
//! No checksum covers a base offset. What bears it out is what stands around it: the batch before ends right below it;
//! or, where a gap is claimed, there is room for the batch behind it, or for the end of the segment; or an index entry
//! names the batch's last offset. In a gap that compaction left nothing else would tell that a batch was moved.

use std::cmp::Ordering;

use oncelog_device::DeviceFile;
use oncelog_device::planted::{Bug, planted};
use oncelog_formats::batch::HEADER_BYTES;
use oncelog_formats::{BatchHeader, OffsetEntry};

use crate::error::{Error, Result};

/// How many bytes one read asks for: about what lies between two index entries.
const CHUNK_BYTES: usize = 8 << 10;

/// A batch and where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub position: u64,
    pub header: BatchHeader,
}

impl Found {
    /// Where the next one starts.
    pub fn end(&self) -> u64 {
        self.position + self.header.size_bytes() as u64
    }
}

/// See the module.
pub(crate) struct Walker<'a> {
    file: &'a dyn DeviceFile,
    base_offset: i64,
    size: u64,
    /// No batch ends behind this offset.
    end_offset: i64,
    held_from: u64,
    buffer: Vec<u8>,
}

impl<'a> Walker<'a> {
    /// Over the first `size` bytes of the file of segment `base_offset`.
    pub fn new(file: &'a dyn DeviceFile, base_offset: i64, size: u64) -> Self {
        Self { file, base_offset, size, end_offset: i64::MAX, held_from: 0, buffer: Vec::new() }
    }

    /// The last batch is known to end right below this offset.
    pub fn ending_at(self, end_offset: i64) -> Self {
        Self { end_offset, ..self }
    }

    /// The batch at `position`, `None` at the end.
    pub fn header(&mut self, position: u64) -> Result<Option<Found>> {
        if position >= self.size {
            return Ok(None);
        }
        let held = self.held_from..self.held_from + self.buffer.len() as u64;
        if !(held.contains(&position) && position + HEADER_BYTES as u64 <= held.end) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.resize(CHUNK_BYTES.min((self.size - position) as usize), 0);
            // Should this fail, nothing is held: a caller that goes on must not find what was never read.
            let got = self.file.read(position, &mut bytes)?;
            bytes.truncate(got);
            (self.held_from, self.buffer) = (position, bytes);
        }
        let bytes = &self.buffer[(position - self.held_from) as usize..];
        let damaged = |reason: String| Error::damaged(self.file.path(), position, -1, reason);
        let header = BatchHeader::parse(bytes).map_err(|e| damaged(e.to_string()))?;
        if position + header.size_bytes() as u64 > self.size {
            return Err(damaged(format!("a batch of {} bytes does not end in the segment", header.size_bytes())));
        }
        Ok(Some(Found { position, header }))
    }

    /// The first batch whose last offset is not below `offset`: by way of `hint` if what stands there proves it right,
    /// else from the front. An index is not believed.
    pub fn locate(&mut self, hint: OffsetEntry, offset: i64) -> Result<Option<Found>> {
        match self.start(hint, offset)? {
            Some(found) if found.header.last_offset() == offset => Ok(Some(found)),
            Some(found) => self.find_from(found.end(), found.header.next_offset(), Some(found), offset),
            None => self.find(offset),
        }
    }

    /// The batch to look for `offset` from, by [`Self::locate`]'s rule; `None` for the front.
    pub fn start(&mut self, hint: OffsetEntry, offset: i64) -> Result<Option<Found>> {
        if hint.position == 0 || hint.offset > offset {
            return Ok(None);
        }
        match self.batch_of(hint) {
            Ok(Some(found)) => Ok(Some(found)),
            Ok(None) | Err(Error::Damaged(_)) => {
                tracing::debug!(?hint, "index entry not believed");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The first batch whose last offset is not below `offset`.
    ///
    /// Headers are stepped over unverified, and a damaged one may say that `offset` is in its batch, or that it is not.
    /// So offsets that fall are an error; what lies behind a gap must leave room for what follows; and where `offset`
    /// is inside a batch or in a gap, the batch that says so must be whole.
    pub fn find(&mut self, offset: i64) -> Result<Option<Found>> {
        self.find_from(0, self.base_offset, None, offset)
    }

    fn find_from(
        &mut self,
        mut at: u64,
        mut expected: i64,
        mut before: Option<Found>,
        offset: i64,
    ) -> Result<Option<Found>> {
        while let Some(found) = self.header(at)? {
            let base_offset = found.header.base_offset;
            if base_offset < expected && !planted(Bug::HeaderBelieved) {
                let reason = format!("offset {base_offset} where {expected} or more must follow");
                return Err(Error::damaged(self.file.path(), at, expected, reason));
            }
            self.check_place(&found, expected)?;
            if found.header.last_offset() >= offset {
                let witness = match base_offset.cmp(&offset) {
                    Ordering::Less => Some(found),
                    Ordering::Equal => None,
                    Ordering::Greater => before,
                };
                self.check_witness(witness, offset)?;
                return Ok(Some(found));
            }
            expected = found.header.next_offset();
            at = found.end();
            before = Some(found);
        }
        Ok(None)
    }

    fn check_witness(&self, witness: Option<Found>, offset: i64) -> Result<()> {
        match witness {
            Some(found) if !planted(Bug::HeaderBelieved) && !self.is_whole(&found)? => {
                let reason = format!("a damaged batch where offset {offset} may be");
                Err(Error::damaged(self.file.path(), found.position, found.header.base_offset, reason))
            }
            _ => Ok(()),
        }
    }

    /// Whether there can be a gap from `expected` to this batch: not if the next whole batch begins before this one
    /// ends.
    pub fn check_place(&mut self, found: &Found, expected: i64) -> Result<()> {
        if found.header.base_offset <= expected || planted(Bug::GapBelieved) {
            return Ok(());
        }
        let next_offset = found.header.next_offset();
        let fits = match self.header(found.end()) {
            Ok(Some(next)) => next.header.base_offset >= next_offset || !self.is_whole(&next)?,
            Ok(None) => next_offset <= self.end_offset,
            // Who comes to it will say so; or it has not been written yet.
            Err(Error::Damaged(_)) => true,
            Err(error) => return Err(error),
        };
        if fits {
            return Ok(());
        }
        let reason = format!("a batch at offset {} that would overlap what follows", found.header.base_offset);
        Err(Error::damaged(self.file.path(), found.position, expected, reason))
    }

    /// The batch that an index entry speaks of, if it stands there whole: the one with the entry's last offset. Older
    /// versions of Kafka let an entry point at the first of several batches that were appended together.
    pub fn batch_of(&mut self, entry: OffsetEntry) -> Result<Option<Found>> {
        let mut at = u64::from(entry.position);
        while let Some(found) = self.header(at)? {
            let last_offset = found.header.last_offset();
            let believed = planted(Bug::IndexedBatchBelieved) && last_offset <= entry.offset;
            if last_offset == entry.offset || believed {
                let is_whole = found.header.base_offset >= self.base_offset && self.is_whole(&found)?;
                return Ok(is_whole.then_some(found));
            }
            if last_offset > entry.offset {
                break;
            }
            at = found.end();
        }
        Ok(None)
    }

    /// Whether the batch is what was written, as far as its checksum says.
    fn is_whole(&self, found: &Found) -> Result<bool> {
        let mut bytes = vec![0; found.header.size_bytes()];
        let got = self.file.read(found.position, &mut bytes)?;
        bytes.truncate(got);
        Ok(oncelog_formats::BatchView::new(&bytes).is_ok_and(|view| view.is_valid()))
    }
}

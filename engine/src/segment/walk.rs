//! Steps from batch to batch by their headers alone, to find an offset or a position in a segment.

use std::cmp::Ordering;

use oncelog_device::DeviceFile;
use oncelog_device::planted::{Bug, planted};
use oncelog_formats::BatchHeader;
use oncelog_formats::batch::HEADER_BYTES;

use crate::error::{Error, Result};

/// How many bytes one read asks for: about what lies between two index entries.
const CHUNK_BYTES: usize = 8 << 10;

/// A batch and where it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub position: u64,
    pub header: BatchHeader,
}

/// See the module.
pub(crate) struct Walker<'a> {
    file: &'a dyn DeviceFile,
    base_offset: i64,
    size: u64,
    held_from: u64,
    buffer: Vec<u8>,
}

impl<'a> Walker<'a> {
    /// Over the first `size` bytes of the file of segment `base_offset`.
    pub fn new(file: &'a dyn DeviceFile, base_offset: i64, size: u64) -> Self {
        Self { file, base_offset, size, held_from: 0, buffer: Vec::new() }
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

    /// The first batch whose last offset is not below `offset`: from `hint` on if what stands there proves it right, else
    /// from the front. An index is not believed.
    pub fn locate(&mut self, hint: u64, offset: i64) -> Result<Option<Found>> {
        let start = self.start(hint, offset)?;
        self.find(start, offset)
    }

    /// Where to look for `offset` from: `hint` or the front, by [`Self::locate`]'s rule.
    pub fn start(&mut self, hint: u64, offset: i64) -> Result<u64> {
        if hint == 0 {
            return Ok(0);
        }
        match self.proves(hint, offset) {
            Ok(true) => Ok(hint),
            Ok(false) | Err(Error::Damaged(_)) => {
                tracing::debug!(position = hint, "index entry not believed");
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// The first batch at or behind `position` whose last offset is not below `offset`.
    ///
    /// Headers are stepped over unverified, and a damaged one may say that `offset` is in its batch, or that it is not. So
    /// offsets that fall are an error; and where `offset` is inside a batch or in a gap, the batch that says so must be whole.
    pub fn find(&mut self, position: u64, offset: i64) -> Result<Option<Found>> {
        let (mut at, mut expected, mut before) = (position, self.base_offset, None);
        while let Some(found) = self.header(at)? {
            let base_offset = found.header.base_offset;
            if base_offset < expected && !planted(Bug::HeaderBelieved) {
                let reason = format!("offset {base_offset} where {expected} or more must follow");
                return Err(Error::damaged(self.file.path(), at, expected, reason));
            }
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
            at += found.header.size_bytes() as u64;
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

    /// Whether a whole, undamaged batch of this segment stands at `position` that does not lie above `offset`: then
    /// nothing at or above `offset` lies before it.
    pub fn proves(&mut self, position: u64, offset: i64) -> Result<bool> {
        let Some(found) = self.header(position)? else { return Ok(false) };
        let may_be = found.header.base_offset >= self.base_offset && found.header.last_offset() <= offset;
        Ok(may_be && self.is_whole(&found)?)
    }

    /// Whether the batch is what was written, as far as its checksum says.
    fn is_whole(&self, found: &Found) -> Result<bool> {
        let mut bytes = vec![0; found.header.size_bytes()];
        let got = self.file.read(found.position, &mut bytes)?;
        bytes.truncate(got);
        Ok(oncelog_formats::BatchView::new(&bytes).is_ok_and(|view| view.is_valid()))
    }
}

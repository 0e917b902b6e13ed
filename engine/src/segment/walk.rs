//! Steps from batch to batch by their headers alone, to find an offset or a position in a segment.

use oncelog_device::DeviceFile;
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
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Walker<'a> {
    /// Over the first `size` bytes of the file of segment `base_offset`.
    pub fn new(file: &'a dyn DeviceFile, base_offset: i64, size: u64) -> Self {
        Self { file, base_offset, size, start: 0, buffer: Vec::new() }
    }

    /// The batch at `position`, `None` at the end.
    pub fn header(&mut self, position: u64) -> Result<Option<Found>> {
        if position >= self.size {
            return Ok(None);
        }
        let held = self.start..self.start + self.buffer.len() as u64;
        if !(held.contains(&position) && position + HEADER_BYTES as u64 <= held.end) {
            let mut bytes = std::mem::take(&mut self.buffer);
            bytes.resize(CHUNK_BYTES.min((self.size - position) as usize), 0);
            // Should this fail, nothing is held: a caller that goes on must not find what was never read.
            let got = self.file.read(position, &mut bytes)?;
            bytes.truncate(got);
            (self.start, self.buffer) = (position, bytes);
        }
        let bytes = &self.buffer[(position - self.start) as usize..];
        let damaged = |reason: String| Error::damaged(self.file.path(), position, -1, reason);
        let header = BatchHeader::parse(bytes).map_err(|e| damaged(e.to_string()))?;
        if position + header.size_bytes() as u64 > self.size {
            return Err(damaged(format!("a batch of {} bytes does not end in the segment", header.size_bytes())));
        }
        Ok(Some(Found { position, header }))
    }

    /// The first batch at or behind `position` whose last offset is not below `offset`.
    ///
    /// Headers are stepped over unverified, and a damaged one may say that `offset` is not in its batch. Two things tell:
    /// offsets that fall, and a batch that fails its checksum in front of a gap where `offset` should be. Either is an error.
    pub fn find(&mut self, position: u64, offset: i64) -> Result<Option<Found>> {
        let (mut at, mut expected, mut before) = (position, self.base_offset, None);
        while let Some(found) = self.header(at)? {
            let base_offset = found.header.base_offset;
            if base_offset < expected {
                let reason = format!("offset {base_offset} where {expected} or more must follow");
                return Err(Error::damaged(self.file.path(), at, expected, reason));
            }
            if found.header.last_offset() >= offset {
                match before {
                    Some(before) if base_offset > offset && !self.is_whole(&before)? => {
                        let reason = "a damaged batch before offsets that are missing".to_string();
                        return Err(Error::damaged(
                            self.file.path(),
                            before.position,
                            before.header.base_offset,
                            reason,
                        ));
                    }
                    _ => return Ok(Some(found)),
                }
            }
            expected = found.header.next_offset();
            at += found.header.size_bytes() as u64;
            before = Some(found);
        }
        Ok(None)
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

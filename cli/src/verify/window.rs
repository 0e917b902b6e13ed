//! A file read forward through one buffer, which never grows past what the file holds.

use oncelog_device::{DeviceError, DeviceFile};
use std::sync::Arc;

const CHUNK_BYTES: usize = 4 << 20;

/// A window over a file.
pub struct Window {
    file: Arc<dyn DeviceFile>,
    length: u64,
    start: u64,
    buffer: Vec<u8>,
    filled: usize,
}

impl Window {
    /// Over the whole file, as long as it is now.
    pub fn new(file: Arc<dyn DeviceFile>) -> Result<Self, DeviceError> {
        let length = file.length()?;
        Ok(Self { file, length, start: 0, buffer: Vec::new(), filled: 0 })
    }

    /// Length of the file when it was opened.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Reads everything anew from here on, with the length of now.
    pub fn forget(&mut self) -> Result<(), DeviceError> {
        self.length = self.file.length()?;
        self.filled = 0;
        Ok(())
    }

    /// Up to `want` bytes from `position`; fewer only at the end of the file.
    pub fn at(&mut self, position: u64, want: usize) -> Result<&[u8], DeviceError> {
        let available = usize::try_from(self.length.saturating_sub(position)).unwrap_or(usize::MAX);
        let want = want.min(available);
        let inside = position >= self.start && position + want as u64 <= self.start + self.filled as u64;
        if !inside {
            self.fill(position, want.max(CHUNK_BYTES.min(available)))?;
        }
        let from = (position - self.start) as usize;
        Ok(&self.buffer[from..(from + want).min(self.filled)])
    }

    fn fill(&mut self, position: u64, want: usize) -> Result<(), DeviceError> {
        self.buffer.resize(self.buffer.len().max(want), 0);
        (self.start, self.filled) = (position, 0);
        while self.filled < want {
            let read = self.file.read(position + self.filled as u64, &mut self.buffer[self.filled..want])?;
            if read == 0 {
                self.length = position + self.filled as u64;
                break;
            }
            self.filled += read;
        }
        Ok(())
    }
}

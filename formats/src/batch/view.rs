//! One batch, borrowed.

use super::{BatchHeader, CRC_START, HEADER_BYTES, MAGIC, WHAT};
use crate::crc32c::crc32c;
use crate::error::{FormatError, Result};

/// One whole batch of magic 2. Its CRC is not checked until asked for.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The first batch of `bytes`; what follows it is left out. [`FormatError::Truncated`] where it is not whole,
    /// [`FormatError::BadLength`] or [`FormatError::BadMagic`] where it is no batch of magic 2.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let header = BatchHeader::parse(bytes)?;
        if header.magic != MAGIC {
            return Err(FormatError::BadMagic { magic: header.magic });
        }
        let need = header.size_bytes();
        match bytes.get(..need) {
            Some(bytes) => Ok(Self { header, bytes }),
            None => Err(FormatError::Truncated { what: WHAT, need, have: bytes.len() }),
        }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The batch from base offset to end.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records section, compressed or not.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// [`FormatError::CrcMismatch`] where the stored CRC is not that of the bytes.
    pub fn verify_crc(&self) -> Result<()> {
        let stored = self.header.crc;
        let computed = crc32c(&self.bytes[CRC_START..]);
        if stored == computed { Ok(()) } else { Err(FormatError::CrcMismatch { what: WHAT, stored, computed }) }
    }

    /// Whether the stored CRC is that of the bytes.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.verify_crc().is_ok()
    }
}

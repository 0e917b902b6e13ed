//! Zstandard frames, several in a row included.
//!
//! Decoding runs in one shot into a buffer that doubles on "too small", not as a stream: a stream allocates the window
//! that the frame header asks for, up to 128 MiB for a body of a few bytes, whereas here the limit holds for
//! everything.

use alloc::vec::Vec;
use std::io::Write;

use zstd::DEFAULT_COMPRESSION_LEVEL;
use zstd::stream::write::Encoder;
use zstd::zstd_safe::DCtx;

use super::{Compression, too_large};
use crate::error::{FormatError, Result};

/// `ZSTD_error_dstSize_tooSmall`, as the library returns it; numbers below 100 are fixed.
const OUTPUT_TOO_SMALL: usize = 0usize.wrapping_sub(70);
const FIRST_BYTES: usize = 1024;

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    // As Kafka's stream does: no content size, no checksum, and, if there was anything, a flush before the end, which
    // leaves an empty last block.
    let packed = Encoder::new(Vec::new(), DEFAULT_COMPRESSION_LEVEL).and_then(|mut encoder| {
        if !bytes.is_empty() {
            encoder.write_all(bytes)?;
            encoder.flush()?;
        }
        encoder.finish()
    });
    packed.map_err(|_| FormatError::Compress(Compression::Zstd))
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>> {
    const REFUSED: FormatError = FormatError::Decompress(Compression::Zstd);
    let mut context = DCtx::try_create().ok_or(REFUSED)?;
    let mut capacity = bytes.len().saturating_mul(4).max(FIRST_BYTES).min(limit_bytes);
    loop {
        let mut output = Vec::with_capacity(capacity);
        match context.decompress(&mut output, bytes) {
            Ok(_) => return Ok(output),
            Err(OUTPUT_TOO_SMALL) if capacity >= limit_bytes => return Err(too_large(limit_bytes)),
            Err(OUTPUT_TOO_SMALL) => capacity = capacity.saturating_mul(2).min(limit_bytes),
            Err(_) => return Err(REFUSED),
        }
    }
}

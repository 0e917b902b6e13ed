//! RFC 1952, several members included, as Java's reader takes them.
//!
//! Written through zlib itself, as Java does: other deflaters are as valid but give other bytes. The header is that of
//! Java 16 and newer (unknown system, 255; older ones write 0).

use alloc::vec::Vec;
use std::io::{Read, Write};

use super::{Compression, reserve};
use crate::error::{FormatError, Result};

const CHUNK_BYTES: usize = 8 * 1024;

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.map_err(|_| FormatError::Compress(Compression::Gzip))
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>> {
    let mut decoder = flate2::bufread::MultiGzDecoder::new(bytes);
    let mut output = Vec::new();
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        match decoder.read(&mut chunk) {
            Ok(0) => return Ok(output),
            Ok(count) => {
                reserve(&mut output, count, limit_bytes)?;
                output.extend_from_slice(&chunk[..count]);
            }
            Err(_) => return Err(FormatError::Decompress(Compression::Gzip)),
        }
    }
}

//! Raw snappy blocks in the xerial framing of snappy-java; a body without that framing is taken as one raw block.
//!
//! The bytes are those of Kafka's library where a block is longer than 16 KiB. In shorter ones that library hashes into
//! its smaller table in another way, and finds other matches.

use alloc::vec;
use alloc::vec::Vec;

use super::{Compression, reserve};
use crate::error::{FormatError, Result};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, version and oldest compatible version.
const HEADER_BYTES: usize = 16;
const VERSION: u32 = 1;
/// What snappy-java cuts its input into.
const BLOCK_BYTES: usize = 32 * 1024;
/// No two bytes of snappy can stand for more than one copy of 64.
const MAX_RATIO: usize = 32;
const REFUSED: FormatError = FormatError::Decompress(Compression::Snappy);

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut output = Vec::with_capacity(HEADER_BYTES + bytes.len() / 2);
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&VERSION.to_be_bytes());
    output.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(bytes.len().min(BLOCK_BYTES))];
    for chunk in bytes.chunks(BLOCK_BYTES) {
        let size = encoder.compress(chunk, &mut block).map_err(|_| FormatError::Compress(Compression::Snappy))?;
        output.extend_from_slice(&(size as u32).to_be_bytes());
        output.extend_from_slice(&block[..size]);
    }
    Ok(output)
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    if !bytes.starts_with(&MAGIC) {
        decompress_block(bytes, &mut output, limit_bytes)?;
        return Ok(output);
    }
    let mut rest = bytes;
    while !rest.is_empty() {
        // Streams may be joined: a header can stand wherever a length can, and is no possible length.
        if rest.starts_with(&MAGIC) {
            let version = rest.get(8..12).ok_or(REFUSED)?;
            if version == [0; 4] || rest.len() < HEADER_BYTES {
                return Err(REFUSED);
            }
            rest = &rest[HEADER_BYTES..];
            continue;
        }
        let (size, after) = rest.split_first_chunk::<4>().ok_or(REFUSED)?;
        let size = usize::try_from(i32::from_be_bytes(*size)).map_err(|_| REFUSED)?;
        let (block, after) = after.split_at_checked(size).ok_or(REFUSED)?;
        decompress_block(block, &mut output, limit_bytes)?;
        rest = after;
    }
    Ok(output)
}

fn decompress_block(block: &[u8], output: &mut Vec<u8>, limit_bytes: usize) -> Result<()> {
    let size = snap::raw::decompress_len(block).map_err(|_| REFUSED)?;
    if size > block.len().saturating_mul(MAX_RATIO) {
        return Err(REFUSED);
    }
    reserve(output, size, limit_bytes)?;
    let start = output.len();
    output.resize(start + size, 0);
    snap::raw::Decoder::new().decompress(block, &mut output[start..]).map_err(|_| REFUSED)?;
    Ok(())
}

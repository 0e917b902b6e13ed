//! LZ4 frames: blocks by the libraries, the frame around them here.
//!
//! Blocks are made by the C library, whose bytes are those of Kafka, and read by one in safe Rust.
//!
//! Blocks decode straight into the output, so that the limit covers all memory; a frame decoder would allocate the
//! block size that the header asks for. Like Kafka's reader: independent blocks only, one frame, the header's checksum
//! must be right. Block and content checksums are stepped over, the batch's CRC has covered those bytes.

use alloc::vec;
use alloc::vec::Vec;

use lz4::block::{CompressionMode, compress_bound, compress_to_buffer};
use lz4_flex::block;

use super::{Compression, reserve, too_large};
use crate::error::{FormatError, Result};

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
/// Version 1, independent blocks, nothing optional; 64 KiB blocks; the checksum of these two.
const DESCRIPTOR: [u8; 3] = [0x60, 0x40, 0x82];
const BLOCK_BYTES: usize = 64 * 1024;
const END_MARK: [u8; 4] = [0; 4];
const STORED: u32 = 1 << 31;
/// One byte of LZ4 stands for at most 255.
const MAX_RATIO: usize = 255;
const REFUSED: FormatError = FormatError::Decompress(Compression::Lz4);

const FAILED: FormatError = FormatError::Compress(Compression::Lz4);

pub(super) fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut output = Vec::with_capacity(15 + bytes.len() / 2);
    output.extend_from_slice(&MAGIC);
    output.extend_from_slice(&DESCRIPTOR);
    let mut buffer = vec![0; compress_bound(bytes.len().min(BLOCK_BYTES)).map_err(|_| FAILED)?];
    for chunk in bytes.chunks(BLOCK_BYTES) {
        let size = compress_to_buffer(chunk, Some(CompressionMode::DEFAULT), false, &mut buffer).map_err(|_| FAILED)?;
        let (mark, body) =
            if size < chunk.len() { (size as u32, &buffer[..size]) } else { (chunk.len() as u32 | STORED, chunk) };
        output.extend_from_slice(&mark.to_le_bytes());
        output.extend_from_slice(body);
    }
    output.extend_from_slice(&END_MARK);
    Ok(output)
}

pub(super) fn decompress(bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>> {
    let (frame, mut rest) = Frame::parse(bytes)?;
    let mut output = Vec::new();
    loop {
        let (mark, after) = rest.split_first_chunk::<4>().ok_or(REFUSED)?;
        let mark = u32::from_le_bytes(*mark);
        if mark == 0 {
            return Ok(output);
        }
        let (body, after) = after.split_at_checked((mark & !STORED) as usize).ok_or(REFUSED)?;
        if body.len() > frame.block_bytes {
            return Err(REFUSED);
        }
        if mark & STORED != 0 {
            reserve(&mut output, body.len(), limit_bytes)?;
            output.extend_from_slice(body);
        } else {
            decompress_block(body, frame.block_bytes, &mut output, limit_bytes)?;
        }
        rest = after.get(frame.block_checksum_bytes..).ok_or(REFUSED)?;
    }
}

fn decompress_block(body: &[u8], block_bytes: usize, output: &mut Vec<u8>, limit_bytes: usize) -> Result<()> {
    let possible = body.len().saturating_mul(MAX_RATIO).min(block_bytes);
    let room = possible.min(limit_bytes - output.len());
    reserve(output, room, limit_bytes)?;
    let start = output.len();
    output.resize(start + room, 0);
    match block::decompress_into(body, &mut output[start..]) {
        Ok(size) => output.truncate(start + size),
        Err(block::DecompressError::OutputTooSmall { .. }) if room < possible => {
            return Err(too_large(limit_bytes));
        }
        Err(_) => return Err(REFUSED),
    }
    Ok(())
}

/// What a frame's header says.
struct Frame {
    block_bytes: usize,
    block_checksum_bytes: usize,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Result<(Self, &[u8])> {
        let rest = bytes.strip_prefix(&MAGIC).ok_or(REFUSED)?;
        let &[flags, block_descriptor, ..] = rest else {
            return Err(REFUSED);
        };
        // Version 1, independent blocks, no dictionary, reserved bits clear.
        if flags & 0b1110_0011 != 0b0110_0000 {
            return Err(REFUSED);
        }
        let block_bytes = match block_descriptor {
            0x40 => 64 << 10,
            0x50 => 256 << 10,
            0x60 => 1 << 20,
            0x70 => 4 << 20,
            _ => return Err(REFUSED),
        };
        let descriptor_bytes = if flags & 0b1000 != 0 { 10 } else { 2 };
        let (descriptor, rest) = rest.split_at_checked(descriptor_bytes).ok_or(REFUSED)?;
        let (&checksum, rest) = rest.split_first().ok_or(REFUSED)?;
        if checksum != header_checksum(descriptor) {
            return Err(REFUSED);
        }
        let block_checksum_bytes = if flags & 0b1_0000 != 0 { 4 } else { 0 };
        Ok((Self { block_bytes, block_checksum_bytes }, rest))
    }
}

/// The second byte of XXH32, here for fewer than 16 bytes only.
pub(super) fn header_checksum(bytes: &[u8]) -> u8 {
    const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    debug_assert!(bytes.len() < 16);
    let mut hash = PRIMES[4].wrapping_add(bytes.len() as u32);
    let (lanes, tail) = bytes.as_chunks::<4>();
    for lane in lanes {
        hash = hash.wrapping_add(u32::from_le_bytes(*lane).wrapping_mul(PRIMES[2]));
        hash = hash.rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for &byte in tail {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIMES[4]));
        hash = hash.rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ (hash >> 15)).wrapping_mul(PRIMES[1]);
    hash = (hash ^ (hash >> 13)).wrapping_mul(PRIMES[2]);
    ((hash ^ (hash >> 16)) >> 8) as u8
}

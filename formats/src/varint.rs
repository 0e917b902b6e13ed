//! Zig-zag variable-length integers, as records use them: seven bits a byte, low first.
//!
//! Kept to Kafka's limits rather than a general LEB128: at most 5 bytes for 32 bits and 10 for 64, and surplus high
//! bits of the last byte are dropped, as Java's shift does.

use alloc::vec::Vec;

use crate::error::{FormatError, Result};

const MAX_BYTES_32: usize = 5;
const MAX_BYTES_64: usize = 10;
const CONTINUES: u8 = 0x80;

/// Takes a 32-bit number off the front of `bytes`, which stays as it is on [`FormatError::InvalidRecord`].
pub fn take_i32(bytes: &mut &[u8]) -> Result<i32> {
    let value = take(bytes, MAX_BYTES_32)? as u32;
    Ok((value >> 1) as i32 ^ -((value & 1) as i32))
}

/// Takes a 64-bit number off the front of `bytes`, which stays as it is on [`FormatError::InvalidRecord`].
pub fn take_i64(bytes: &mut &[u8]) -> Result<i64> {
    let value = take(bytes, MAX_BYTES_64)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

/// Appends a 32-bit number.
pub fn put_i32(output: &mut Vec<u8>, value: i32) {
    put_i64(output, i64::from(value));
}

/// Appends a 64-bit number.
pub fn put_i64(output: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= u64::from(CONTINUES) {
        output.push(rest as u8 | CONTINUES);
        rest >>= 7;
    }
    output.push(rest as u8);
}

/// Bytes that a number takes, 32-bit or 64-bit.
#[must_use]
pub fn size_bytes(value: i64) -> usize {
    let bits = 64 - zigzag(value).leading_zeros() as usize;
    bits.div_ceil(7).max(1)
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

fn take(bytes: &mut &[u8], max_bytes: usize) -> Result<u64> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(max_bytes).enumerate() {
        value |= u64::from(byte & !CONTINUES) << (7 * index);
        if byte & CONTINUES == 0 {
            *bytes = &bytes[index + 1..];
            return Ok(value);
        }
    }
    let cut_off = bytes.len() < max_bytes;
    let reason = if cut_off { "number is cut off" } else { "number is too long" };
    Err(FormatError::InvalidRecord { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut output = Vec::new();
        put_i64(&mut output, value);
        assert_eq!(output.len(), size_bytes(value), "size of {value}");
        output
    }

    #[test]
    fn known_bytes_and_back() {
        for (value, bytes) in [
            (0i64, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7e]),
            (64, &[0x80, 1]),
            (-1000, &[0xcf, 0x0f]),
            (i64::from(i32::MAX), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::from(i32::MIN), &[0xff, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ] {
            assert_eq!(encoded(value), bytes, "{value}");
            let mut rest = bytes;
            assert_eq!((take_i64(&mut rest), rest.len()), (Ok(value), 0), "{value}");
            if let Ok(small) = i32::try_from(value) {
                let mut rest = bytes;
                assert_eq!((take_i32(&mut rest), rest.len()), (Ok(small), 0), "{value}");
            }
        }
    }

    #[test]
    fn cut_off_and_too_long_are_different_errors_and_take_nothing() {
        let cut_off = Err(FormatError::InvalidRecord { reason: "number is cut off" });
        let too_long = Err(FormatError::InvalidRecord { reason: "number is too long" });
        let bytes = [0xff; 11];
        let mut rest = &bytes[..4];
        assert_eq!((take_i32(&mut rest), rest.len()), (cut_off, 4));
        let mut rest = &bytes[..5];
        assert_eq!((take_i32(&mut rest), rest.len()), (too_long.clone(), 5));
        let mut rest = &bytes[..];
        assert_eq!((take_i64(&mut rest).map(|_| 0), rest.len()), (too_long, 11));
    }
}

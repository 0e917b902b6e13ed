//! CRC-32C (Castagnoli), the checksum of batches and snapshots.
//!
//! One door, so that the implementation can be changed in one place.

/// The CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// The CRC-32C of everything that gave `crc`, followed by `bytes`.
#[must_use]
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    ::crc32c::crc32c_append(crc, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_whole_and_in_two_parts() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"1234"), b"56789"), 0xe306_9283);
        assert_eq!(crc32c(b""), 0);
    }

    #[test]
    fn every_split_of_a_long_input_agrees() {
        let bytes: alloc::vec::Vec<u8> = (0..2048u32).map(|i| ((i * 31) >> 3) as u8).collect();
        let whole = crc32c(&bytes);
        for split in (0..bytes.len()).step_by(37) {
            assert_eq!(crc32c_append(crc32c(&bytes[..split]), &bytes[split..]), whole, "split at {split}");
        }
    }
}

//! `.timeindex`: from a timestamp to an offset. 12 bytes an entry, no header, no checksum.
//!
//! An entry says: up to here the largest timestamp is `timestamp`, and the batch that carries it ends with `offset`.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::Result;
use crate::index_findings::{IndexFindings, relative_offset};

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 12;

/// One entry, its offset made absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeEntry {
    /// Largest timestamp so far, in milliseconds since 1970.
    pub timestamp: i64,
    /// Last offset of the batch that carried it.
    pub offset: i64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    timestamp: big_endian::I64,
    relative_offset: big_endian::I32,
}

const _: () = assert!(size_of::<Raw>() == ENTRY_BYTES);

impl TimeEntry {
    /// The entry as stored in the time index of the segment at `base_offset`.
    ///
    /// # Errors
    /// `OutOfRange` if the offset is below the base or more than 2^31 - 1 above it.
    pub fn encode(&self, base_offset: i64) -> Result<[u8; ENTRY_BYTES]> {
        let relative = relative_offset(base_offset, self.offset, "time index offset")?;
        Ok(zerocopy::transmute!(Raw { timestamp: self.timestamp.into(), relative_offset: relative.into() }))
    }

    /// Reads one stored entry; any twelve bytes are one. An offset beyond i64 wraps.
    #[must_use]
    pub fn decode(base_offset: i64, bytes: &[u8; ENTRY_BYTES]) -> Self {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        Self { timestamp: raw.timestamp.get(), offset: base_offset.wrapping_add(i64::from(raw.relative_offset.get())) }
    }
}

/// All entries of the time index of the segment at `base_offset`, with what is odd about them. Kafka's rule is that
/// timestamps increase strictly and offsets never fall.
#[must_use]
pub fn decode_all(base_offset: i64, bytes: &[u8]) -> (Vec<TimeEntry>, IndexFindings) {
    let (chunks, mut findings) = IndexFindings::split::<ENTRY_BYTES>(bytes);
    let entries: Vec<_> = chunks.iter().map(|chunk| TimeEntry::decode(base_offset, chunk)).collect();
    for (number, entry) in entries.iter().enumerate() {
        if entry.offset < base_offset {
            findings.note_out_of_range(number);
        }
    }
    for (number, pair) in entries.windows(2).enumerate() {
        if pair[1].timestamp <= pair[0].timestamp || pair[1].offset < pair[0].offset {
            findings.note_not_increasing(number + 1);
        }
    }
    (entries, findings)
}

/// The file of these entries.
///
/// # Errors
/// As [`TimeEntry::encode`].
pub fn encode_all(base_offset: i64, entries: &[TimeEntry]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.encode(base_offset)?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T: i64 = 1_700_000_000_000;
    const TWO: [TimeEntry; 2] =
        [TimeEntry { timestamp: T, offset: 55 }, TimeEntry { timestamp: T + 100, offset: 1000 }];

    fn golden() -> Vec<u8> {
        hex::decode("0000018bcfe56800000000050000018bcfe56864000003b6").unwrap()
    }

    #[test]
    fn kafkas_own_bytes_both_ways() {
        assert_eq!(encode_all(50, &TWO).unwrap(), golden());
        assert_eq!(decode_all(50, &golden()), (TWO.to_vec(), IndexFindings::default()));
    }

    #[test]
    fn zero_tail_partial_tail_and_zero_first_entry() {
        let mut bytes = golden();
        bytes.resize(24 + 2 * 12 + 11, 0);
        let (entries, findings) = decode_all(50, &bytes);
        assert_eq!((entries.as_slice(), findings.trimmed_zero_entries, findings.partial_bytes), (&TWO[..], 2, 11));
        let (entries, findings) = decode_all(50, &[0; 12]);
        assert_eq!(entries, [TimeEntry { timestamp: 0, offset: 50 }]);
        assert!(findings.zero_first_entry && findings.is_clean());
    }

    #[test]
    fn order_is_strict_in_time_and_lax_in_offset() {
        let entry = |timestamp, offset| TimeEntry { timestamp, offset };
        for (what, second, found) in [
            ("same time", entry(5, 60), Some(1)),
            ("same offset", entry(6, 55), None),
            ("falling offset", entry(6, 54), Some(1)),
        ] {
            let bytes = encode_all(50, &[entry(5, 55), second]).unwrap();
            assert_eq!(decode_all(50, &bytes).1.first_not_increasing, found, "{what}");
        }
        let negative = [&T.to_be_bytes()[..], &(-1i32).to_be_bytes()].concat();
        assert_eq!(decode_all(50, &negative).1.first_out_of_range, Some(0));
        assert!(entry(0, 49).encode(50).is_err());
    }

    proptest! {
        #[test]
        fn clean_files_are_reproduced_byte_for_byte(base: i64, bytes: Vec<u8>) {
            let (entries, findings) = decode_all(base, &bytes);
            if findings.is_clean() {
                prop_assert_eq!(encode_all(base, &entries).unwrap(), bytes);
            }
        }
    }
}

//! `.index`: from an offset to the file position of its batch. 8 bytes an entry, no header, no checksum.
//!
//! An entry says: the batch that starts at `position` ends with `offset` (its last offset, not its first).

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::index_findings::{IndexFindings, relative_offset};
use crate::{FormatError, Result};

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 8;

/// One entry, its offset made absolute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OffsetEntry {
    /// Last offset of the batch.
    pub offset: i64,
    /// Where the batch starts in the segment file, in bytes. Kafka's field is signed, so at most 2^31 - 1.
    pub position: u32,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    relative_offset: big_endian::I32,
    position: big_endian::I32,
}

const _: () = assert!(size_of::<Raw>() == ENTRY_BYTES);

impl OffsetEntry {
    /// The entry as stored in the index of the segment at `base_offset`.
    ///
    /// # Errors
    /// `OutOfRange` if the offset is below the base or more than 2^31 - 1 above it, or the position is above 2^31 - 1.
    pub fn encode(&self, base_offset: i64) -> Result<[u8; ENTRY_BYTES]> {
        let position = i32::try_from(self.position)
            .map_err(|_| FormatError::OutOfRange { what: "index position", value: i64::from(self.position) })?;
        let relative = relative_offset(base_offset, self.offset, "index offset")?;
        Ok(zerocopy::transmute!(Raw { relative_offset: relative.into(), position: position.into() }))
    }

    /// Reads one stored entry; any eight bytes are one. An offset beyond i64 wraps.
    #[must_use]
    pub fn decode(base_offset: i64, bytes: &[u8; ENTRY_BYTES]) -> Self {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        Self {
            offset: base_offset.wrapping_add(i64::from(raw.relative_offset.get())),
            position: raw.position.get().cast_unsigned(),
        }
    }

    fn is_in_range(&self, base_offset: i64) -> bool {
        self.offset >= base_offset && i32::try_from(self.position).is_ok()
    }
}

/// All entries of the index of the segment at `base_offset`, with what is odd about them. Kafka's rule is that offsets
/// and positions both increase strictly.
#[must_use]
pub fn decode_all(base_offset: i64, bytes: &[u8]) -> (Vec<OffsetEntry>, IndexFindings) {
    let (chunks, mut findings) = IndexFindings::split::<ENTRY_BYTES>(bytes);
    let entries: Vec<_> = chunks.iter().map(|chunk| OffsetEntry::decode(base_offset, chunk)).collect();
    for (number, entry) in entries.iter().enumerate() {
        if !entry.is_in_range(base_offset) {
            findings.note_out_of_range(number);
        }
    }
    for (number, pair) in entries.windows(2).enumerate() {
        if pair[1].offset <= pair[0].offset || pair[1].position <= pair[0].position {
            findings.note_not_increasing(number + 1);
        }
    }
    (entries, findings)
}

/// The file of these entries.
///
/// # Errors
/// As [`OffsetEntry::encode`].
pub fn encode_all(base_offset: i64, entries: &[OffsetEntry]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for entry in entries {
        bytes.extend_from_slice(&entry.encode(base_offset)?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const TWO: [OffsetEntry; 2] =
        [OffsetEntry { offset: 55, position: 0 }, OffsetEntry { offset: 1000, position: 4200 }];

    fn golden() -> Vec<u8> {
        hex::decode("0000000500000000000003b600001068").unwrap()
    }

    #[test]
    fn kafkas_own_bytes_both_ways() {
        assert_eq!(encode_all(50, &TWO).unwrap(), golden());
        assert_eq!(decode_all(50, &golden()), (TWO.to_vec(), IndexFindings::default()));
    }

    #[test]
    fn the_zero_tail_of_a_preallocated_file_is_trimmed_and_counted() {
        let mut bytes = golden();
        bytes.resize(16 + 3 * 8 + 5, 0);
        let (entries, findings) = decode_all(50, &bytes);
        assert_eq!(entries, TWO);
        assert_eq!(findings, IndexFindings { partial_bytes: 5, trimmed_zero_entries: 3, ..Default::default() });
        assert!(!findings.is_clean());
    }

    #[test]
    fn a_zero_first_entry_is_kept_for_the_engine_to_judge() {
        let (entries, findings) = decode_all(7, &[0; 24]);
        assert_eq!(entries, [OffsetEntry { offset: 7, position: 0 }]);
        assert_eq!((findings.trimmed_zero_entries, findings.zero_first_entry), (2, true));
        let genuine = encode_all(7, &[entries[0], OffsetEntry { offset: 9, position: 80 }]).unwrap();
        let (entries, findings) = decode_all(7, &genuine);
        assert_eq!((entries.len(), findings.zero_first_entry, findings.is_clean()), (2, true, true));
        assert_eq!(decode_all(7, &[]), (vec![], IndexFindings::default()));
    }

    #[test]
    fn disorder_and_impossible_values_are_found_at_their_first_place() {
        for (what, words, not_increasing, out_of_range) in [
            ("equal offsets", [(1, 10), (1, 20), (0, 30)], Some(1), None),
            ("falling position", [(1, 10), (2, 20), (3, 20)], Some(2), None),
            ("negative offset", [(-1, 10), (2, 20), (3, 30)], None, Some(0)),
            ("negative position", [(1, 10), (2, -1), (3, 30)], Some(2), Some(1)),
        ] {
            let bytes: Vec<u8> =
                words.iter().flat_map(|(a, b): &(i32, i32)| [a.to_be_bytes(), b.to_be_bytes()].concat()).collect();
            let (entries, findings) = decode_all(100, &bytes);
            assert_eq!(entries.len(), 3, "{what}");
            assert_eq!(findings.first_not_increasing, not_increasing, "{what}");
            assert_eq!(findings.first_out_of_range, out_of_range, "{what}");
        }
        let (_, findings) = decode_all(i64::MAX, &golden());
        assert_eq!(findings.first_out_of_range, Some(0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let at = |offset, position| OffsetEntry { offset, position }.encode(100);
        assert!(at(100 + i64::from(i32::MAX), 0).is_ok());
        assert!(at(101 + i64::from(i32::MAX), 0).is_err());
        assert!(at(99, 0).is_err());
        assert!(at(100, 1 << 31).is_err());
        assert!(OffsetEntry { offset: i64::MAX, position: 0 }.encode(i64::MIN).is_err());
    }

    proptest! {
        #[test]
        fn clean_files_are_reproduced_byte_for_byte(base: i64, bytes: Vec<u8>) {
            let (entries, findings) = decode_all(base, &bytes);
            if findings.is_clean() {
                prop_assert_eq!(encode_all(base, &entries).unwrap(), bytes);
            }
        }

        #[test]
        fn increasing_entries_come_back(steps in prop::collection::vec((1..1000i64, 1..1000u32), 0..50), base in 0..i64::MAX / 2) {
            let mut last = OffsetEntry { offset: base, position: 0 };
            let entries: Vec<_> = steps.iter().map(|(offset, position)| {
                last = OffsetEntry { offset: last.offset + offset, position: last.position + position };
                last
            }).collect();
            let (back, findings) = decode_all(base, &encode_all(base, &entries).unwrap());
            prop_assert!(findings.is_clean());
            prop_assert_eq!(back, entries);
        }
    }
}

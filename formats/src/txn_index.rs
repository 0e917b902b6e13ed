//! `.txnindex`: the aborted transactions of a segment. 34 bytes an entry, no header, no checksum; the file is absent
//! until the first abort.
//!
//! The version is read as a full i16, as Kafka 4.4 does. Older versions look at its high byte only, so they take `00
//! 01` for version 0; writing 0 and refusing everything else agrees with all of them.

use alloc::vec::Vec;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, big_endian};

use crate::{FormatError, Result};

/// Bytes of one entry.
pub const ENTRY_BYTES: usize = 34;
/// The only version.
pub const VERSION: i16 = 0;

/// One aborted transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AbortedTxn {
    /// Whose transaction.
    pub producer_id: i64,
    /// First offset of the transaction.
    pub first_offset: i64,
    /// Offset of the abort marker.
    pub last_offset: i64,
    /// Last stable offset at the time of the abort: no transaction that this entry has to be read for starts below it.
    pub last_stable_offset: i64,
}

/// What is odd about the content. Entry numbers count from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TxnFindings {
    /// Bytes behind the last whole entry; ignored. An append has to cut them off first, or all that follows is
    /// misaligned.
    pub partial_bytes: usize,
    /// First entry whose last offset is not above that of the one before it.
    pub first_not_increasing: Option<usize>,
    /// First entry that no writer produces: a negative field, or a marker that is not behind the first offset. All zero
    /// is one.
    pub first_impossible: Option<usize>,
}

impl TxnFindings {
    /// Nothing to complain about.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    version: big_endian::I16,
    producer_id: big_endian::I64,
    first_offset: big_endian::I64,
    last_offset: big_endian::I64,
    last_stable_offset: big_endian::I64,
}

const _: () = assert!(size_of::<Raw>() == ENTRY_BYTES);

impl AbortedTxn {
    /// The entry as stored.
    #[must_use]
    pub fn encode(&self) -> [u8; ENTRY_BYTES] {
        zerocopy::transmute!(Raw {
            version: VERSION.into(),
            producer_id: self.producer_id.into(),
            first_offset: self.first_offset.into(),
            last_offset: self.last_offset.into(),
            last_stable_offset: self.last_stable_offset.into(),
        })
    }

    /// Reads one stored entry.
    ///
    /// # Errors
    /// `BadVersion` if the version is not 0.
    pub fn decode(bytes: &[u8; ENTRY_BYTES]) -> Result<Self> {
        let raw: &Raw = zerocopy::transmute_ref!(bytes);
        if raw.version.get() != VERSION {
            return Err(FormatError::BadVersion { what: "aborted transaction", version: raw.version.get().into() });
        }
        Ok(Self {
            producer_id: raw.producer_id.get(),
            first_offset: raw.first_offset.get(),
            last_offset: raw.last_offset.get(),
            last_stable_offset: raw.last_stable_offset.get(),
        })
    }

    fn is_possible(&self) -> bool {
        self.producer_id >= 0
            && self.first_offset >= 0
            && self.last_offset > self.first_offset
            && self.last_stable_offset >= 0
    }
}

/// All whole entries of the file, with what is odd about them.
///
/// # Errors
/// `BadVersion` if any whole entry has a version other than 0; nothing behind such an entry can be trusted to be
/// aligned.
pub fn decode_all(bytes: &[u8]) -> Result<(Vec<AbortedTxn>, TxnFindings)> {
    let (chunks, partial) = bytes.as_chunks::<ENTRY_BYTES>();
    let entries = chunks.iter().map(AbortedTxn::decode).collect::<Result<Vec<_>>>()?;
    let findings = TxnFindings {
        partial_bytes: partial.len(),
        first_not_increasing: entries
            .windows(2)
            .position(|pair| pair[1].last_offset <= pair[0].last_offset)
            .map(|before| before + 1),
        first_impossible: entries.iter().position(|entry| !entry.is_possible()),
    };
    Ok((entries, findings))
}

/// The file of these entries.
#[must_use]
pub fn encode_all(entries: &[AbortedTxn]) -> Vec<u8> {
    entries.iter().flat_map(AbortedTxn::encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn txn(producer_id: i64, first_offset: i64, last_offset: i64, last_stable_offset: i64) -> AbortedTxn {
        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset }
    }

    fn golden() -> Vec<u8> {
        hex::decode(
            "00000000000000000089000000000000006400000000000000cd0000000000000096\
             000000000000000003d70000000000000096000000000000012c000000000000012d",
        )
        .unwrap()
    }

    #[test]
    fn kafkas_own_bytes_both_ways() {
        let two = [txn(137, 100, 205, 150), txn(983, 150, 300, 301)];
        assert_eq!(encode_all(&two), golden());
        assert_eq!(decode_all(&golden()).unwrap(), (two.to_vec(), TxnFindings::default()));
    }

    #[test]
    fn a_partial_tail_is_ignored_and_reported() {
        let bytes = golden();
        let (entries, findings) = decode_all(&bytes[..67]).unwrap();
        assert_eq!(entries, [txn(137, 100, 205, 150)]);
        assert_eq!(findings.partial_bytes, 33);
        assert!(!findings.is_clean());
    }

    #[test]
    fn both_bytes_of_the_version_count() {
        for (at, value, version) in [(0, 1, 256), (1, 1, 1), (34, 0xff, -256), (35, 2, 2)] {
            let mut bytes = golden();
            bytes[at] = value;
            let expected = FormatError::BadVersion { what: "aborted transaction", version };
            assert_eq!(decode_all(&bytes), Err(expected));
        }
    }

    #[test]
    fn disorder_and_impossible_entries_are_found() {
        let findings = |entries: &[AbortedTxn]| decode_all(&encode_all(entries)).unwrap().1;
        let good = txn(1, 10, 20, 10);
        assert_eq!(findings(&[good, txn(2, 5, 20, 5)]).first_not_increasing, Some(1));
        assert_eq!(findings(&[good, txn(2, 30, 30, 30)]).first_impossible, Some(1));
        assert_eq!(findings(&[good, txn(-1, 30, 31, 30)]).first_impossible, Some(1));
        assert_eq!(decode_all(&[0; 34]).unwrap().1.first_impossible, Some(0));
    }

    proptest! {
        #[test]
        fn any_entries_come_back(fields: Vec<(i64, i64, i64, i64)>) {
            let entries: Vec<_> = fields.into_iter().map(|(a, b, c, d)| txn(a, b, c, d)).collect();
            prop_assert_eq!(decode_all(&encode_all(&entries)).unwrap().0, entries);
        }

        #[test]
        fn any_bytes_decode_or_say_why(mut bytes: Vec<u8>) {
            for entry in bytes.chunks_mut(ENTRY_BYTES).filter(|entry| entry.len() > 1) {
                entry[0] = 0;
                entry[1] &= 1;
            }
            if let Ok((entries, findings)) = decode_all(&bytes) {
                prop_assert_eq!(encode_all(&entries), &bytes[..bytes.len() - findings.partial_bytes]);
            }
        }
    }
}

//! `leader-epoch-checkpoint`: where each leader epoch starts, one line `<epoch> <start offset>` each.
//!
//! Only the text is judged here. That epochs and offsets rise together is the epoch cache's rule, which repairs a file
//! that breaks it; refusing the file would throw the good lines away.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use crate::Result;
use crate::checkpoint_text::{self, number};

/// Name of the file in the partition's directory.
pub const FILE_NAME: &str = "leader-epoch-checkpoint";

/// One leader epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: i32,
    /// First offset written in it.
    pub start_offset: i64,
}

impl fmt::Display for EpochEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.epoch, self.start_offset)
    }
}

/// Reads the file. Empty, or nothing behind the version: no entries.
///
/// # Errors
/// `BadVersion` unless the version is 0; `BadText` for everything else Kafka refuses.
pub fn parse(bytes: &[u8]) -> Result<Vec<EpochEntry>> {
    checkpoint_text::parse(FILE_NAME, bytes, |[epoch, start_offset]| {
        Some(EpochEntry { epoch: number(epoch)?, start_offset: number(start_offset)? })
    })
}

/// The file of these entries.
#[must_use]
pub fn format(entries: &[EpochEntry]) -> String {
    checkpoint_text::format(entries.iter())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FormatError;
    use proptest::prelude::*;

    #[test]
    fn kafkas_own_text_both_ways() {
        let entries = [EpochEntry { epoch: 0, start_offset: 0 }, EpochEntry { epoch: 3, start_offset: 1024 }];
        assert_eq!(format(&entries), "0\n2\n0 0\n3 1024\n");
        assert_eq!(parse(b"0\n2\n0 0\n3 1024\n").unwrap(), entries);
    }

    #[test]
    fn what_kafka_reads_as_no_entries() {
        for text in ["", "0", "0\n", "0\n0", "0\n0\n"] {
            assert_eq!(parse(text.as_bytes()), Ok(Vec::new()), "{text:?}");
        }
        assert_eq!(parse(b"0\n1\n1  5 ").unwrap().len(), 1, "runs of white space, no line end");
    }

    #[test]
    fn what_kafka_refuses() {
        assert_eq!(parse(b"1\n"), Err(FormatError::BadVersion { what: FILE_NAME, version: 1 }));
        for (text, bad_line) in [
            ("x\n0\n", 1),
            ("\n0\n", 1),
            ("0\nx\n", 2),
            ("0\n-1\n", 2),
            ("0\n2\n0 0\n", 2),
            ("0\n1\n0 0\n1 1\n", 2),
            ("0\n1\n0 0\n\n", 4),
            ("0\n1\n0\n", 3),
            ("0\n1\n0 0 0\n", 3),
            ("0\n1\n 0 0\n", 3),
            ("0\n1\n0 x\n", 3),
            ("0\n1\n2147483648 0\n", 3),
        ] {
            let Err(FormatError::BadText { line, .. }) = parse(text.as_bytes()) else { panic!("accepted {text:?}") };
            assert_eq!(line, bad_line, "{text:?}");
        }
        assert!(matches!(parse(b"0\n1\n0 \xff\n"), Err(FormatError::BadText { line: 3, .. })));
        assert!(parse(b"0\n2147483647\n").is_err(), "a huge count allocates nothing");
    }

    proptest! {
        #[test]
        fn any_entries_come_back(pairs: Vec<(i32, i64)>) {
            let entries: Vec<_> = pairs.into_iter().map(|(epoch, start_offset)| EpochEntry { epoch, start_offset }).collect();
            prop_assert_eq!(parse(format(&entries).as_bytes()).unwrap(), entries);
        }

        #[test]
        fn any_text_parses_or_says_why(text in "[0-2 \\n\\-x]{0,20}", bytes: Vec<u8>) {
            let _ = parse(&bytes);
            if let Ok(entries) = parse(text.as_bytes()) {
                prop_assert_eq!(parse(format(&entries).as_bytes()).unwrap(), entries);
            }
        }
    }
}

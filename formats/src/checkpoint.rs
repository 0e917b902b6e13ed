//! The offset checkpoints of a data directory (recovery points, log starts, high watermarks): one line
//! `<topic> <partition> <offset>` for each log.

use alloc::string::String;
use alloc::vec::Vec;

use crate::checkpoint_text::{self, is_space, number};
use crate::{FormatError, Result};

/// Recovery points: the first offset not known to be synced.
pub const RECOVERY_POINT: &str = "recovery-point-offset-checkpoint";
/// Log start offsets, of logs that start behind their first segment's base.
pub const LOG_START: &str = "log-start-offset-checkpoint";
/// High watermarks.
pub const HIGH_WATERMARK: &str = "replication-offset-checkpoint";
/// How far compaction came.
pub const CLEANER: &str = "cleaner-offset-checkpoint";

const WHAT: &str = "offset checkpoint";

/// Topic, partition, offset.
pub type OffsetCheckpoint = (String, i32, i64);

/// Reads the file. Empty, or nothing behind the version: no entries. A log that stands in it twice is returned twice;
/// to Kafka the later line wins.
///
/// # Errors
/// `BadVersion` unless the version is 0; `BadText` for everything else Kafka refuses.
pub fn parse(bytes: &[u8]) -> Result<Vec<OffsetCheckpoint>> {
    checkpoint_text::parse(WHAT, bytes, |[topic, partition, offset]| {
        Some((topic.into(), number(partition)?, number(offset)?))
    })
}

/// The file of these entries.
///
/// # Errors
/// `BadName` if a topic is empty or holds white space, which no reader could tell from a separator.
pub fn format(entries: &[OffsetCheckpoint]) -> Result<String> {
    if entries.iter().any(|(topic, ..)| topic.is_empty() || topic.contains(is_space)) {
        return Err(FormatError::BadName { what: WHAT, reason: "a topic is empty or holds white space" });
    }
    Ok(checkpoint_text::format(
        entries.iter().map(|(topic, partition, offset)| alloc::format!("{topic} {partition} {offset}")),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn kafkas_own_text_both_ways() {
        let entries = [("foo".into(), 0, 10), ("bar-baz".into(), 12, 99)];
        let text = "0\n2\nfoo 0 10\nbar-baz 12 99\n";
        assert_eq!(format(&entries).unwrap(), text);
        assert_eq!(parse(text.as_bytes()).unwrap(), entries);
    }

    #[test]
    fn two_or_four_fields_or_no_integer_are_refused() {
        for line in ["foo 0", "foo 0 1 2", "foo 0 x", "foo x 1", " foo 0 1", "a\u{b}b 0 1"] {
            let text = alloc::format!("0\n1\n{line}\n");
            assert!(matches!(parse(text.as_bytes()), Err(FormatError::BadText { line: 3, .. })), "{line:?}");
        }
    }

    #[test]
    fn a_topic_that_could_not_be_read_back_is_not_written() {
        for topic in ["", "a b", "a\n0 1 2", "a\u{b}b"] {
            assert!(format(&[(topic.into(), 0, 0)]).is_err(), "{topic:?}");
        }
    }

    proptest! {
        #[test]
        fn any_entries_come_back(entries in prop::collection::vec(("[a-zA-Z0-9._-]{1,12}", any::<i32>(), any::<i64>()), 0..9)) {
            prop_assert_eq!(parse(format(&entries).unwrap().as_bytes()).unwrap(), entries);
        }
    }
}

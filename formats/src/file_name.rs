//! Names of the files of a log and of its directory.
//!
//! Kafka reads any number before the first dot as the base offset and so lets two names stand for one file. Here a name
//! is ours only if it is exactly what a writer produces: twenty digits, a known ending. Everything else is somebody
//! else's file and left alone.

use alloc::string::String;
use core::fmt;

use crate::{FormatError, Result};

/// What a file of a log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `.log`: the batches.
    Log,
    /// `.index`: offset to position.
    OffsetIndex,
    /// `.timeindex`: timestamp to offset.
    TimeIndex,
    /// `.txnindex`: aborted transactions.
    TxnIndex,
    /// `.snapshot`: producer state; its number is the offset it covers, exclusive.
    Snapshot,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Log, Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex, Self::Snapshot];

    /// The ending, with its dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }
}

/// What was put behind the ending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Suffix {
    /// Nothing: a live file.
    #[default]
    None,
    /// `.deleted`: to be unlinked.
    Deleted,
    /// `.cleaned`: output of compaction being written; worthless after a crash.
    Cleaned,
    /// `.swap`: complete output of compaction, about to replace what it was made from.
    Swap,
}

impl Suffix {
    /// The text, with its dot; empty for none.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Deleted => ".deleted",
            Self::Cleaned => ".cleaned",
            Self::Swap => ".swap",
        }
    }
}

/// A file's name, taken apart. `Display` puts it together again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName {
    /// Base offset of the segment, or the offset a snapshot covers; not negative.
    pub base_offset: i64,
    /// What it holds.
    pub kind: Kind,
    /// What state it is in.
    pub suffix: Suffix,
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}{}{}", self.base_offset, self.kind.extension(), self.suffix.text())
    }
}

/// Name of a live file. `base_offset` must not be negative.
#[must_use]
pub fn segment_file_name(base_offset: i64, kind: Kind) -> String {
    debug_assert!(base_offset >= 0);
    alloc::format!("{}", FileName { base_offset, kind, suffix: Suffix::None })
}

/// Takes a name apart; `None` if it is not that of a log's file. `.deleted` may stand behind another suffix.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<FileName> {
    let (digits, rest) = name.split_at_checked(20)?;
    let base_offset = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        digits.parse().ok()?
    } else {
        return None;
    };
    let (rest, suffix) = split_suffix(rest);
    let rest = if suffix == Suffix::Deleted { split_suffix(rest).0 } else { rest };
    let kind = Kind::ALL.into_iter().find(|kind| kind.extension() == rest)?;
    Some(FileName { base_offset, kind, suffix })
}

fn split_suffix(rest: &str) -> (&str, Suffix) {
    [Suffix::Deleted, Suffix::Cleaned, Suffix::Swap]
        .into_iter()
        .find_map(|suffix| Some((rest.strip_suffix(suffix.text())?, suffix)))
        .unwrap_or((rest, Suffix::None))
}

/// Name of a log's directory.
///
/// # Errors
/// `BadName` if the topic's name is not legal or the partition is negative.
pub fn log_dir_name(topic: &str, partition: i32) -> Result<String> {
    check_topic(topic)?;
    if partition < 0 {
        return Err(bad_dir("the partition is negative"));
    }
    Ok(alloc::format!("{topic}-{partition}"))
}

/// Topic and partition of a log's directory. Directories that are being deleted, moved in or were found astray
/// (`<topic>-<partition>.<uuid>-delete` and the like) are not logs.
///
/// # Errors
/// `BadName` if the name has no partition, or the topic is not legal.
pub fn parse_log_dir_name(name: &str) -> Result<(&str, i32)> {
    let (topic, partition) = name.rsplit_once('-').ok_or(bad_dir("no partition"))?;
    check_topic(topic)?;
    let is_plain =
        partition == "0" || (!partition.starts_with('0') && partition.bytes().all(|byte| byte.is_ascii_digit()));
    let partition = partition.parse().ok().filter(|_| is_plain).ok_or(bad_dir("the partition is no number"))?;
    Ok((topic, partition))
}

const MAX_TOPIC_BYTES: usize = 249;

fn check_topic(topic: &str) -> Result<()> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match topic {
        "" => Err(bad_dir("the topic is empty")),
        "." | ".." => Err(bad_dir("the topic is . or ..")),
        _ if topic.len() > MAX_TOPIC_BYTES => Err(bad_dir("the topic is longer than 249 bytes")),
        _ if !topic.bytes().all(is_legal) => Err(bad_dir("the topic holds other than letters, digits and ._-")),
        _ => Ok(()),
    }
}

fn bad_dir(reason: &'static str) -> FormatError {
    FormatError::BadName { what: "log directory", reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;
    use proptest::prelude::*;

    #[test]
    fn kafkas_own_names_both_ways() {
        for (offset, kind, name) in [
            (3_147_483_650, Kind::Log, "00000000003147483650.log"),
            (i64::MAX, Kind::Snapshot, "09223372036854775807.snapshot"),
            (0, Kind::TxnIndex, "00000000000000000000.txnindex"),
        ] {
            assert_eq!(segment_file_name(offset, kind), name);
            assert_eq!(parse_file_name(name), Some(FileName { base_offset: offset, kind, suffix: Suffix::None }));
        }
    }

    #[test]
    fn suffixes_stand_at_the_end() {
        let parsed =
            |rest: &str| parse_file_name(&("00000000000000000007".to_string() + rest)).map(|n| (n.kind, n.suffix));
        assert_eq!(parsed(".index.swap"), Some((Kind::OffsetIndex, Suffix::Swap)));
        assert_eq!(parsed(".log.cleaned"), Some((Kind::Log, Suffix::Cleaned)));
        assert_eq!(parsed(".snapshot.deleted"), Some((Kind::Snapshot, Suffix::Deleted)));
        assert_eq!(parsed(".log.swap.deleted"), Some((Kind::Log, Suffix::Deleted)));
        for foreign in ["", ".deleted", ".log.deleted.swap", ".checkpoint", ".logs", ".log.tmp", "log", "0.log"] {
            assert_eq!(parsed(foreign), None, "{foreign:?}");
        }
    }

    #[test]
    fn other_numbers_are_not_ours() {
        for name in [
            "7.log",
            "+0000000000000000007.log",
            "-0000000000000000007.log",
            "09223372036854775808.log",
            "0000000000000000000\u{e9}.log",
            "leader-epoch-checkpoint",
        ] {
            assert_eq!(parse_file_name(name), None, "{name}");
        }
    }

    #[test]
    fn directories() {
        assert_eq!(parse_log_dir_name("topic-0"), Ok(("topic", 0)));
        assert_eq!(parse_log_dir_name("a-b.c_D-12"), Ok(("a-b.c_D", 12)));
        assert_eq!(log_dir_name("a-b", 3).unwrap(), "a-b-3");
        let too_long = "x".repeat(250) + "-0";
        for name in [
            "topic",
            "-0",
            "topic-",
            "topic-x",
            "topic-00",
            "topic-+1",
            "topic-2147483648",
            "..-0",
            "a b-0",
            "a/b-0",
            "topic-0.1b2c-delete",
            "topic-0.1b2c-future",
            "topic-0.1b2c-stray",
            too_long.as_str(),
        ] {
            assert!(parse_log_dir_name(name).is_err(), "{name}");
        }
        assert!(log_dir_name("topic", -1).is_err());
        assert!(log_dir_name("a/b", 0).is_err());
    }

    proptest! {
        #[test]
        fn any_name_comes_back(base_offset in 0..=i64::MAX, kind in 0..5usize, suffix in 0..4usize, text: String) {
            let suffix = [Suffix::None, Suffix::Deleted, Suffix::Cleaned, Suffix::Swap][suffix];
            let name = FileName { base_offset, kind: Kind::ALL[kind], suffix };
            prop_assert_eq!(parse_file_name(&name.to_string()), Some(name));
            let _ = (parse_file_name(&text), parse_log_dir_name(&text));
        }
    }
}

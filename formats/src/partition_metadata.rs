//! `partition.metadata`: the topic's id, beside the log.
//!
//! Like Kafka, the reader looks at what follows `: ` on the first two lines and not at the words before it, and lets
//! later versions pass; it refuses an id of zero, which stands for "none".

use alloc::string::String;

use crate::Result;
use crate::checkpoint_text::{is_space, lines, malformed, number};

/// Name of the file in the partition's directory.
pub const FILE_NAME: &str = "partition.metadata";

/// Content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PartitionMetadata {
    /// Version as read, 0 or above; Kafka writes 0.
    pub version: i32,
    /// The topic's id: a UUID, its sixteen bytes in order. Not zero.
    pub topic_id: [u8; 16],
}

/// Reads the file.
///
/// # Errors
/// `BadText` if a line is missing or malformed, the version is negative, or the id is zero or no UUID.
pub fn parse(bytes: &[u8]) -> Result<PartitionMetadata> {
    let mut lines = lines(FILE_NAME, bytes)?.map(|(_, text)| text);
    let version = value(lines.next()).and_then(number).filter(|version: &i32| *version >= 0).ok_or(malformed(
        FILE_NAME,
        1,
        "no version of 0 or above",
    ))?;
    let topic_id = value(lines.next()).and_then(decode_id).filter(|id| *id != [0; 16]).ok_or(malformed(
        FILE_NAME,
        2,
        "no topic id, or zero",
    ))?;
    Ok(PartitionMetadata { version, topic_id })
}

/// The file; it has no final line end.
#[must_use]
pub fn format(metadata: &PartitionMetadata) -> String {
    alloc::format!("version: {}\ntopic_id: {}", metadata.version, encode_id(&metadata.topic_id))
}

/// What stands behind the only colon that white space follows.
fn value(line: Option<&str>) -> Option<&str> {
    let line = line?;
    let colon = line.match_indices(':').find(|(at, _)| line[at + 1..].starts_with(is_space))?.0;
    let value = line[colon + 1..].trim_start_matches(is_space);
    (!value.is_empty() && !value.contains(is_space)).then_some(value)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 22 characters of URL-safe base64 without padding, Kafka's way to print a UUID.
#[must_use]
pub fn encode_id(id: &[u8; 16]) -> String {
    let bits = u128::from_be_bytes(*id);
    // 132 bits in 22 groups of six; the last group holds the last two bits and four zeroes.
    let group = |index: u32| {
        if index == 21 { (bits << 4) & 63 } else { (bits >> (122 - 6 * index)) & 63 }
    };
    (0..22).map(|index| char::from(ALPHABET[group(index) as usize])).collect()
}

/// Reads what [`encode_id`] writes, with or without `==` behind it; the four spare bits are ignored as Java ignores
/// them.
#[must_use]
pub fn decode_id(text: &str) -> Option<[u8; 16]> {
    let text = text.strip_suffix("==").unwrap_or(text).as_bytes();
    if text.len() != 22 {
        return None;
    }
    let mut bits: u128 = 0;
    for (index, character) in text.iter().enumerate() {
        let group = ALPHABET.iter().position(|known| known == character)? as u128;
        bits = if index == 21 { (bits << 2) | (group >> 4) } else { (bits << 6) | group };
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const GOLDEN: &str = "version: 0\ntopic_id: qbGDWdJkQvm6oDmf8vJJWg";

    #[test]
    fn kafkas_own_text_both_ways() {
        let metadata = parse(GOLDEN.as_bytes()).unwrap();
        assert_eq!(hex::encode(metadata.topic_id), "a9b18359d26442f9baa0399ff2f2495a");
        assert_eq!(metadata.version, 0);
        assert_eq!(format(&metadata), GOLDEN);
        assert_eq!(parse(b"version: 1\ntopic_id: qbGDWdJkQvm6oDmf8vJJWg==\nmore\n").unwrap().version, 1);
    }

    #[test]
    fn what_kafka_refuses() {
        for (text, bad_line) in [
            ("", 1),
            ("version: -1\ntopic_id: qbGDWdJkQvm6oDmf8vJJWg", 1),
            ("version:0\ntopic_id: qbGDWdJkQvm6oDmf8vJJWg", 1),
            ("version: 0", 2),
            ("version: 0\ntopic_id: ", 2),
            ("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", 2),
            ("version: 0\ntopic_id: qbGDWdJkQvm6oDmf8vJJW", 2),
            ("version: 0\ntopic_id: qbGDWdJkQvm6oDmf8vJJW+", 2),
        ] {
            let Err(crate::FormatError::BadText { line, .. }) = parse(text.as_bytes()) else { panic!("{text:?}") };
            assert_eq!(line, bad_line, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_id_comes_back(topic_id: [u8; 16], version in 0..i32::MAX) {
            prop_assume!(topic_id != [0; 16]);
            let metadata = PartitionMetadata { version, topic_id };
            prop_assert_eq!(parse(format(&metadata).as_bytes()), Ok(metadata));
        }

        #[test]
        fn any_bytes_parse_or_say_why(bytes: Vec<u8>, text in "version: [0-2]\n[a-z:\u{e4} ]{0,8}") {
            let _ = parse(&bytes);
            let _ = parse(text.as_bytes());
        }
    }
}

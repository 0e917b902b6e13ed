//! The record that decides an atomic batch; its page is in `docs/formats.md`.
//!
//! Only commits are recorded: a batch without a decision was not committed. A part is named by its log and the first offset
//! of its transaction, because that pair never comes again, while producer ids are used over and over.

use oncelog_formats::FormatError;

/// Version of the value.
const VERSION: u16 = 1;
const CUT_SHORT: FormatError = FormatError::InvalidRecord { reason: "a decision that is cut short" };

/// The transaction of an atomic batch in one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    /// Name of the log, `topic-partition`.
    pub log: String,
    /// First offset of the transaction.
    pub first_offset: i64,
}

/// The value of the record.
pub(crate) fn encode(parts: &[Part]) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + parts.len() * 48);
    value.extend(VERSION.to_be_bytes());
    value.extend((parts.len() as u32).to_be_bytes());
    for part in parts {
        value.extend((part.log.len() as u16).to_be_bytes());
        value.extend(part.log.as_bytes());
        value.extend(part.first_offset.to_be_bytes());
    }
    value
}

/// Reads a value. Errors: `BadVersion`, `InvalidRecord`.
pub(crate) fn decode(value: &[u8]) -> Result<Vec<Part>, FormatError> {
    let mut rest = value;
    let version = u16::from_be_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(FormatError::BadVersion { what: "decision", version: version.into() });
    }
    let count = u32::from_be_bytes(take(&mut rest)?);
    let mut parts = Vec::new();
    for _ in 0..count {
        let length = u16::from_be_bytes(take(&mut rest)?);
        let (name, behind) = rest.split_at_checked(length.into()).ok_or(CUT_SHORT)?;
        rest = behind;
        let log = String::from_utf8(name.to_vec());
        let log = log.map_err(|_| FormatError::InvalidRecord { reason: "a log's name that is no text" })?;
        parts.push(Part { log, first_offset: i64::from_be_bytes(take(&mut rest)?) });
    }
    Ok(parts)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (head, behind) = rest.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
    *rest = behind;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_comes_back_and_no_part_of_one_does() {
        let part = |log: &str, first_offset| Part { log: log.into(), first_offset };
        let parts = [part("orders-0", 7), part("positions-12", i64::MAX)];
        let value = encode(&parts);
        assert_eq!(decode(&value), Ok(parts.to_vec()));
        for length in 0..value.len() {
            assert!(decode(&value[..length]).is_err(), "{length} bytes");
        }
        assert!(matches!(decode(&[0, 2, 0, 0, 0, 0]), Err(FormatError::BadVersion { version: 2, .. })));
        assert!(decode(&[0, 1, 0xff, 0xff, 0xff, 0xff]).is_err());
    }
}

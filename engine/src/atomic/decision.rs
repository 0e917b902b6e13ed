//! The record that decides an atomic batch; its page is in `docs/formats.md`.
//!
//! Only commits are recorded: a batch without a decision was not committed. A part is named by its log and the first
//! offset of its transaction, because that pair never comes again unless the log is cut, and then the cut is recorded;
//! producer ids are used over and over.

use oncelog_formats::FormatError;

/// Version of the value.
const VERSION: u16 = 2;
const COMMIT: u16 = 0;
const CUT: u16 = 1;
/// A part without its name and batches.
const PART_BYTES: usize = 14;
const CUT_SHORT: FormatError = FormatError::InvalidRecord { reason: "a decision that is cut short" };

/// What one record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// An atomic batch is committed.
    Commit(Vec<Part>),
    /// A log was cut to this offset. What earlier decisions say of it is over: all of it was durable by then, the
    /// markers too, and a batch whose marker is cut is taken back in this log.
    Cut { log: String, offset: i64 },
}

/// The transaction of an atomic batch in one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Name of the log, `topic-partition`.
    pub log: String,
    /// First offset of the transaction.
    pub first_offset: i64,
    /// Every batch of the log that was not durable, up to the end of the part and perhaps further.
    pub batches: Vec<u8>,
}

impl Decision {
    /// The value of the record.
    pub fn encode(&self) -> Vec<u8> {
        let parts: Vec<(&str, i64, &[u8])> = match self {
            Self::Commit(parts) => {
                parts.iter().map(|part| (&part.log[..], part.first_offset, &part.batches[..])).collect()
            }
            Self::Cut { log, offset } => vec![(log, *offset, &[])],
        };
        let kind = if matches!(self, Self::Commit(_)) { COMMIT } else { CUT };
        let carried: usize = parts.iter().map(|(log, _, batches)| log.len() + batches.len() + PART_BYTES).sum();
        let mut value = Vec::with_capacity(carried + PART_BYTES);
        value.extend(VERSION.to_be_bytes());
        value.extend(kind.to_be_bytes());
        value.extend((parts.len() as u32).to_be_bytes());
        for (log, offset, batches) in parts {
            value.extend((log.len() as u16).to_be_bytes());
            value.extend(log.as_bytes());
            value.extend(offset.to_be_bytes());
            value.extend((batches.len() as u32).to_be_bytes());
            value.extend(batches);
        }
        value
    }

    /// Reads a value. Errors: `BadVersion`, `InvalidRecord`.
    pub fn decode(value: &[u8]) -> Result<Self, FormatError> {
        let mut rest = value;
        let version = u16::from_be_bytes(take(&mut rest)?);
        if version != VERSION {
            return Err(FormatError::BadVersion { what: "decision", version: version.into() });
        }
        let kind = u16::from_be_bytes(take(&mut rest)?);
        let count = u32::from_be_bytes(take(&mut rest)?);
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(take_part(&mut rest)?);
        }
        match kind {
            COMMIT => Ok(Self::Commit(parts)),
            CUT if parts.len() == 1 => {
                let Part { log, first_offset: offset, .. } = parts.remove(0);
                Ok(Self::Cut { log, offset })
            }
            _ => Err(FormatError::InvalidRecord { reason: "a decision of an unknown kind" }),
        }
    }
}

fn take_part(rest: &mut &[u8]) -> Result<Part, FormatError> {
    let length = u16::from_be_bytes(take(rest)?);
    let log = String::from_utf8(take_bytes(rest, length.into())?.to_vec());
    let log = log.map_err(|_| FormatError::InvalidRecord { reason: "a log's name that is no text" })?;
    let first_offset = i64::from_be_bytes(take(rest)?);
    let length = u32::from_be_bytes(take(rest)?);
    Ok(Part { log, first_offset, batches: take_bytes(rest, length as usize)?.to_vec() })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], FormatError> {
    let (head, behind) = rest.split_first_chunk::<N>().ok_or(CUT_SHORT)?;
    *rest = behind;
    Ok(*head)
}

fn take_bytes<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], FormatError> {
    let (head, behind) = rest.split_at_checked(length).ok_or(CUT_SHORT)?;
    *rest = behind;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_comes_back_and_no_part_of_one_does() {
        let part =
            |log: &str, first_offset, batches: &[u8]| Part { log: log.into(), first_offset, batches: batches.into() };
        let commit = Decision::Commit(vec![part("orders-0", 7, b"some batches"), part("positions-12", i64::MAX, b"")]);
        let cut = Decision::Cut { log: "orders-0".into(), offset: 12 };
        for decision in [commit, cut] {
            let value = decision.encode();
            assert_eq!(Decision::decode(&value), Ok(decision));
            for length in 0..value.len() {
                assert!(Decision::decode(&value[..length]).is_err(), "{length} bytes");
            }
        }
        assert!(matches!(Decision::decode(&[0, 3, 0, 0, 0, 0, 0, 0]), Err(FormatError::BadVersion { version: 3, .. })));
        assert!(Decision::decode(&[0, 2, 0, 0, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert!(Decision::decode(&[0, 2, 0, 9, 0, 0, 0, 0]).is_err());
        assert!(Decision::decode(&[0, 2, 0, 1, 0, 0, 0, 0]).is_err());
    }
}

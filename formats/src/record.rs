//! The records of a batch, decoded one at a time and borrowed from the (decompressed) body.
//!
//! The rules are Kafka's: what Kafka refuses is refused here, what it lets pass passes. A batch with a count of 0 has
//! no records whatever its body is, as Kafka does not look at it.

mod builder;
mod parse;
#[cfg(test)]
mod tests;

use alloc::borrow::Cow;

pub use builder::BatchBuilder;
pub use parse::{Headers, Record};

use crate::batch::{BatchHeader, BatchView};
use crate::compress::{Compression, decompress};
use crate::error::{FormatError, Result};

impl<'a> BatchView<'a> {
    /// The records section, decompressed where need be to at most `limit_bytes`.
    ///
    /// Errors of [`decompress`], [`FormatError::UnknownCodec`], and [`FormatError::InvalidRecord`] for a negative
    /// count. The records themselves are checked as they are read. The CRC is not checked.
    pub fn decode(&self, limit_bytes: usize) -> Result<Records<'a>> {
        let header = *self.header();
        let body = match header.compression()? {
            _ if header.record_count < 0 => {
                return Err(FormatError::InvalidRecord { reason: "record count is negative" });
            }
            _ if header.record_count == 0 => Cow::Borrowed(&[][..]),
            Compression::None => Cow::Borrowed(self.body()),
            codec => Cow::Owned(decompress(codec, self.body(), limit_bytes)?),
        };
        Ok(Records { header, body })
    }
}

/// The uncompressed records section of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    header: BatchHeader,
    body: Cow<'a, [u8]>,
}

impl Records<'_> {
    /// The records in order; an error is the last item.
    ///
    /// As many as the header counts: fewer, or bytes behind them, are [`FormatError::InvalidRecord`] like every other
    /// break of the format.
    #[must_use]
    pub fn records(&self) -> RecordIter<'_> {
        RecordIter { header: &self.header, rest: &self.body, remaining: self.header.record_count, ended: false }
    }

    /// Reads all records and gives the first error.
    pub fn validate(&self) -> Result<()> {
        self.records().try_for_each(|record| record.map(drop))
    }

    /// The uncompressed bytes.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

impl<'a> IntoIterator for &'a Records<'_> {
    type Item = Result<Record<'a>>;
    type IntoIter = RecordIter<'a>;

    fn into_iter(self) -> RecordIter<'a> {
        self.records()
    }
}

/// The records of a batch in order; see [`Records::records`].
#[derive(Clone, Debug)]
pub struct RecordIter<'a> {
    header: &'a BatchHeader,
    rest: &'a [u8],
    remaining: i32,
    ended: bool,
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<Record<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        if self.remaining == 0 {
            self.ended = true;
            let behind = FormatError::InvalidRecord { reason: "bytes behind the last record" };
            return (!self.rest.is_empty()).then_some(Err(behind));
        }
        self.remaining -= 1;
        let record = Record::take(&mut self.rest, self.header);
        self.ended = record.is_err();
        Some(record)
    }
}

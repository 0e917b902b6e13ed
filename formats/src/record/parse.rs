//! One record, from bytes.

use crate::batch::{BatchHeader, TimestampType};
use crate::error::{FormatError, Result};
use crate::varint::{take_i32, take_i64};

/// One record; keys, values and headers borrow from the batch's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Always 0 as written today.
    pub attributes: i8,
    /// Its offset in the log.
    pub offset: i64,
    /// Milliseconds; the batch's maximum timestamp where the batch has the broker's clock.
    pub timestamp: i64,
    /// Offset minus the batch's base offset.
    pub offset_delta: i32,
    /// Milliseconds since the batch's base timestamp, as stored.
    pub timestamp_delta: i64,
    /// The key, if any.
    pub key: Option<&'a [u8]>,
    /// The value; a tombstone has none.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

impl<'a> Record<'a> {
    /// Takes the next record off the front of `bytes`.
    pub(super) fn take(bytes: &mut &'a [u8], batch: &BatchHeader) -> Result<Self> {
        let mut rest = *bytes;
        let length = usize::try_from(take_i32(&mut rest)?).map_err(|_| invalid("negative record length"))?;
        let (mut body, rest) = rest.split_at_checked(length).ok_or(invalid("record is cut off"))?;
        let body = &mut body;
        let (&attributes, after) = body.split_first().ok_or(invalid("record is empty"))?;
        *body = after;
        let timestamp_delta = take_i64(body)?;
        let offset_delta = take_i32(body)?;
        let key = take_nullable(body)?;
        let value = take_nullable(body)?;
        let headers = Headers::take(body)?;
        if !body.is_empty() {
            return Err(invalid("record is shorter than its length"));
        }
        let timestamp = match batch.timestamp_type() {
            TimestampType::LogAppendTime => batch.max_timestamp,
            TimestampType::CreateTime => batch.base_timestamp.wrapping_add(timestamp_delta),
        };
        *bytes = rest;
        Ok(Self {
            attributes: attributes as i8,
            offset: batch.base_offset.wrapping_add(i64::from(offset_delta)),
            timestamp,
            offset_delta,
            timestamp_delta,
            key,
            value,
            headers,
        })
    }
}

/// The headers of a record, checked: an iterator over key (UTF-8 by convention, not checked, like Kafka) and value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headers<'a> {
    rest: &'a [u8],
    remaining: usize,
}

impl<'a> Headers<'a> {
    /// Takes count and headers off the front of `bytes`, checking each.
    fn take(bytes: &mut &'a [u8]) -> Result<Self> {
        let count = usize::try_from(take_i32(bytes)?).map_err(|_| invalid("negative header count"))?;
        if count > bytes.len() {
            return Err(invalid("more headers than bytes"));
        }
        let headers = Self { rest: bytes, remaining: count };
        for _ in 0..count {
            take_header(bytes)?;
        }
        Ok(headers)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        take_header(&mut self.rest).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Headers<'_> {}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Result<(&'a [u8], Option<&'a [u8]>)> {
    let key = take_nullable(bytes)?.ok_or(invalid("negative header key length"))?;
    Ok((key, take_nullable(bytes)?))
}

/// Takes a length and as many bytes; any negative length is null.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>> {
    let Ok(length) = usize::try_from(take_i32(bytes)?) else {
        return Ok(None);
    };
    let (field, rest) = bytes.split_at_checked(length).ok_or(invalid("field is longer than its record"))?;
    *bytes = rest;
    Ok(Some(field))
}

fn invalid(reason: &'static str) -> FormatError {
    FormatError::InvalidRecord { reason }
}

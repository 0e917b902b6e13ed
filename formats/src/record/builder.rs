//! Writing batches: what a producer, a coordinator or a compaction would write.
//!
//! Overrides exist so that tests and tools can also write batches that break the rules.

use alloc::vec::Vec;

use crate::batch::{
    BatchHeader, CONTROL, DELETE_HORIZON, HEADER_BYTES, LOG_APPEND_TIME, LOG_OVERHEAD_BYTES, MAGIC, NO_LEADER_EPOCH,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TRANSACTIONAL, TimestampType, seal,
};
use crate::compress::{Compression, compress};
use crate::error::{FormatError, Result};
use crate::varint::{put_i32, put_i64, size_bytes};

/// A header of a record to write: key and value.
pub type HeaderToWrite<'a> = (&'a [u8], Option<&'a [u8]>);

/// Builds one batch. Settings first, then records, then [`BatchBuilder::build`].
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    settings: Settings,
    /// Encoded records behind room for the header.
    bytes: Vec<u8>,
    written: Written,
    error: Option<FormatError>,
}

#[derive(Clone, Debug)]
struct Settings {
    base_offset: i64,
    leader_epoch: i32,
    compression: Compression,
    attributes: i16,
    producer: (i64, i16, i32),
    max_timestamp: Option<i64>,
    last_offset_delta: Option<i32>,
    record_count: Option<i32>,
    delete_horizon: Option<i64>,
}

/// What the records so far mean for the header.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    count: i32,
    last_offset_delta: Option<i32>,
    base_timestamp: Option<i64>,
    max_timestamp: Option<i64>,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// A plain batch at offset 0 without leader epoch and producer.
    #[must_use]
    pub fn new() -> Self {
        let settings = Settings {
            base_offset: 0,
            leader_epoch: NO_LEADER_EPOCH,
            compression: Compression::None,
            attributes: 0,
            producer: (NO_PRODUCER_ID, NO_PRODUCER_EPOCH, NO_SEQUENCE),
            max_timestamp: None,
            last_offset_delta: None,
            record_count: None,
            delete_horizon: None,
        };
        Self { settings, bytes: Vec::new(), written: Written::default(), error: None }
    }

    /// Sets the base offset.
    #[must_use]
    pub fn base_offset(mut self, offset: i64) -> Self {
        self.settings.base_offset = offset;
        self
    }

    /// Sets the leader epoch.
    #[must_use]
    pub fn leader_epoch(mut self, epoch: i32) -> Self {
        self.settings.leader_epoch = epoch;
        self
    }

    /// Sets the codec of the records; an emptied batch never has one.
    #[must_use]
    pub fn compression(mut self, codec: Compression) -> Self {
        self.settings.compression = codec;
        self
    }

    /// Sets whose clock the timestamps are from; the broker's also wants [`BatchBuilder::max_timestamp`].
    #[must_use]
    pub fn timestamp_type(self, kind: TimestampType) -> Self {
        self.flag(LOG_APPEND_TIME, kind == TimestampType::LogAppendTime)
    }

    /// Sets producer id, epoch and sequence of the first record.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        self.settings.producer = (id, epoch, base_sequence);
        self
    }

    /// Sets whether the batch belongs to a transaction.
    #[must_use]
    pub fn transactional(self, on: bool) -> Self {
        self.flag(TRANSACTIONAL, on)
    }

    /// Sets whether the batch holds a control record.
    #[must_use]
    pub fn control(self, on: bool) -> Self {
        self.flag(CONTROL, on)
    }

    /// Sets the maximum timestamp in milliseconds, instead of the largest of the records.
    #[must_use]
    pub fn max_timestamp(mut self, timestamp: i64) -> Self {
        self.settings.max_timestamp = Some(timestamp);
        self
    }

    /// Sets the last offset delta, instead of that of the last record.
    #[must_use]
    pub fn last_offset_delta(mut self, delta: i32) -> Self {
        self.settings.last_offset_delta = Some(delta);
        self
    }

    /// Sets the record count, instead of the true one.
    #[must_use]
    pub fn record_count(mut self, count: i32) -> Self {
        self.settings.record_count = Some(count);
        self
    }

    /// Sets the delete horizon in milliseconds, from which record timestamps then count.
    #[must_use]
    pub fn delete_horizon(mut self, horizon: i64) -> Self {
        self.settings.delete_horizon = Some(horizon);
        self.flag(DELETE_HORIZON, true)
    }

    /// Adds a record (timestamp in milliseconds) at the offset after the last one.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderToWrite<'_>],
    ) -> &mut Self {
        let delta = self.written.last_offset_delta.map_or(0, |last| last.wrapping_add(1));
        self.append_with_delta(delta, timestamp, key, value, headers)
    }

    /// Adds a record at an offset of its own, as compaction leaves them.
    pub fn append_with_delta(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderToWrite<'_>],
    ) -> &mut Self {
        let base = *self.written.base_timestamp.get_or_insert(self.settings.delete_horizon.unwrap_or(timestamp));
        let record = RecordToWrite { timestamp_delta: timestamp.wrapping_sub(base), offset_delta, key, value, headers };
        if self.bytes.is_empty() {
            self.bytes.resize(HEADER_BYTES, 0);
        }
        if let Err(error) = record.put(&mut self.bytes) {
            self.error.get_or_insert(error);
        }
        self.written.count = self.written.count.wrapping_add(1);
        self.written.last_offset_delta = Some(offset_delta);
        self.written.max_timestamp = self.written.max_timestamp.max(Some(timestamp));
        self
    }

    /// The batch, leaving the builder with its settings and no records.
    ///
    /// Without records it is an emptied batch, as compaction leaves: no codec, no base timestamp.
    /// [`FormatError::OutOfRange`] where a record or the batch outgrows 31 bits of length, and errors of [`compress`].
    pub fn build(&mut self) -> Result<Vec<u8>> {
        let mut bytes = core::mem::take(&mut self.bytes);
        let written = core::mem::take(&mut self.written);
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        bytes.resize(bytes.len().max(HEADER_BYTES), 0);
        let compression = if written.count == 0 { Compression::None } else { self.settings.compression };
        if compression != Compression::None {
            let body = compress(compression, &bytes[HEADER_BYTES..])?;
            bytes.truncate(HEADER_BYTES);
            bytes.extend_from_slice(&body);
        }
        let header = self.settings.header(written, compression, bytes.len())?;
        if let Some(room) = bytes.first_chunk_mut() {
            header.encode(room);
        }
        seal(&mut bytes)?;
        Ok(bytes)
    }

    fn flag(mut self, bit: i16, on: bool) -> Self {
        self.settings.attributes = self.settings.attributes & !bit | if on { bit } else { 0 };
        self
    }
}

impl Settings {
    /// The header of a batch of `size_bytes`, its CRC still 0.
    fn header(&self, written: Written, compression: Compression, size_bytes: usize) -> Result<BatchHeader> {
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        Ok(BatchHeader {
            base_offset: self.base_offset,
            batch_length: length("batch length", size_bytes - LOG_OVERHEAD_BYTES)?,
            partition_leader_epoch: self.leader_epoch,
            magic: MAGIC,
            crc: 0,
            attributes: self.attributes | i16::from(compression.id()),
            last_offset_delta: self.last_offset_delta.or(written.last_offset_delta).unwrap_or(0),
            base_timestamp: written.base_timestamp.or(self.delete_horizon).unwrap_or(NO_TIMESTAMP),
            max_timestamp: self.max_timestamp.or(written.max_timestamp).unwrap_or(NO_TIMESTAMP),
            producer_id,
            producer_epoch,
            base_sequence,
            record_count: self.record_count.unwrap_or(written.count),
        })
    }
}

struct RecordToWrite<'a> {
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: &'a [HeaderToWrite<'a>],
}

impl RecordToWrite<'_> {
    fn put(&self, output: &mut Vec<u8>) -> Result<()> {
        let size = self.size_bytes();
        output.reserve(size + 5);
        put_i32(output, length("record length", size)?);
        output.push(0);
        put_i64(output, self.timestamp_delta);
        put_i32(output, self.offset_delta);
        put_nullable(output, self.key);
        put_nullable(output, self.value);
        put_i64(output, self.headers.len() as i64);
        for &(key, value) in self.headers {
            put_nullable(output, Some(key));
            put_nullable(output, value);
        }
        Ok(())
    }

    /// Bytes of the record without its length field.
    fn size_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|&(key, value)| nullable_bytes(Some(key)) + nullable_bytes(value));
        1 + size_bytes(self.timestamp_delta)
            + size_bytes(i64::from(self.offset_delta))
            + nullable_bytes(self.key)
            + nullable_bytes(self.value)
            + size_bytes(self.headers.len() as i64)
            + headers.sum::<usize>()
    }
}

fn put_nullable(output: &mut Vec<u8>, field: Option<&[u8]>) {
    put_i64(output, field.map_or(-1, |field| field.len() as i64));
    output.extend_from_slice(field.unwrap_or_default());
}

fn nullable_bytes(field: Option<&[u8]>) -> usize {
    field.map_or(1, |field| size_bytes(field.len() as i64) + field.len())
}

fn length(what: &'static str, size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| FormatError::OutOfRange { what, value: size as i64 })
}

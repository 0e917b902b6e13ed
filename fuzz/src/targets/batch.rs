//! Batches, their records, codecs and integers.

use oncelog_formats::batch::{HEADER_BYTES, frame_in_memory, set_timestamps, stamp};
use oncelog_formats::compress::{compress, decompress};
use oncelog_formats::control::end_txn_marker_batch;
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::{
    BatchBuilder, BatchHeader, BatchView, Batches, Compression, FormatError, Record, TimestampType, varint as vars,
};

use super::{Outcome, holds, same};

/// Most bytes that any input may decompress to.
pub const LIMIT_BYTES: usize = 1 << 20;
const CODECS: [Compression; 4] = [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// Makes length and checksum of the first batch those of the whole input, and the magic 2.
pub fn repair(input: &mut [u8]) {
    if input.len() < HEADER_BYTES {
        return;
    }
    let length = (input.len() - 12) as u32;
    input[8..12].copy_from_slice(&length.to_be_bytes());
    input[16] = 2;
    let crc = crc32c(&input[21..]);
    input[17..21].copy_from_slice(&crc.to_be_bytes());
}

pub fn batches(input: &[u8]) -> Outcome {
    if let Ok(Some(size)) = frame_in_memory(input) {
        holds("a framed batch is inside the buffer", size <= input.len())?;
    }
    let mut batches = Batches::new(input);
    let (mut bytes, mut decoded) = (0, false);
    while let Some(batch) = batches.next() {
        let Ok(batch) = batch else { break };
        bytes += batch.bytes().len();
        same("the iterator stands behind the batches it gave", &bytes, &batches.position())?;
        header(&batch)?;
        rewrites(&batch)?;
        decoded |= records(&batch)?;
        let _ = batch.control();
    }
    holds("the batches are inside the buffer", bytes <= input.len())?;
    Ok(decoded)
}

fn header(batch: &BatchView<'_>) -> Result<(), String> {
    let header = batch.header();
    let mut encoded = [0; HEADER_BYTES];
    header.encode(&mut encoded);
    same("a header encodes to itself", &&batch.bytes()[..HEADER_BYTES], &&encoded[..])?;
    same("the size is that of the bytes", &batch.bytes().len(), &header.size_bytes())?;
    // Only that they do not panic: any value is right for a field that was made up.
    let _ = (header.last_offset(), header.next_offset(), header.last_sequence(), header.delete_horizon());
    Ok(())
}

fn rewrites(batch: &BatchView<'_>) -> Result<(), String> {
    let mut bytes = batch.bytes().to_vec();
    stamp(&mut bytes, 0x1234_5678_9abc, 77).map_err(|error| error.to_string())?;
    let stamped = BatchView::new(&bytes).map_err(|error| error.to_string())?;
    same("base offset as stamped", &0x1234_5678_9abc, &stamped.header().base_offset)?;
    same("leader epoch as stamped", &77, &stamped.header().partition_leader_epoch)?;
    same("stamping leaves the checksum as it was", &batch.is_valid(), &stamped.is_valid())?;

    let before = bytes.clone();
    match set_timestamps(&mut bytes, TimestampType::LogAppendTime, 4711) {
        Ok(true) => {
            let changed = BatchView::new(&bytes).map_err(|error| error.to_string())?;
            holds("a rewritten batch is valid", changed.is_valid())?;
            same("clock as set", &TimestampType::LogAppendTime, &changed.header().timestamp_type())?;
            same("maximum timestamp as set", &4711, &changed.header().max_timestamp)
        }
        _ => same("what was not rewritten is unchanged", &before, &bytes),
    }
}

/// Rebuilds a batch whose records decode, plain and with every codec, and compares the records.
fn records(batch: &BatchView<'_>) -> Outcome {
    let Ok(records) = batch.decode(LIMIT_BYTES) else {
        return Ok(false);
    };
    if batch.header().compression() != Ok(Compression::None) {
        holds("decompression keeps its limit", records.body().len() <= LIMIT_BYTES)?;
    }
    let Ok(expected) = records.records().collect::<Result<Vec<_>, _>>() else {
        return Ok(false);
    };
    same("as many records as the header counts", &(batch.header().record_count as usize), &expected.len())?;
    for codec in [Compression::None].into_iter().chain(CODECS) {
        let bytes = rebuild(batch.header(), &expected, codec).map_err(|error| format!("rebuilding: {error}"))?;
        let again = BatchView::new(&bytes).map_err(|error| format!("rebuilt: {error}"))?;
        holds("a rebuilt batch is valid", again.is_valid())?;
        // Deltas from another base timestamp can be longer, hence the larger limit.
        let again = again.decode(LIMIT_BYTES * 16).map_err(|error| format!("rebuilt: {error}"))?;
        let found = again.records().collect::<Result<Vec<_>, _>>().map_err(|error| format!("rebuilt: {error}"))?;
        same("as many records", &expected.len(), &found.len())?;
        for (expected, found) in expected.iter().zip(&found) {
            same("a record comes back", &Content::of(expected), &Content::of(found))?;
        }
    }
    Ok(true)
}

fn rebuild(header: &BatchHeader, records: &[Record<'_>], codec: Compression) -> Result<Vec<u8>, FormatError> {
    let mut builder = BatchBuilder::new()
        .base_offset(header.base_offset)
        .compression(codec)
        .timestamp_type(header.timestamp_type())
        .max_timestamp(header.max_timestamp)
        .last_offset_delta(header.last_offset_delta)
        .producer(header.producer_id, header.producer_epoch, header.base_sequence)
        .transactional(header.is_transactional())
        .control(header.is_control());
    for record in records {
        let headers: Vec<_> = record.headers.clone().collect();
        builder.append_with_delta(record.offset_delta, record.timestamp, record.key, record.value, &headers);
    }
    builder.build()
}

/// What a record says, whatever its encoding.
#[derive(Debug, PartialEq)]
struct Content<'a> {
    offset: i64,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
    headers: Vec<(&'a [u8], Option<&'a [u8]>)>,
}

impl<'a> Content<'a> {
    fn of(record: &Record<'a>) -> Self {
        Self {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: record.headers.clone().collect(),
        }
    }
}

/// The input gives the fields of an end-transaction marker: offset, leader epoch and so on, 35 bytes.
pub fn control(input: &[u8]) -> Outcome {
    let Some(fields) = input.first_chunk::<35>() else {
        return Ok(false);
    };
    let long = |at: usize| i64::from_be_bytes(std::array::from_fn(|n| fields[at + n]));
    let int = |at: usize| i32::from_be_bytes(std::array::from_fn(|n| fields[at + n]));
    let (offset, leader_epoch, producer_id) = (long(0), int(8), long(12));
    let epoch = i16::from_be_bytes([fields[20], fields[21]]);
    let (commit, coordinator_epoch, timestamp) = (fields[22] & 1 == 1, int(23), long(27));
    let bytes = end_txn_marker_batch(offset, leader_epoch, producer_id, epoch, commit, coordinator_epoch, timestamp);
    same("a marker's size", &78, &bytes.len())?;
    let batch = BatchView::new(&bytes).map_err(|error| error.to_string())?;
    holds("a marker is valid", batch.is_valid())?;
    let header = batch.header();
    same("a marker's producer", &(producer_id, epoch), &(header.producer_id, header.producer_epoch))?;
    same("a marker's place", &(offset, leader_epoch), &(header.base_offset, header.partition_leader_epoch))?;
    let control = batch.control().map_err(|error| error.to_string())?;
    let marker = control.marker.map(|marker| (marker.commit, marker.coordinator_epoch));
    same("what a marker says", &(Some((commit, coordinator_epoch)), timestamp), &(marker, control.timestamp))?;
    Ok(true)
}

pub fn codecs(input: &[u8]) -> Outcome {
    let mut decoded = false;
    for codec in CODECS {
        if let Ok(output) = decompress(codec, input, LIMIT_BYTES) {
            decoded = true;
            holds("decompression keeps its limit", output.len() <= LIMIT_BYTES)?;
        }
        let packed = compress(codec, input).map_err(|error| error.to_string())?;
        same("compressed bytes come back", &Ok(input.to_vec()), &decompress(codec, &packed, input.len()))?;
        if let Some(less) = input.len().checked_sub(1) {
            holds("a limit one byte short is kept", decompress(codec, &packed, less).is_err())?;
        }
    }
    Ok(decoded)
}

pub fn varint(input: &[u8]) -> Outcome {
    let mut rest = input;
    let int = vars::take_i32(&mut rest);
    holds("an i32 takes at most five bytes, or none", input.len() - rest.len() <= if int.is_ok() { 5 } else { 0 })?;
    if let Ok(value) = int {
        let mut bytes = Vec::new();
        vars::put_i32(&mut bytes, value);
        same("an i32 comes back", &Ok(value), &vars::take_i32(&mut bytes.as_slice()))?;
        same("the size of an i32", &bytes.len(), &vars::size_bytes(value.into()))?;
    }
    let mut rest = input;
    let long = vars::take_i64(&mut rest);
    holds("an i64 takes at most ten bytes, or none", input.len() - rest.len() <= if long.is_ok() { 10 } else { 0 })?;
    if let Ok(value) = long {
        let mut bytes = Vec::new();
        vars::put_i64(&mut bytes, value);
        same("an i64 comes back", &Ok(value), &vars::take_i64(&mut bytes.as_slice()))?;
        same("the size of an i64", &bytes.len(), &vars::size_bytes(value))?;
    }
    Ok(int.is_ok() || long.is_ok())
}

//! Batches of a script to bytes.
//!
//! A described batch is built even if it makes no sense: the records are written as a plain batch, and the producer
//! fields, the attribute bits and the last offset delta are then set in its header. Refused, as by Kafka's own builder
//! (the script's `INVALID_REQUEST`), is only what cannot be written as a sequence of records: offsets that do not
//! increase, negative times, unknown codecs.

use super::answer::{Refusal, Stop};
use super::script::{self, Fields};
use oncelog_formats::batch::HEADER_BYTES;
use oncelog_formats::control::end_txn_marker_batch;
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::{BatchBuilder, BatchHeader, Compression};
use serde_json::Value;

const MARKER: [&str; 7] = [
    "control",
    "producer_id",
    "producer_epoch",
    "coordinator_epoch",
    "timestamp",
    "base_offset",
    "partition_leader_epoch",
];
const DATA: [&str; 11] = [
    "producer_id",
    "producer_epoch",
    "base_sequence",
    "transactional",
    "compression",
    "timestamp_type",
    "base_offset",
    "partition_leader_epoch",
    "records",
    "offset_deltas",
    "last_offset_delta",
];
const RECORD: [&str; 4] = ["key", "value", "headers", "timestamp"];

const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
/// The checksum covers everything behind itself.
const CRC_COVERS_FROM: usize = 21;

/// What an append gives to the batches in it.
#[derive(Clone, Copy)]
pub struct Setting {
    /// The log assigns offsets and epochs: the batches' own count for nothing.
    pub assigned: bool,
    /// Epoch of the append.
    pub leader_epoch: i32,
    /// The script's clock, ms: the default timestamp.
    pub now_ms: i64,
}

/// One byte string of all batches, in order.
pub fn build(batches: &[Value], setting: Setting) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    for batch in batches {
        bytes.extend(one(batch, setting)?);
    }
    Ok(bytes)
}

fn one(batch: &Value, setting: Setting) -> Result<Vec<u8>, Stop> {
    if batch.get("hex").is_some() {
        let fields = Fields::new(batch, "a batch in hex", &["hex"])?;
        return Ok(fields.hex("hex")?.unwrap_or_default());
    }
    let is_marker = batch.get("control").is_some();
    let fields =
        if is_marker { Fields::new(batch, "a marker", &MARKER)? } else { Fields::new(batch, "a batch", &DATA)? };
    let epoch = if setting.assigned { -1 } else { setting.leader_epoch };
    let place = Place {
        epoch: fields.small("partition_leader_epoch", epoch)?,
        base: fields.integer("base_offset")?.filter(|_| !setting.assigned).unwrap_or(0),
    };
    if is_marker { marker(fields, place) } else { data(fields, place, setting.now_ms) }
}

/// Where a batch says that it stands.
#[derive(Clone, Copy)]
struct Place {
    base: i64,
    epoch: i32,
}

fn marker(fields: Fields<'_>, place: Place) -> Result<Vec<u8>, Stop> {
    let commit = fields.word("control", &[("commit", true), ("abort", false)])?;
    let id = fields.required("producer_id")?;
    let epoch = fields.small("producer_epoch", 0i16)?;
    let coordinator = fields.small("coordinator_epoch", 0i32)?;
    let timestamp = fields.small("timestamp", 0i64)?;
    if id == -1 || epoch == -1 || timestamp < -1 {
        return Err(Refusal::invalid_request("a marker needs a producer id, an epoch and a time").into());
    }
    Ok(end_txn_marker_batch(place.base, place.epoch, id, epoch, commit, coordinator, timestamp))
}

fn data(fields: Fields<'_>, place: Place, now_ms: i64) -> Result<Vec<u8>, Stop> {
    let codec = fields.text("compression")?.unwrap_or("none");
    let log_append = fields.word("timestamp_type", &[("create", false), ("log_append", true)])?;
    let transactional = fields.flag("transactional", false)?;
    let mut bytes = records(fields, place, codec, now_ms)?;
    let mut header = BatchHeader::parse(&bytes)?;
    header.attributes |= if transactional { TRANSACTIONAL } else { 0 };
    header.attributes |= if log_append { LOG_APPEND_TIME } else { 0 };
    header.last_offset_delta = fields.small("last_offset_delta", header.last_offset_delta)?;
    header.producer_id = fields.small("producer_id", -1i64)?;
    header.producer_epoch = fields.small("producer_epoch", -1i16)?;
    header.base_sequence = fields.small("base_sequence", -1i32)?;
    seal(&mut bytes, header);
    Ok(bytes)
}

/// Writes the header with the checksum that belongs to it.
fn seal(bytes: &mut [u8], mut header: BatchHeader) {
    let mut head = [0; HEADER_BYTES];
    header.encode(&mut head);
    bytes[..HEADER_BYTES].copy_from_slice(&head);
    header.crc = crc32c(&bytes[CRC_COVERS_FROM..]);
    header.encode(&mut head);
    bytes[..HEADER_BYTES].copy_from_slice(&head);
}

/// The records as a plain batch of no producer; without records the bare header that compaction leaves.
fn records(fields: Fields<'_>, place: Place, codec: &str, now_ms: i64) -> Result<Vec<u8>, Stop> {
    let records = fields.required_list("records")?;
    let deltas = fields.list("offset_deltas")?;
    let codec =
        Compression::from_name(codec).map_err(|_| Refusal::invalid_request(format!("unknown compression {codec}")))?;
    let mut builder = BatchBuilder::new().base_offset(place.base).leader_epoch(place.epoch).compression(codec);
    let mut last = -1;
    for (i, record) in records.iter().enumerate() {
        let delta = match deltas {
            None => i32::try_from(i).ok(),
            Some(deltas) => deltas.get(i).and_then(Value::as_i64).and_then(|delta| i32::try_from(delta).ok()),
        };
        let delta =
            delta.ok_or_else(|| script::Mistake::new(format!("'offset_deltas' has no integer for record {i}")))?;
        if i64::from(delta) <= last {
            return Err(Refusal::invalid_request(format!("offset delta {delta} behind {last}")).into());
        }
        last = i64::from(delta);
        append(&mut builder, delta, record, now_ms)?;
    }
    Ok(builder.build()?)
}

fn append(builder: &mut BatchBuilder, delta: i32, record: &Value, now_ms: i64) -> Result<(), Stop> {
    let fields = Fields::new(record, "a record", &RECORD)?;
    let timestamp = fields.small("timestamp", now_ms)?;
    if timestamp < -1 {
        return Err(Refusal::invalid_request(format!("negative timestamp {timestamp}")).into());
    }
    let key = script::bytes(fields.get("key"), "a key")?;
    let value = script::bytes(fields.get("value"), "a value")?;
    let headers = headers(fields)?;
    let headers: Vec<_> = headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref())).collect();
    builder.append_with_delta(delta, timestamp, key.as_deref(), value.as_deref(), &headers);
    Ok(())
}

type OwnedHeader = (Vec<u8>, Option<Vec<u8>>);

fn headers(fields: Fields<'_>) -> Result<Vec<OwnedHeader>, script::Mistake> {
    let wrong = || script::Mistake::new("a header is not a pair of key and value");
    let mut headers = Vec::new();
    for header in fields.list("headers")?.unwrap_or_default() {
        let [key, value] = header.as_array().map(Vec::as_slice).ok_or_else(wrong)? else {
            return Err(wrong());
        };
        let key = script::bytes(Some(key), "a header key")?.ok_or_else(wrong)?;
        headers.push((key, script::bytes(Some(value), "a header value")?));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_formats::BatchView;
    use serde_json::json;

    const SETTING: Setting = Setting { assigned: false, leader_epoch: 4, now_ms: 50 };

    #[test]
    fn a_plain_batch_has_the_bytes_of_kafkas_builder() {
        let batch = json!({"records": [{"key": "k", "value": "v0", "timestamp": 0}]});
        let bytes = build(&[batch], Setting { assigned: true, ..SETTING }).unwrap();
        let header = *BatchView::new(&bytes).unwrap().header();
        // The checksum that Kafka answers for this batch in the scripts of testdata.
        assert_eq!((header.crc, bytes.len(), header.partition_leader_epoch), (2_114_608_634, 71, -1));
    }

    #[test]
    fn a_senseless_batch_is_built_with_a_right_checksum() {
        let batch =
            json!({"records": [], "transactional": true, "producer_id": -1, "last_offset_delta": -3, "base_offset": 7});
        let bytes = build(&[batch], SETTING).unwrap();
        let view = BatchView::new(&bytes).unwrap();
        let header = view.header();
        assert!(view.is_valid());
        assert_eq!((header.base_offset, header.last_offset_delta, header.partition_leader_epoch), (7, -3, 4));
        assert!(header.is_transactional());
    }

    #[test]
    fn offsets_that_fall_back_are_refused_and_unknown_fields_are_mistakes() {
        let batch = json!({"records": [{}, {}], "offset_deltas": [1, 1]});
        assert!(matches!(build(&[batch], SETTING), Err(Stop::Refused(_))));
        let batch = json!({"records": [{"keys": "k"}]});
        assert!(matches!(build(&[batch], SETTING), Err(Stop::Mistake(_))));
    }
}

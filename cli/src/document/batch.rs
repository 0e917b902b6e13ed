//! One batch as `dump`, `state` and `read` show it.

use super::canonical::{self, DECODE_LIMIT_BYTES};
use super::text;
use oncelog_formats::control::ControlRecord;
use oncelog_formats::record::Record;
use oncelog_formats::{BatchView, FormatError};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// All header fields, what the control record says, and the digest of the records. `position` is the byte in the
/// segment, `None` where the batch does not come from one. Undecodable records leave `records_sha` null and say why in
/// `records_error`.
pub fn batch(batch: &BatchView<'_>, position: Option<u64>) -> Map<String, Value> {
    let header = batch.header();
    let mut m = Map::new();
    let mut put = |name: &str, value: Value| {
        m.insert(name.to_owned(), value);
    };
    put("base_offset", header.base_offset.into());
    put("last_offset", header.last_offset().into());
    if let Some(position) = position {
        put("position", position.into());
    }
    put("size", header.size_bytes().into());
    put("magic", header.magic.into());
    put("crc", header.crc.into());
    put("valid", batch.is_valid().into());
    put("compression", header.compression().map_or(Value::Null, |codec| codec.name().into()));
    put("timestamp_type", header.timestamp_type().name().into());
    put("max_timestamp", header.max_timestamp.into());
    put("base_timestamp", header.base_timestamp.into());
    put("delete_horizon", header.delete_horizon().unwrap_or(-1).into());
    put("attributes", header.attributes.into());
    put("producer_id", header.producer_id.into());
    put("producer_epoch", header.producer_epoch.into());
    put("base_sequence", header.base_sequence.into());
    put("last_sequence", header.last_sequence().into());
    put("partition_leader_epoch", header.partition_leader_epoch.into());
    put("transactional", header.is_transactional().into());
    put("control", header.is_control().into());
    if header.is_control()
        && let Ok(control) = batch.control()
    {
        put_control(&control, &mut put);
    }
    put("record_count", header.record_count.into());
    match records_sha(batch) {
        Ok(sha) => put("records_sha", sha.into()),
        Err(error) => {
            put("records_sha", Value::Null);
            put("records_error", error.to_string().into());
        }
    }
    m
}

/// As [`batch`], with the decoded `records`.
pub fn with_records(view: &BatchView<'_>) -> Map<String, Value> {
    let mut m = batch(view, None);
    if let Ok(records) = records(view) {
        m.insert("records".into(), records.into());
    }
    m
}

fn put_control(control: &ControlRecord, put: &mut impl FnMut(&str, Value)) {
    put("control_type", control.kind.name().into());
    if let Some(marker) = control.marker {
        put("coordinator_epoch", marker.coordinator_epoch.into());
    }
}

/// First 16 hex digits of the SHA-256 over the canonical text of the records.
fn records_sha(batch: &BatchView<'_>) -> Result<String, FormatError> {
    let mut digest = Sha256::new();
    for record in batch.decode(DECODE_LIMIT_BYTES)?.records() {
        canonical::update(&mut digest, &record?);
    }
    let mut sha = hex::encode(digest.finalize());
    sha.truncate(16);
    Ok(sha)
}

fn records(batch: &BatchView<'_>) -> Result<Vec<Value>, FormatError> {
    batch.decode(DECODE_LIMIT_BYTES)?.records().map(|record| Ok(self::record(&record?))).collect()
}

fn record(record: &Record<'_>) -> Value {
    let headers: Vec<Value> =
        record.headers.clone().map(|(key, value)| json!([text::bytes(key), text::optional(value)])).collect();
    json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text::optional(record.key),
        "value": text::optional(record.value),
        "headers": headers,
    })
}

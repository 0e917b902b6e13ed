//! A log as one JSON document: what `dump --json` prints and `state` of `play` answers.
//!
//! The fields and digests are those of `testdata/kafka/golden/README.md`, which Kafka's own loader fills for the same
//! directories. Everything comes from [`LogState`] and the log's own reads; nothing here knows a file.

mod batch;
mod canonical;
mod producers;
mod text;

pub use batch::with_records;
pub use producers::producer;

use oncelog::{Error, Log, LogState, SegmentState, SnapshotState};
use oncelog_formats::Batches;
use oncelog_formats::txn_index::AbortedTxn;
use serde_json::{Map, Value, json};

/// Builds the document of an open log. `partition` is the directory's name; `snapshots` replaces the snapshot files as
/// they are now (`dump` shows them as they were before loading).
///
/// # Errors
/// What describing the log or reading its segments answers.
pub fn build(log: &Log, partition: &str, snapshots: Option<&[SnapshotState]>) -> Result<Map<String, Value>, Error> {
    let state = &log.describe()?;
    let mut m = Map::new();
    m.insert("partition".into(), partition.into());
    m.insert("clean".into(), state.clean.into());
    offsets(state, &mut m);
    let segments = state.segments.iter().map(|segment| self::segment(log, segment)).collect::<Result<Vec<_>, _>>()?;
    m.insert("segments".into(), segments.into());
    let epochs: Vec<Value> = state.leader_epochs.iter().map(|entry| json!([entry.epoch, entry.start_offset])).collect();
    m.insert("leader_epochs".into(), epochs.into());
    let snapshots = snapshots.unwrap_or(&state.snapshots);
    m.insert("snapshots".into(), snapshots.iter().map(producers::snapshot).collect());
    producers::remembered(&state.producers, &mut m);
    m.insert("open_transactions".into(), producers::open_transactions(&state.producers).into());
    m.insert("aborted_transactions_from_start".into(), aborted_from_start(state).into());
    m.insert("read_uncommitted".into(), canonical::consume(log, state, None));
    m.insert("read_committed".into(), canonical::consume(log, state, Some(&aborted(state))));
    m.insert("max_timestamp".into(), max_timestamp(log));
    // A hex text: JSON readers lose bits of whole numbers above 2^53.
    m.insert("digest".into(), format!("{:016x}", state.digest).into());
    Ok(m)
}

/// Every aborted transaction that the indexes know.
fn aborted(state: &LogState) -> Vec<AbortedTxn> {
    state.segments.iter().flat_map(|segment| segment.txn_index.iter().copied()).collect()
}

fn offsets(state: &LogState, m: &mut Map<String, Value>) {
    let mut put = |name: &str, offset: i64| {
        m.insert(name.to_owned(), offset.into());
    };
    put("log_start_offset", state.log_start_offset);
    put("log_end_offset", state.log_end_offset);
    put("recovery_point", state.recovery_point);
    put("high_watermark", state.high_watermark);
    put("last_stable_offset", state.last_stable_offset);
    put("first_unstable_offset", state.first_unstable_offset.unwrap_or(-1));
}

fn segment(log: &Log, segment: &SegmentState) -> Result<Value, Error> {
    let bytes = log.read_segment(segment.base_offset)?;
    let mut batches = Vec::new();
    let mut position = 0u64;
    let mut unreadable = None;
    for view in Batches::new(&bytes) {
        match view {
            Ok(view) => {
                batches.push(Value::Object(batch::batch(&view, Some(position))));
                position += view.bytes().len() as u64;
            }
            Err(error) => unreadable = Some(json!({ "position": position, "reason": error.to_string() })),
        }
    }
    let offsets: Vec<Value> = segment.offset_index.iter().map(|entry| json!([entry.offset, entry.position])).collect();
    let times: Vec<Value> = segment.time_index.iter().map(|entry| json!([entry.timestamp, entry.offset])).collect();
    let aborted: Vec<Value> = segment.txn_index.iter().map(aborted_txn).collect();
    let mut m = Map::new();
    m.insert("base_offset".into(), segment.base_offset.into());
    m.insert("size".into(), segment.size_bytes.into());
    m.insert("next_offset".into(), segment.next_offset.into());
    m.insert("max_timestamp_so_far".into(), segment.max_timestamp.into());
    m.insert("batch_count".into(), batches.len().into());
    m.insert("batches".into(), batches.into());
    if let Some(unreadable) = unreadable {
        m.insert("unreadable".into(), unreadable);
    }
    m.insert("offset_index".into(), offsets.into());
    m.insert("time_index".into(), times.into());
    m.insert("txn_index".into(), aborted.into());
    Ok(Value::Object(m))
}

fn aborted_txn(txn: &oncelog_formats::txn_index::AbortedTxn) -> Value {
    json!({
        "producer_id": txn.producer_id,
        "first_offset": txn.first_offset,
        "last_offset": txn.last_offset,
        "last_stable_offset": txn.last_stable_offset,
    })
}

/// Kafka's `collectAbortedTransactions(log start, log end)`: what overlaps the range, up to the entry whose last stable
/// offset shows that nothing behind it can.
fn aborted_from_start(state: &LogState) -> Vec<Value> {
    let (from, to) = (state.log_start_offset, state.log_end_offset);
    let first = state.segments.iter().rposition(|segment| segment.base_offset <= from).unwrap_or(0);
    let mut found = Vec::new();
    for txn in state.segments[first.min(state.segments.len())..].iter().flat_map(|segment| &segment.txn_index) {
        if txn.last_offset >= from && txn.first_offset < to {
            found.push(aborted_txn(txn));
        }
        if txn.last_stable_offset >= to {
            break;
        }
    }
    found
}

/// `[offset, timestamp]` of the record with the largest timestamp, `[-1, -1]` where there is none.
fn max_timestamp(log: &Log) -> Value {
    match log.offset_for_timestamp(-3) {
        Ok(Some((offset, timestamp))) => json!([offset, timestamp]),
        _ => json!([-1, -1]),
    }
}

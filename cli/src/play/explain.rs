//! `explain`: why the last stable offset stands where it stands, and what is known of a producer.

use super::answer::Answer;
use super::script::Fields;
use super::session::Session;
use crate::document;
use oncelog::{Error, Log, LogState, ProducerEntry};
use oncelog_formats::Batches;
use serde_json::{Map, Value, json};

#[derive(Clone, Copy)]
enum What {
    LastStableOffset,
    Producer,
}

/// Answers `explain`.
pub fn explain(session: &Session, fields: Fields<'_>) -> Answer {
    fields.required_text("what")?;
    let what = fields.word("what", &[("last_stable_offset", What::LastStableOffset), ("producer", What::Producer)])?;
    let id = match what {
        What::LastStableOffset => fields.integer("producer_id")?,
        What::Producer => Some(fields.required("producer_id")?),
    };
    let log = session.log()?;
    let state = log.describe()?;
    match (what, id) {
        (What::Producer, Some(id)) => Ok(producer(id, &state)),
        _ => Ok(last_stable_offset(log, &state)?),
    }
}

fn entry(state: &LogState, id: i64) -> Option<&ProducerEntry> {
    state.producers.iter().find(|(known, _)| *known == id).map(|(_, entry)| entry)
}

fn producer(id: i64, state: &LogState) -> Value {
    let mut m = match entry(state, id).map(|entry| (document::producer(id, entry), entry)) {
        Some((Value::Object(mut m), entry)) => {
            m.insert("last_append_ms".into(), entry.last_append_ms.into());
            m
        }
        _ => Map::from_iter([("producer_id".to_owned(), id.into())]),
    };
    m.insert("known".into(), entry(state, id).is_some().into());
    Value::Object(m)
}

fn last_stable_offset(log: &Log, state: &LogState) -> Result<Value, Error> {
    let (held_by, released_by) = match state.first_unstable_offset {
        Some(first) if first < state.high_watermark => holder(log, state, first)?,
        _ => (Value::Null, "nothing holds it back: it is the high watermark".to_owned()),
    };
    Ok(json!({
        "last_stable_offset": state.last_stable_offset,
        "high_watermark": state.high_watermark,
        "held_by": held_by,
        "released_by": released_by,
    }))
}

/// The transaction that starts at `first`: still open, or ended by a marker that the high watermark has not passed.
fn holder(log: &Log, state: &LogState, first: i64) -> Result<(Value, String), Error> {
    if let Some((id, first)) = state.open_transactions.iter().find(|(_, offset)| *offset <= first) {
        let entry = entry(state, *id);
        let held_by = json!({
            "producer_id": id,
            "first_offset": first,
            "epoch": entry.map(|entry| entry.epoch),
            "coordinator_epoch": entry.map(|entry| entry.coordinator_epoch),
            "last_timestamp": entry.map(|entry| entry.last_timestamp),
            "state": "open",
        });
        let released_by = format!("a COMMIT or ABORT marker for producer {id}, and the high watermark passing it");
        return Ok((held_by, released_by));
    }
    Ok(match decided(log, state, first)? {
        Some((held_by, released_by)) => (held_by, released_by),
        None => (Value::Null, "the high watermark passing the marker of the transaction".to_owned()),
    })
}

/// Producer of the batch at `first` and the marker that ended its transaction, as the log has them.
fn decided(log: &Log, state: &LogState, first: i64) -> Result<Option<(Value, String)>, Error> {
    let from = state.segments.iter().rposition(|segment| segment.base_offset <= first).unwrap_or(0);
    let mut holder = None;
    for segment in state.segments.iter().skip(from) {
        let bytes = log.read_segment(segment.base_offset)?;
        for batch in Batches::new(&bytes).map_while(Result::ok) {
            let header = *batch.header();
            if header.last_offset() < first || !header.is_transactional() {
                continue;
            }
            let (id, epoch) = *holder.get_or_insert((header.producer_id, header.producer_epoch));
            if id == header.producer_id && header.is_control() {
                let marker = batch.control().map_or("unknown", |control| control.kind.name());
                let held_by = json!({
                    "producer_id": id,
                    "first_offset": first,
                    "epoch": epoch,
                    "marker": marker,
                    "marker_offset": header.base_offset,
                    "state": "decided",
                });
                let released_by = format!(
                    "the high watermark passing offset {}, where its {marker} marker stands",
                    header.base_offset
                );
                return Ok(Some((held_by, released_by)));
            }
        }
    }
    Ok(None)
}

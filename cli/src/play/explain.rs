//! `explain`: why the last stable offset stands where it stands, and what is known of a producer.

use super::answer::Answer;
use super::script::Fields;
use super::session::Session;
use crate::document;
use crate::transactions;
use oncelog::{LogState, ProducerEntry};
use serde_json::{Map, Value};

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
    match (what, id) {
        (What::Producer, Some(id)) => Ok(producer(id, &log.describe()?)),
        _ => Ok(transactions::explain::document(&log.explain()?)),
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

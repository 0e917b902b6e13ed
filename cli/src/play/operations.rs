//! The operations on an open log: each is one call of the engine's front door, with fields in and an answer out.

use super::answer::{Answer, Stop};
use super::batches::{self, Setting};
use super::explain;
use super::script::{Fields, Mistake};
use super::session::Session;
use crate::document;
use oncelog::{Ack, Append, Isolation, Outcome, Read};
use oncelog_formats::Batches;
use oncelog_snapshot::Origin;
use serde_json::{Map, Value, json};

const ORIGINS: [(&str, Origin); 4] = [
    ("client", Origin::Client),
    ("coordinator", Origin::Coordinator),
    ("raft_leader", Origin::RaftLeader),
    ("replica", Origin::Replication),
];
const ACKS: [(&str, Ack); 3] = [("durable", Ack::Durable), ("written", Ack::Written), ("accepted", Ack::Accepted)];
const ISOLATIONS: [(&str, Isolation); 3] =
    [("uncommitted", Isolation::Uncommitted), ("committed", Isolation::Committed), ("log_end", Isolation::LogEnd)];

/// Answers one operation; an unknown one is a mistake.
pub fn perform(session: &mut Session, op: &str, line: &Value) -> Answer {
    let known = |names: &[&str]| Fields::new(line, op, &[&["op"], names].concat());
    match op {
        "append" => append(session, known(&["as", "batches", "ack", "leader_epoch", "guard"])?),
        "start_verification" => start_verification(session, known(&["producer_id", "sequence", "epoch"])?),
        "read" => read(session, known(&["offset", "max_bytes", "isolation", "at_least_one"])?),
        "offset_for_timestamp" => offset_for_timestamp(session, known(&["timestamp"])?),
        "end_offset_for_epoch" => end_offset_for_epoch(session, known(&["epoch"])?),
        "set_high_watermark" => {
            let offset = known(&["offset"])?.required("offset")?;
            Ok(json!({ "high_watermark": session.log()?.set_high_watermark(offset)? }))
        }
        "delete_records" => {
            let before = known(&["before_offset"])?.required("before_offset")?;
            Ok(json!({ "log_start_offset": session.log()?.delete_records(before)? }))
        }
        "truncate_to" => truncate_to(session, known(&["offset"])?),
        "truncate_fully_and_start_at" => truncate_fully(session, known(&["offset", "log_start"])?),
        "explain" => explain::explain(session, known(&["what", "producer_id"])?),
        _ => plain(session, op, line),
    }
}

/// Operations without fields.
fn plain(session: &mut Session, op: &str, line: &Value) -> Answer {
    let names = ["apply_retention", "roll", "sync", "snapshot", "expire_producers", "state"];
    if !names.contains(&op) {
        return Err(Mistake::new(format!("unknown operation '{op}'")).into());
    }
    Fields::new(line, op, &["op"])?;
    let log = session.log()?;
    Ok(match op {
        "apply_retention" => json!({ "deleted_segments": log.apply_retention()? }),
        "sync" => json!({ "recovery_point": log.sync()? }),
        "snapshot" => json!({ "offset": log.snapshot()? }),
        "expire_producers" => json!({ "expired": log.expire_producers()? }),
        "state" => Value::Object(document::build(log, &session.opened()?.name, None)?),
        _ => {
            let base = log.roll()?;
            session.growth.grew(base, session.now_ms());
            json!({ "base_offset": base })
        }
    })
}

fn append(session: &mut Session, fields: Fields<'_>) -> Answer {
    let log = session.log()?;
    let origin = fields.word("as", &ORIGINS)?;
    let leader_epoch = fields.small("leader_epoch", 0)?;
    let setting = Setting {
        assigned: matches!(origin, Origin::Client | Origin::Coordinator),
        leader_epoch,
        now_ms: session.now_ms(),
    };
    let ack = fields.word("ack", &ACKS)?;
    let guard = fields.integer("guard")?.map(|number| session.guards.guard(number));
    let batches = batches::build(fields.required_list("batches")?, setting)?;
    let append = Append {
        batches: &batches,
        origin,
        ack,
        leader_epoch,
        txn_version: Some(session.settings.transaction_version),
        guard,
        client_id: None,
    };
    let appended = log.append(append)?.wait()?;
    if appended.outcome == Outcome::Appended {
        session.growth.grew(appended.base_offset, session.now_ms());
    }
    let outcome = match appended.outcome {
        Outcome::Appended => "appended",
        Outcome::Duplicate => "duplicate",
        Outcome::Nothing => "nothing",
    };
    Ok(json!({
        "outcome": outcome,
        "base_offset": appended.base_offset,
        "last_offset": appended.last_offset,
        "log_append_time": appended.log_append_time,
        "log_start_offset": appended.log_start_offset,
    }))
}

fn start_verification(session: &mut Session, fields: Fields<'_>) -> Answer {
    let log = session.log()?;
    let id = fields.required("producer_id")?;
    let (sequence, epoch) = (fields.required("sequence")?, fields.required("epoch")?);
    let wrong = |name: &str| Mistake::new(format!("field '{name}' of start_verification is out of range"));
    let sequence = i32::try_from(sequence).map_err(|_| wrong("sequence"))?;
    let epoch = i16::try_from(epoch).map_err(|_| wrong("epoch"))?;
    let version = session.settings.transaction_version;
    Ok(match log.start_verification(id, sequence, epoch, version)? {
        Some(guard) => json!({ "guard": session.guards.number(guard) }),
        None => json!({ "guard": "none needed" }),
    })
}

fn read(session: &mut Session, fields: Fields<'_>) -> Answer {
    let log = session.log()?;
    let read = Read {
        offset: fields.required("offset")?,
        max_bytes: fields.small("max_bytes", 1 << 20)?,
        isolation: fields.word("isolation", &ISOLATIONS)?,
        at_least_one: fields.flag("at_least_one", true)?,
    };
    let fetched = log.read(read)?;
    let mut batches = Vec::new();
    for batch in Batches::new(&fetched.data) {
        batches.push(Value::Object(document::with_records(&batch?)));
    }
    let aborted: Vec<Value> = fetched
        .aborted
        .iter()
        .map(|(producer_id, first_offset)| json!({ "producer_id": producer_id, "first_offset": first_offset }))
        .collect();
    Ok(json!({
        "batches": batches,
        "aborted": aborted,
        "high_watermark": fetched.high_watermark,
        "last_stable_offset": fetched.last_stable_offset,
    }))
}

fn offset_for_timestamp(session: &Session, fields: Fields<'_>) -> Answer {
    let timestamp = fields.required("timestamp")?;
    let mut found = Map::new();
    if let Some((offset, timestamp)) = session.log()?.offset_for_timestamp(timestamp)? {
        found.insert("offset".into(), offset.into());
        found.insert("timestamp".into(), timestamp.into());
    }
    Ok(Value::Object(found))
}

fn end_offset_for_epoch(session: &Session, fields: Fields<'_>) -> Answer {
    fields.required("epoch")?;
    let (epoch, end_offset) = session.log()?.end_offset_for_epoch(fields.small("epoch", 0)?);
    Ok(json!({ "epoch": epoch, "end_offset": end_offset }))
}

fn truncate_to(session: &mut Session, fields: Fields<'_>) -> Answer {
    let end = session.log()?.truncate_to(fields.required("offset")?)?;
    cut(session, end)
}

fn truncate_fully(session: &mut Session, fields: Fields<'_>) -> Answer {
    let log_start = fields.integer("log_start")?;
    let end = session.log()?.truncate_fully_and_start_at(fields.required("offset")?, log_start)?;
    cut(session, end)
}

fn cut(session: &mut Session, end: i64) -> Result<Value, Stop> {
    session.growth.cut(end, session.now_ms());
    Ok(json!({ "log_end_offset": end }))
}

//! Answers of `play` against expected ones: equal but for a few narrow differences that are meant.
//!
//! A subset of the rules of `testdata/kafka/tools/compare.py`, which says more about each: messages and the report of
//! `open` are not compared; `state` and batches may have more fields; a recovery point may be higher; after a reopening
//! or a truncation indexes may be of another density and a producer's batches more, up to five; snapshots count only at
//! segment bases.

use serde_json::Value;
use std::collections::BTreeSet;

/// Compares answer by answer.
#[derive(Default)]
pub struct Rules {
    opened: bool,
    reloaded: bool,
}

type Check = Result<(), String>;

impl Rules {
    /// One operation's expected and actual answer.
    pub fn answer(&mut self, op: &Value, want: &Value, got: &Value) -> Check {
        let checked = match (want.get("ok"), got.get("ok")) {
            (Some(want), Some(got)) => self.ok(op, want, got),
            (None, None) => error(want, got),
            _ => Err("one of them refuses".into()),
        };
        if want.get("ok").is_some() {
            match op["op"].as_str() {
                Some("open") => (self.reloaded, self.opened) = (self.opened, true),
                Some("truncate_to" | "truncate_fully_and_start_at" | "close") => self.reloaded = true,
                _ => {}
            }
        }
        checked
    }

    fn ok(&self, op: &Value, want: &Value, got: &Value) -> Check {
        match op["op"].as_str() {
            Some("open") => fields(want, got, &["report"], "open"),
            Some("read") => read(want, got),
            Some("state") => self.state(want, got),
            _ => equal(want, got, "answer"),
        }
    }

    fn state(&self, want: &Value, got: &Value) -> Check {
        let own = ["recovery_point", "segments", "snapshots", "producers_after_load"];
        fields(want, got, &own, "state")?;
        let point = |state: &Value| state["recovery_point"].as_i64();
        if point(got) < point(want) || point(got) > got["log_end_offset"].as_i64() {
            return Err(format!("recovery point {} and {}", want["recovery_point"], got["recovery_point"]));
        }
        pairs(&want["segments"], &got["segments"], "segments", |want, got| self.segment(want, got))?;
        snapshots(want, got)?;
        pairs(&want["producers_after_load"], &got["producers_after_load"], "producers", |want, got| {
            fields(want, got, &["batches"], "producer")?;
            let (few, all) = (list(&want["batches"]), list(&got["batches"]));
            let same = few == all || self.reloaded && all.len() <= 5 && all.ends_with(few);
            if same { Ok(()) } else { Err(format!("batches {} and {}", want["batches"], got["batches"])) }
        })
    }

    fn segment(&self, want: &Value, got: &Value) -> Check {
        fields(want, got, &["batches", "offset_index", "time_index"], "segment")?;
        pairs(&want["batches"], &got["batches"], "batches", |want, got| fields(want, got, &[], "batch"))?;
        for (index, columns) in
            [("offset_index", ["last_offset", "position"]), ("time_index", ["max_timestamp", "last_offset"])]
        {
            if want[index] != got[index] && !(self.reloaded && entries_are_true(got, index, columns)) {
                return Err(format!("{index} {} and {}", want[index], got[index]));
            }
        }
        Ok(())
    }
}

/// Entries rise, and each column's value is that of some batch.
fn entries_are_true(segment: &Value, index: &str, columns: [&str; 2]) -> bool {
    let entries = list(&segment[index]);
    let of_a_batch =
        |value: &Value, column: &str| list(&segment["batches"]).iter().any(|batch| batch[column] == *value);
    entries.is_sorted_by(|a, b| a[0].as_i64() < b[0].as_i64())
        && entries.iter().all(|entry| of_a_batch(&entry[0], columns[0]) && of_a_batch(&entry[1], columns[1]))
}

fn error(want: &Value, got: &Value) -> Check {
    equal(&want["error"], &got["error"], "error")?;
    equal(&want["retriable"], &got["retriable"], "retriable")
}

fn read(want: &Value, got: &Value) -> Check {
    fields(want, got, &["batches"], "read")?;
    pairs(&want["batches"], &got["batches"], "batches", |want, got| fields(want, got, &[], "batch"))
}

fn snapshots(want: &Value, got: &Value) -> Check {
    let bases: BTreeSet<i64> =
        list(&want["segments"]).iter().skip(1).filter_map(|s| s["base_offset"].as_i64()).collect();
    let at = |state: &Value| -> Vec<Value> {
        let snapshots = list(&state["snapshots"]).iter();
        snapshots.filter(|s| s["offset"].as_i64().is_some_and(|offset| bases.contains(&offset))).cloned().collect()
    };
    pairs(&at(want).into(), &at(got).into(), "snapshots", |want, got| {
        equal(&want["offset"], &got["offset"], "snapshot")?;
        pairs(&want["producers"], &got["producers"], "producers of a snapshot", |want, got| {
            fields(want, got, &[], "producer")
        })
    })
}

/// Every field of `want` but those left out is in `got` and equal.
fn fields(want: &Value, got: &Value, leave: &[&str], what: &str) -> Check {
    let fields = want.as_object().ok_or_else(|| format!("{what} is no object"))?;
    for (name, value) in fields.iter().filter(|(name, _)| !leave.contains(&name.as_str())) {
        equal(value, &got[name], &format!("{what}: {name}"))?;
    }
    Ok(())
}

fn pairs(want: &Value, got: &Value, what: &str, check: impl Fn(&Value, &Value) -> Check) -> Check {
    let (want, got) = (list(want), list(got));
    if want.len() != got.len() {
        return Err(format!("{} {what} and {}", want.len(), got.len()));
    }
    want.iter()
        .zip(got)
        .enumerate()
        .try_for_each(|(i, (want, got))| check(want, got).map_err(|why| format!("{what}, {i}: {why}")))
}

fn equal(want: &Value, got: &Value, what: &str) -> Check {
    if want == got { Ok(()) } else { Err(format!("{what} is {want} and {got}")) }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

//! What an earlier life of the engine left of its atomic batches, finished log by log as each is opened.
//!
//! A log needs no other one for that: a decision that is there holds for all its parts, and carries the batches that
//! were not durable when it was made. So those that the log has lost are appended again, byte for byte, and then each
//! open transaction of an atomic batch is committed if a decision names it and aborted if none does.

use std::collections::BTreeMap;

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::Batches;

use super::decision::{Decision, Part};
use super::ledger::{Ledger, append_marker};
use crate::error::{Error, Result};
use crate::log::{Ack, Append, Isolation, Log, Read};

/// Most that a decision's record may take.
const RECORD_BYTES: usize = 1 << 24;

/// A part of a batch that an earlier life decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub log: String,
    pub first_offset: i64,
    /// Offset behind the batches that the decision carries for this log; -1 where it carries none.
    pub end_offset: i64,
}

impl Ledger {
    /// Ends what an earlier life left open in a log that was just opened; durable when it returns.
    pub fn finish(&self, name: &str, log: &Log) -> Result<()> {
        if log.atomic_transactions().is_none() {
            return Ok(());
        }
        let Some(left) = self.left_of(name) else { return Ok(()) };
        for (offset, part) in left.iter().filter(|_| !planted(Bug::DecidedNotRedone)) {
            self.redo(*offset, part, log)?;
        }
        for (producer_id, first_offset) in log.atomic_transactions().unwrap_or_default() {
            let decided = left.iter().any(|(_, part)| part.first_offset == first_offset);
            tracing::info!(log = name, producer_id, first_offset, decided, "an atomic batch is finished");
            append_marker(&log.shared, producer_id, decided, Ack::Durable)?.wait()?;
        }
        self.is_finished(name);
        Ok(())
    }

    /// Appends what the decision at `offset` carries and the log has lost.
    fn redo(&self, offset: i64, part: &Left, log: &Log) -> Result<()> {
        let end = log.log_end_offset();
        if part.end_offset <= end {
            return Ok(());
        }
        let Some(decisions) = self.log() else { return Ok(()) };
        let batches = carried(decisions, offset, &part.log)?;
        let Some(lost) = behind(log, &batches, end)? else {
            tracing::error!(
                log = part.log,
                end,
                "an atomic batch is lost: the log was cut, and what is there is not its beginning"
            );
            return Ok(());
        };
        tracing::info!(log = part.log, from = end, to = part.end_offset, "an atomic batch is appended again");
        log.append_wait(Append::replica(lost, i32::MAX))?;
        Ok(())
    }
}

/// What of `batches` lies behind the end of the log; `None` if they do not go on where it ends.
fn behind<'a>(log: &Log, batches: &'a [u8], end: i64) -> Result<Option<&'a [u8]>> {
    let at = |source| Error::Format { path: log.dir().to_path_buf(), source };
    let mut rest = batches;
    let mut before = None;
    for batch in Batches::new(batches) {
        let batch = batch.map_err(at)?;
        let header = batch.header();
        if header.base_offset >= end {
            break;
        }
        before = Some((header.base_offset, batch.bytes()));
        rest = &rest[batch.bytes().len()..];
    }
    let goes_on = match before {
        // What the log had durable, at least, is there: so it ends where they begin.
        None => {
            Batches::new(rest).next().transpose().map_err(at)?.is_some_and(|first| first.header().base_offset == end)
        }
        Some((base, bytes)) if base >= log.log_start_offset() => {
            let read = Read { isolation: Isolation::LogEnd, max_bytes: bytes.len(), ..Read::from(base) };
            log.read(read)?.data[..] == *bytes
        }
        Some(_) => false,
    };
    Ok(goes_on.then_some(rest))
}

/// What the decision at `offset` carries for a log.
fn carried(decisions: &Log, offset: i64, log: &str) -> Result<Vec<u8>> {
    let mut found = Vec::new();
    read_from(decisions, offset, |at, decision| {
        if let Decision::Commit(parts) = decision
            && at == offset
        {
            found = parts.into_iter().filter(|part| part.log == log).flat_map(|part| part.batches).collect();
        }
        at < offset
    })?;
    Ok(found)
}

/// The parts of all decisions that are there, by the decision's offset. What was cut since is left out.
pub(super) fn read_left(decisions: &Log) -> Result<BTreeMap<i64, Vec<Left>>> {
    let mut left: BTreeMap<i64, Vec<Left>> = BTreeMap::new();
    read_from(decisions, decisions.log_start_offset(), |offset, decision| {
        match decision {
            Decision::Commit(parts) => drop(left.insert(offset, parts.into_iter().map(Left::of).collect())),
            Decision::Cut { log, .. } => left.values_mut().for_each(|parts| parts.retain(|part| part.log != log)),
        }
        true
    })?;
    Ok(left)
}

impl Left {
    fn of(Part { log, first_offset, batches }: Part) -> Self {
        let ends = Batches::new(&batches).map_while(|batch| Some(batch.ok()?.header().next_offset()));
        let end_offset = ends.last().unwrap_or(-1);
        Self { log, first_offset, end_offset }
    }
}

/// Reads decisions with their offsets, for as long as `goes_on` says so.
fn read_from(log: &Log, mut offset: i64, mut goes_on: impl FnMut(i64, Decision) -> bool) -> Result<()> {
    let at = |source| Error::Format { path: log.dir().to_path_buf(), source };
    loop {
        let fetched = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(offset) })?;
        if fetched.data.is_empty() {
            return Ok(());
        }
        for batch in Batches::new(&fetched.data) {
            let batch = batch.map_err(at)?;
            for record in batch.decode(RECORD_BYTES).map_err(at)?.records() {
                let record = record.map_err(at)?;
                let decision = Decision::decode(record.value.unwrap_or_default()).map_err(at)?;
                if record.offset >= offset && !goes_on(record.offset, decision) {
                    return Ok(());
                }
            }
            offset = batch.header().next_offset();
        }
    }
}

//! The decisions of an engine's atomic batches: which were made, which are not finished yet, and the log that holds them.
//!
//! The decisions stand in a log of the engine's own, a directory that Kafka reads as a topic nobody asked for: so they are
//! written, grouped, recovered and trimmed by the code that does it for all others. A decision is needed until every marker
//! that follows from it is durable. What a crash left is finished log by log as each is opened: an open transaction of one
//! of the engine's producers is committed if a decision names it, and aborted if none does.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use oncelog_device::Lane;
use oncelog_formats::control::end_txn_marker_batch;
use oncelog_formats::{BatchBuilder, Batches};
use oncelog_snapshot::Origin;
use parking_lot::Mutex;

use super::decision::{self, Part};
use crate::background::Background;
use crate::committer::{Flights, commit_in_order};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::{Ack, Append, Isolation, Log, OpenOptions, Read, Shared};

/// Directory of the log that holds the decisions.
pub const DECISIONS_LOG: &str = "__oncelog_decisions-0";

/// Producer ids of atomic batches: the last 65,536 there are. Kafka hands out ids from 0 upwards.
pub const PRODUCER_IDS: RangeInclusive<i64> = i64::MAX - 0xffff..=i64::MAX;

/// Epoch of every atomic batch. No other process can write while the engine holds its lock, so nobody has to be fenced.
pub(super) const EPOCH: i16 = 0;
/// So many finished decisions are left in the log before it is trimmed, which costs a checkpoint file.
const TRIM_AT: i64 = 4096;

/// Whose marker is where.
#[derive(Clone, Debug)]
pub(crate) struct Marked {
    pub log: Arc<Shared>,
    pub first_offset: i64,
    /// Offset and append number of the marker, once it was appended.
    pub marker: Option<(i64, u64)>,
}

/// What has to be done for a decision, or for an abort, until it may be forgotten.
#[derive(Debug)]
enum Open {
    /// Left by an earlier life of the engine: these parts lie in logs that were not opened since.
    Earlier(BTreeSet<Part>),
    /// Decided by this one.
    Now { producer_id: i64, commit: bool, parts: Vec<Marked> },
}

#[derive(Default)]
struct State {
    log: Option<Log>,
    /// By the decision's offset; aborts, which have none, below zero.
    open: BTreeMap<i64, Open>,
    aborts: i64,
    free: Vec<i64>,
    taken: i64,
    trimmed: i64,
    /// A decision was written and nobody knows whether it will be there after a crash.
    in_doubt: Option<Error>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    /// Carries the parts of a batch together, for one batch at a time.
    flights: Option<Mutex<Flights>>,
    /// The engine's threads, if it has any.
    background: Option<Arc<Background>>,
}

impl Ledger {
    pub fn new(lane: Option<Lane>, background: Option<Arc<Background>>) -> Self {
        Self { flights: lane.map(|lane| Mutex::new(Flights::new(lane))), background, ..Self::default() }
    }

    /// Makes each of these appends durable, at the same time where the device and the engine's threads allow it; the first
    /// failure if there is one, and only when all have come to an end.
    pub fn sync(&self, parts: &[(Arc<Shared>, u64)]) -> Result<()> {
        if let Some(flights) = self.flights.as_ref().filter(|_| parts.len() > 1)
            && let Some(mut flights) = flights.try_lock()
        {
            return flights.commit(parts);
        }
        if let Some(background) = &self.background {
            for (log, number) in parts.iter().skip(1) {
                log.note_durable_wanted(*number);
            }
            background.commits.ask_all(parts.iter().skip(1).map(|(log, _)| Arc::downgrade(log)));
        }
        commit_in_order(parts)
    }

    /// Settings of the decisions' log: nothing goes but what [`Ledger::trim`] lets go.
    pub fn options() -> OpenOptions {
        let config = Config { segment_bytes: 1 << 20, retention_ms: -1, retention_bytes: -1, ..Config::default() };
        OpenOptions { config, ..OpenOptions::default() }
    }

    /// Takes over the log of an earlier life. `exists` says whether a log of that name is still there.
    ///
    /// Decisions that cannot be read leave everything in doubt: what they would decide stays open, and none is begun.
    pub fn adopt(&self, log: Log, exists: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let damage = log.report().damage.first().cloned();
        let decisions = damage.map_or_else(|| read_decisions(&log), |damage| Err(Error::Damaged(Box::new(damage))));
        let decisions = decisions.unwrap_or_else(|error| {
            tracing::error!(%error, "the decisions on atomic batches cannot be read: open ones stay open");
            state.in_doubt = Some(error);
            Vec::new()
        });
        for (offset, parts) in decisions {
            let left: BTreeSet<Part> = parts.into_iter().filter(|part| exists(&part.log)).collect();
            if !left.is_empty() {
                state.open.insert(offset, Open::Earlier(left));
            }
        }
        state.trimmed = log.log_start_offset();
        state.log = Some(log);
    }

    pub fn log(&self) -> Option<Log> {
        self.state.lock().log.clone()
    }

    /// Ends what an earlier life left open in a log that was just opened; durable when it returns.
    pub fn finish(&self, name: &str, log: &Log) -> Result<()> {
        let Some(left) = log.atomic_transactions() else { return Ok(()) };
        if self.state.lock().in_doubt.is_some() {
            return Ok(());
        }
        let of_this = |part: &Part| part.log == name;
        for (producer_id, first_offset) in left {
            let part = Part { log: name.to_owned(), first_offset };
            let decided = {
                let state = self.state.lock();
                state.open.values().any(|open| matches!(open, Open::Earlier(parts) if parts.contains(&part)))
            };
            tracing::info!(log = name, producer_id, first_offset, decided, "an atomic batch is finished");
            append_marker(&log.shared, producer_id, decided, Ack::Durable)?.wait()?;
        }
        let mut state = self.state.lock();
        for open in state.open.values_mut() {
            if let Open::Earlier(parts) = open {
                parts.retain(|part| !of_this(part));
            }
        }
        state.open.retain(|_, open| !matches!(open, Open::Earlier(parts) if parts.is_empty()));
        Ok(())
    }

    /// A producer id that no other batch has now.
    pub fn take_producer(&self) -> Result<i64> {
        let mut state = self.state.lock();
        if let Some(error) = &state.in_doubt {
            return Err(error.clone());
        }
        if let Some(id) = state.free.pop() {
            return Ok(id);
        }
        let id = PRODUCER_IDS.start() + state.taken;
        if !PRODUCER_IDS.contains(&id) {
            return Err(Error::InvalidRequest(format!("{} atomic batches are open", state.taken)));
        }
        state.taken += 1;
        Ok(id)
    }

    pub fn give_back(&self, producer_id: i64) {
        self.state.lock().free.push(producer_id);
    }

    /// Writes the decision, durable when this returns. `Ok(Err)`: it was refused and is not there. `Err`: nobody knows.
    pub fn decide(&self, parts: &[Marked], now_ms: i64) -> Result<Result<i64>> {
        let Some(log) = self.log() else { return Ok(Err(Error::Closed)) };
        let named: Vec<Part> =
            parts.iter().map(|part| Part { log: part.log.name(), first_offset: part.first_offset }).collect();
        let mut builder = BatchBuilder::new();
        builder.append(now_ms, None, Some(&decision::encode(&named)), &[]);
        let bytes = match builder.build() {
            Ok(bytes) => bytes,
            Err(e) => return Ok(Err(Error::InvalidRequest(e.to_string()))),
        };
        let ticket = match log.append(Append { leader_epoch: log.shared.leader_epoch(), ..Append::client(&bytes) }) {
            Ok(ticket) => ticket,
            Err(refused) => return Ok(Err(refused)),
        };
        match ticket.wait() {
            Ok(answer) => Ok(Ok(answer.base_offset)),
            Err(error) => {
                self.state.lock().in_doubt.get_or_insert(error.clone());
                Err(error)
            }
        }
    }

    /// Remembers the outcome, before its first marker can be seen, and appends the markers. `at`: the decision's offset.
    pub fn conclude(&self, at: Option<i64>, producer_id: i64, commit: bool, parts: Vec<Marked>) {
        let key = {
            let mut state = self.state.lock();
            state.aborts -= 1;
            let key = at.unwrap_or(state.aborts);
            state.open.insert(key, Open::Now { producer_id, commit, parts: parts.clone() });
            key
        };
        self.mark(key, producer_id, commit, parts);
    }

    /// Appends the markers that are missing. One that is refused (a full disk) is tried again by [`Ledger::drive`].
    fn mark(&self, key: i64, producer_id: i64, commit: bool, mut parts: Vec<Marked>) {
        for part in parts.iter_mut().filter(|part| part.marker.is_none()) {
            match append_marker(&part.log, producer_id, commit, Ack::Accepted) {
                Ok(ticket) => {
                    part.marker = Some((ticket.expected().base_offset, ticket.number()));
                    part.log.want_durable_soon(ticket.number());
                }
                Err(error) => tracing::warn!(%error, log = part.log.name(), "a marker has to wait"),
            }
        }
        let mut state = self.state.lock();
        let all = parts.iter().all(|part| part.marker.is_some());
        if let Some(Open::Now { parts: known, .. }) = state.open.get_mut(&key) {
            *known = parts;
        }
        if all {
            state.free.push(producer_id);
        }
    }

    /// One step of what is left to do: markers that were refused, decisions that nobody needs any more.
    pub fn drive(&self) -> Result<()> {
        let missing: Vec<(i64, i64, bool, Vec<Marked>)> = {
            let mut state = self.state.lock();
            state.open.retain(|_, open| !open.is_settled());
            let missing = state.open.iter().filter_map(|(key, open)| match open {
                Open::Now { producer_id, commit, parts } if parts.iter().any(|part| part.marker.is_none()) => {
                    Some((*key, *producer_id, *commit, parts.clone()))
                }
                _ => None,
            });
            missing.collect()
        };
        for (key, producer_id, commit, parts) in missing {
            self.mark(key, producer_id, commit, parts);
        }
        self.trim(TRIM_AT)
    }

    /// Lets go of the decisions below the first that is needed, if they are at least `least`.
    pub fn trim(&self, least: i64) -> Result<()> {
        let (log, needed) = {
            let state = self.state.lock();
            let Some(log) = state.log.clone() else { return Ok(()) };
            let end = log.high_watermark();
            let needed = state.open.range(0..).next().map_or(end, |(offset, _)| (*offset).min(end));
            if needed - state.trimmed < least.max(1) {
                return Ok(());
            }
            (log, needed)
        };
        log.delete_records(needed)?;
        log.apply_retention()?;
        self.state.lock().trimmed = needed;
        Ok(())
    }

    /// For each log an offset up to which a committed reader sees every atomic batch in all of these logs or in none.
    pub fn stable_ends(&self, logs: &[&Log]) -> Vec<i64> {
        let state = self.state.lock();
        let mut ends: Vec<i64> = logs.iter().map(|log| log.last_stable_offset()).collect();
        for open in state.open.values() {
            let Open::Now { commit: true, parts, .. } = open else { continue };
            if parts.iter().all(Marked::is_visible) {
                continue;
            }
            for part in parts {
                let here = logs.iter().position(|log| Arc::ptr_eq(&log.shared, &part.log));
                if let Some(end) = here.map(|i| &mut ends[i]) {
                    *end = (*end).min(part.first_offset);
                }
            }
        }
        ends
    }
}

impl Marked {
    /// Committed readers see what the marker says.
    fn is_visible(&self) -> bool {
        self.marker.is_some_and(|(offset, _)| self.log.state.lock().high_watermark > offset)
    }

    fn is_settled(&self) -> bool {
        let Some((offset, number)) = self.marker else { return false };
        let state = self.log.state.lock();
        state.progress.durable >= number && state.high_watermark > offset
    }
}

impl Open {
    fn is_settled(&self) -> bool {
        matches!(self, Self::Now { parts, .. } if parts.iter().all(Marked::is_settled))
    }
}

/// Appends the marker that ends the transaction of an atomic batch in one log.
fn append_marker(log: &Arc<Shared>, producer_id: i64, commit: bool, ack: Ack) -> Result<crate::log::Ticket> {
    let coordinator_epoch = 0;
    let marker = end_txn_marker_batch(0, -1, producer_id, EPOCH, commit, coordinator_epoch, log.clock.now_ms());
    let append =
        Append { origin: Origin::Coordinator, ack, leader_epoch: log.leader_epoch(), ..Append::client(&marker) };
    log.append(&append)
}

fn read_decisions(log: &Log) -> Result<Vec<(i64, Vec<Part>)>> {
    let mut found = Vec::new();
    let mut offset = log.log_start_offset();
    let at = |source| Error::Format { path: log.dir().to_path_buf(), source };
    loop {
        let fetched = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(offset) })?;
        if fetched.data.is_empty() {
            return Ok(found);
        }
        for batch in Batches::new(&fetched.data) {
            let batch = batch.map_err(at)?;
            for record in batch.decode(1 << 24).map_err(at)?.records() {
                let record = record.map_err(at)?;
                found.push((record.offset, decision::decode(record.value.unwrap_or_default()).map_err(at)?));
            }
            offset = batch.header().next_offset();
        }
    }
}

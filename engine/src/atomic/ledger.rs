//! The decisions of an engine's atomic batches: which were made, which are not finished yet, and the log that holds
//! them.
//!
//! The decisions stand in a log of the engine's own, a directory that Kafka reads as a topic nobody asked for: so they
//! are written, grouped, recovered and trimmed by the code that does it for all others. A decision is needed until
//! every marker that follows from it is durable; what a crash left is finished log by log as each is opened (see
//! [`super::earlier`]).

use std::collections::{BTreeMap, HashMap};
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, OnceLock};

use oncelog_device::Lane;
use oncelog_device::planted::{Bug, planted};
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;
use oncelog_snapshot::Origin;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::decision::{Decision, Part};
use super::earlier::{Left, read_left};
use crate::background::Background;
use crate::committer::{Flights, commit_in_order};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::{Ack, Append, BeforeCut, CARRIED_BYTES, Log, OpenOptions, Shared, Ticket, Undurable, Wanted};

/// Directory of the log that holds the decisions.
pub const DECISIONS_LOG: &str = "__oncelog_decisions-0";

/// Producer ids of atomic batches: the last 65,536 there are. Kafka hands out ids from 0 upwards.
pub const PRODUCER_IDS: RangeInclusive<i64> = i64::MAX - 0xffff..=i64::MAX;

/// Epoch of every atomic batch. No other process can write while the engine holds its lock, so nobody has to be fenced.
pub(super) const EPOCH: i16 = 0;
/// So many finished decisions are left in the log before it is trimmed, which costs a checkpoint file.
const TRIM_AT: i64 = 4096;
/// Or so many bytes of them.
const TRIM_AT_BYTES: usize = 64 << 20;
/// So many batches that are settled and not seen everywhere are told apart.
const SETTLED_AT_MOST: usize = 1024;
const DECISIONS_SEGMENT_BYTES: u64 = 32 << 20;

/// Whose marker is where.
#[derive(Clone, Debug)]
pub(crate) struct Marked {
    pub log: Arc<Shared>,
    pub first_offset: i64,
    /// Offset behind its newest record.
    pub end_offset: i64,
    /// Number of the transaction's newest append.
    pub number: u64,
    /// See [`Wanted::generation`].
    pub generation: u64,
    /// Offset and append number of the marker, once it was appended.
    pub marker: Option<(i64, u64)>,
}

/// What has to be done for a decision, or for an abort, until it may be forgotten.
#[derive(Debug)]
enum Open {
    /// Left by an earlier life of the engine: these parts lie in logs that were not opened since.
    Earlier(Vec<Left>),
    /// Decided by this one.
    Now {
        producer_id: i64,
        commit: bool,
        parts: Vec<Marked>,
        /// Somebody appends the markers now. A second one would end what the producer begins next.
        is_marking: bool,
    },
}

#[derive(Default)]
struct State {
    /// By the decision's offset; aborts, which have none, below zero.
    open: BTreeMap<i64, Open>,
    aborts: i64,
    /// Who has a decision under way that `open` does not hold yet, and an offset that it does not lie below.
    deciding: BTreeMap<i64, i64>,
    free: Vec<i64>,
    taken: i64,
    trimmed: i64,
    /// Written since the log was trimmed.
    untrimmed_bytes: usize,
    /// A decision was written and nobody knows whether it will be there after a crash.
    in_doubt: Option<Error>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Ledger {
    log: OnceLock<Log>,
    /// See [`BeforeCut::order`].
    order: Arc<RwLock<()>>,
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

    /// Makes each of these appends durable, at the same time where the device and the engine's threads allow it; the
    /// first failure if there is one, and only when all have come to an end.
    fn sync(&self, parts: &[(Arc<Shared>, u64)]) -> Result<()> {
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
        let config = Config {
            segment_bytes: DECISIONS_SEGMENT_BYTES,
            retention_ms: -1,
            retention_bytes: -1,
            ..Config::default()
        };
        OpenOptions { config, ..OpenOptions::default() }
    }

    /// Takes over the log of an earlier life. `exists` says whether a log of that name is still there.
    ///
    /// Decisions that cannot be read leave everything in doubt: what they would decide stays open, and none is begun.
    pub fn adopt(&self, log: Log, exists: impl Fn(&str) -> bool) {
        let mut state = self.state.lock();
        let damage = log.report().damage.first().cloned();
        let left = damage.map_or_else(|| read_left(&log), |damage| Err(Error::Damaged(Box::new(damage))));
        let left = left.unwrap_or_else(|error| {
            tracing::error!(%error, "the decisions on atomic batches cannot be read: open ones stay open");
            state.in_doubt = Some(error);
            BTreeMap::new()
        });
        for (offset, mut parts) in left {
            parts.retain(|part| exists(&part.log));
            if !parts.is_empty() {
                state.open.insert(offset, Open::Earlier(parts));
            }
        }
        state.trimmed = log.log_start_offset();
        self.log.set(log).expect("adopted once");
    }

    pub fn log(&self) -> Option<&Log> {
        self.log.get()
    }

    /// What earlier decisions say of a log that was just opened, oldest first, with their offsets; `None` where nobody
    /// knows.
    pub(super) fn left_of(&self, name: &str) -> Option<Vec<(i64, Left)>> {
        let state = self.state.lock();
        let earlier = state.open.iter().filter_map(|(offset, open)| match open {
            Open::Earlier(parts) => {
                Some(parts.iter().filter(|part| part.log == name).map(|part| (*offset, part.clone())))
            }
            Open::Now { .. } => None,
        });
        state.in_doubt.is_none().then(|| earlier.flatten().collect())
    }

    /// Nothing is left to do in this log.
    pub(super) fn is_finished(&self, name: &str) {
        let mut state = self.state.lock();
        for open in state.open.values_mut() {
            if let Open::Earlier(parts) = open {
                parts.retain(|part| part.log != name);
            }
        }
        state.open.retain(|_, open| !matches!(open, Open::Earlier(parts) if parts.is_empty()));
    }

    /// What a truncation of a log has to do with its decisions.
    pub fn before_cut(this: &Arc<Self>, name: &str) -> BeforeCut {
        let (ledger, of) = (Arc::downgrade(this), name.to_owned());
        let unmarked = Box::new(move || ledger.upgrade().map_or(Vec::new(), |ledger| ledger.unmarked(&of)));
        let (ledger, of) = (Arc::downgrade(this), name.to_owned());
        let tell = move |offset, unmarked: &[Range<i64>]| {
            ledger.upgrade().map_or(Ok(()), |ledger| ledger.cut(&of, offset, unmarked))
        };
        BeforeCut { order: this.order.clone(), unmarked, tell: Box::new(tell) }
    }

    /// The offsets of what is committed in a log and has no marker there yet.
    fn unmarked(&self, name: &str) -> Vec<Range<i64>> {
        let state = self.state.lock();
        let parts = state.open.values().filter_map(Open::committed).flatten();
        let unmarked = parts.filter(|part| part.marker.is_none() && part.log.name() == name);
        unmarked.map(|part| part.first_offset..part.end_offset).collect()
    }

    /// Records, durably, that a log is cut to `offset`: see [`Decision::Cut`]. What waits for its COMMIT marker and
    /// loses no record is decided once more, in the same write. Asked with that log's lock held, so it takes none but
    /// that of the decisions' log.
    fn cut(&self, name: &str, offset: i64, unmarked: &[Range<i64>]) -> Result<()> {
        let Some(log) = self.log().filter(|log| log.log_end_offset() > log.log_start_offset()) else { return Ok(()) };
        if planted(Bug::CutNotDecided) {
            return Ok(());
        }
        let stays = unmarked.iter().filter(|part| part.end <= offset);
        let part = |part: &Range<i64>| Part { log: name.into(), first_offset: part.start, batches: Vec::new() };
        let again = Decision::Commit(stays.map(part).collect());
        let bytes = records(&[Decision::Cut { log: name.into(), offset }, again], log.shared.clock.now_ms())?;
        log.append_wait(Append { leader_epoch: log.shared.leader_epoch(), ..Append::client(&bytes) })?;
        Ok(())
    }

    /// The failure that leaves decisions in doubt, if there was one.
    pub fn check(&self) -> Result<()> {
        self.state.lock().in_doubt.clone().map_or(Ok(()), Err)
    }

    /// From this failure on none is begun, unless the disk is only full.
    pub fn doubt(&self, error: Error) -> Error {
        if !matches!(error, Error::StorageFull(_)) {
            self.state.lock().in_doubt.get_or_insert(error.clone());
        }
        error
    }

    /// A producer id that no other batch has now.
    pub fn take_producer(&self) -> Result<i64> {
        self.check()?;
        let mut state = self.state.lock();
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

    /// Held from the look at what a decision has to carry until its markers have their places, so that no truncation
    /// comes in between.
    pub fn no_cut(&self) -> RwLockReadGuard<'_, ()> {
        self.order.read()
    }

    /// Writes the decision, with what its parts need to survive; durable when this returns. `Ok(Err)`: it was refused
    /// and is not there. `Err`: nobody knows. The caller lets nothing be cut meanwhile.
    pub fn decide(&self, producer_id: i64, parts: &[Marked], now_ms: i64) -> Result<Result<i64>> {
        let Some(log) = self.log() else { return Ok(Err(Error::Closed)) };
        let (ticket, size_bytes) = match self.order(log, producer_id, parts, now_ms) {
            Ok(ordered) => ordered,
            Err(refused) => return Ok(Err(refused)),
        };
        match ticket.wait() {
            Ok(answer) => {
                self.state.lock().untrimmed_bytes += size_bytes;
                Ok(Ok(answer.base_offset))
            }
            Err(error) => {
                self.state.lock().in_doubt.get_or_insert(error.clone());
                Err(error)
            }
        }
    }

    /// Gives the decision its place in the log of decisions; answers the size as well.
    fn order(&self, log: &Log, producer_id: i64, parts: &[Marked], now_ms: i64) -> Result<(Ticket, usize)> {
        let (mut named, mut ends) = (Vec::with_capacity(parts.len()), Vec::with_capacity(parts.len()));
        for (part, Undurable { batches, end_offset }) in parts.iter().zip(self.carry(producer_id, parts)?) {
            named.push(Part { log: part.log.name(), first_offset: part.first_offset, batches });
            ends.push(end_offset);
        }
        let bytes = records(&[Decision::Commit(named)], now_ms)?;
        self.state.lock().deciding.insert(producer_id, log.log_end_offset());
        let ticket = log.append(Append { leader_epoch: log.shared.leader_epoch(), ..Append::client(&bytes) })?;
        for (part, end_offset) in parts.iter().zip(ends) {
            part.log.note_covered(end_offset);
        }
        Ok((ticket, bytes.len()))
    }

    /// What of each log is not durable; where that cannot come along with the decision it is synced now.
    fn carry(&self, producer_id: i64, parts: &[Marked]) -> Result<Vec<Undurable>> {
        let mut room = CARRIED_BYTES;
        let mut carried = Vec::with_capacity(parts.len());
        let mut synced = Vec::new();
        for Marked { log, first_offset, number, generation, .. } in parts {
            let (first_offset, number, generation) = (*first_offset, *number, *generation);
            let wanted = Wanted { producer_id, first_offset, number, generation };
            let undurable = log.undurable(&wanted, room)?.unwrap_or_else(|| {
                synced.push((log.clone(), number));
                Undurable::default()
            });
            room -= undurable.batches.len();
            carried.push(undurable);
        }
        if !planted(Bug::DecidedBeforePartsDurable) {
            self.sync(&synced)?;
        }
        Ok(carried)
    }

    /// Remembers the outcome, before its first marker can be seen, and appends the markers. `at`: the decision's
    /// offset.
    pub fn conclude(&self, at: Option<i64>, producer_id: i64, commit: bool, parts: Vec<Marked>) {
        let key = {
            let mut state = self.state.lock();
            state.deciding.remove(&producer_id);
            state.aborts -= 1;
            let key = at.unwrap_or(state.aborts);
            state.open.insert(key, Open::Now { producer_id, commit, parts: parts.clone(), is_marking: true });
            key
        };
        self.mark(key, producer_id, commit, parts);
    }

    /// Appends the markers that are missing: COMMIT where a truncation has left all of the part. One that is refused (a
    /// full disk) is tried again by [`Ledger::drive`].
    fn mark(&self, key: i64, producer_id: i64, commit: bool, mut parts: Vec<Marked>) {
        for part in parts.iter_mut().filter(|part| part.marker.is_none()) {
            let commit = commit && part.log.holds(producer_id, part.first_offset..part.end_offset);
            match append_marker(&part.log, producer_id, commit, Ack::Accepted) {
                Ok(ticket) => {
                    part.marker = Some((ticket.expected().base_offset, ticket.number()));
                    part.log.want_durable_soon(ticket.number());
                }
                Err(error) => {
                    tracing::warn!(%error, log = part.log.name(), "a marker has to wait");
                    part.log.want_durable_soon(part.number);
                }
            }
        }
        let mut state = self.state.lock();
        let all = parts.iter().all(|part| part.marker.is_some());
        if let Some(Open::Now { parts: known, is_marking, .. }) = state.open.get_mut(&key) {
            (*known, *is_marking) = (parts, false);
        }
        if all {
            state.free.push(producer_id);
        }
    }

    /// One step of what is left to do: markers that were refused, decisions that nobody needs any more.
    pub fn drive(&self) -> Result<()> {
        // A truncation under way makes its own of a marker that is missing; the next round is soon.
        if let Some(_no_cut) = self.order.try_read() {
            self.mark_missing();
        }
        self.trim(TRIM_AT)
    }

    fn mark_missing(&self) {
        let missing: Vec<(i64, i64, bool, Vec<Marked>)> = {
            let mut state = self.state.lock();
            forget_seen(&mut state.open);
            let missing = state.open.iter_mut().filter_map(|(key, open)| match open {
                Open::Now { producer_id, commit, parts, is_marking }
                    if !*is_marking && parts.iter().any(|part| part.marker.is_none()) =>
                {
                    *is_marking = true;
                    Some((*key, *producer_id, *commit, parts.clone()))
                }
                _ => None,
            });
            missing.collect()
        };
        for (key, producer_id, commit, parts) in missing {
            self.mark(key, producer_id, commit, parts);
        }
    }

    /// Lets go of the decisions below the first that is needed, if they are at least `least`, or large.
    pub fn trim(&self, least: i64) -> Result<()> {
        let Some(log) = self.log() else { return Ok(()) };
        let needed = {
            let mut state = self.state.lock();
            let end = log.high_watermark();
            let mut open = state.open.range(0..);
            let open = open.find(|(_, open)| !open.is_settled()).map(|(offset, _)| *offset);
            let needed = state.deciding.values().copied().chain(open).fold(end, i64::min);
            let let_go = needed - state.trimmed;
            if let_go < 1 || (let_go < least && state.untrimmed_bytes < TRIM_AT_BYTES) {
                return Ok(());
            }
            state.untrimmed_bytes = 0;
            needed
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
        let here = |part: &Marked| logs.iter().position(|log| Arc::ptr_eq(&log.shared, &part.log));
        // What one batch takes back in a log may be the half of another one.
        let mut is_done = false;
        while !std::mem::replace(&mut is_done, true) {
            for parts in state.open.values().filter_map(Open::committed) {
                let is_below =
                    |part: &Marked| part.is_below(here(part).map_or_else(|| part.last_stable(), |i| ends[i]));
                if parts.iter().all(is_below) {
                    continue;
                }
                for part in parts {
                    let end = here(part).map(|i| &mut ends[i]).filter(|end| **end > part.first_offset);
                    if let Some(end) = end {
                        (*end, is_done) = (part.first_offset, false);
                    }
                }
            }
        }
        ends
    }
}

/// Lets go of the batches that are settled and that [`Ledger::stable_ends`] cannot need: committed readers see them in
/// all their logs, and none that they do not see everywhere begins below them. Many that have to stay are taken
/// together: a transaction that hangs in one log may hold back what is committed for hours.
fn forget_seen(open: &mut BTreeMap<i64, Open>) {
    let mut least: HashMap<*const Shared, i64> = HashMap::new();
    for parts in open.values().filter_map(Open::committed) {
        if !parts.iter().all(|part| part.is_below(part.last_stable())) {
            for part in parts {
                let first = least.entry(Arc::as_ptr(&part.log)).or_insert(i64::MAX);
                *first = part.first_offset.min(*first);
            }
        }
    }
    let may_go = |part: &Marked| {
        let least = least.get(&Arc::as_ptr(&part.log)).copied();
        part.is_below(part.last_stable().min(least.unwrap_or(i64::MAX)))
    };
    open.retain(|_, open| !open.is_settled() || open.committed().is_some_and(|parts| !parts.iter().all(may_go)));
    let settled: Vec<i64> = open.iter().filter(|(_, open)| open.is_settled()).map(|(key, _)| *key).collect();
    if let [first, others @ ..] = &settled[..]
        && settled.len() > SETTLED_AT_MOST
    {
        let others: Vec<Marked> = others.iter().filter_map(|key| open.remove(key)).flat_map(Open::into_parts).collect();
        if let Some(Open::Now { parts, .. }) = open.get_mut(first) {
            others.into_iter().for_each(|other| join(parts, other));
        }
    }
}

/// Adds a part to those of a batch, as if it were one with the one in the same log.
fn join(parts: &mut Vec<Marked>, other: Marked) {
    match parts.iter_mut().find(|part| Arc::ptr_eq(&part.log, &other.log)) {
        None => parts.push(other),
        Some(part) => {
            part.first_offset = part.first_offset.min(other.first_offset);
            part.end_offset = part.end_offset.max(other.end_offset);
            (part.number, part.marker) = (part.number.max(other.number), part.marker.max(other.marker));
        }
    }
}

impl Marked {
    /// Its marker stands below this offset.
    fn is_below(&self, end: i64) -> bool {
        self.marker.is_some_and(|(offset, _)| offset < end)
    }

    fn last_stable(&self) -> i64 {
        self.log.state.lock().last_stable()
    }

    fn is_settled(&self) -> bool {
        let Some((offset, number)) = self.marker else { return false };
        let state = self.log.state.lock();
        state.progress.durable >= number && state.high_watermark > offset
    }
}

impl Open {
    /// The parts of a batch that this life has committed.
    fn committed(&self) -> Option<&[Marked]> {
        match self {
            Self::Now { commit: true, parts, .. } => Some(parts),
            _ => None,
        }
    }

    fn into_parts(self) -> Vec<Marked> {
        match self {
            Self::Now { parts, .. } => parts,
            Self::Earlier(_) => Vec::new(),
        }
    }

    /// Nothing is left to do, and a crash finds everything done.
    fn is_settled(&self) -> bool {
        matches!(self, Self::Now { parts, .. } if parts.iter().all(Marked::is_settled))
    }
}

/// Appends the marker that ends the transaction of an atomic batch in one log.
pub(super) fn append_marker(log: &Arc<Shared>, producer_id: i64, commit: bool, ack: Ack) -> Result<Ticket> {
    let coordinator_epoch = 0;
    let marker = end_txn_marker_batch(0, -1, producer_id, EPOCH, commit, coordinator_epoch, log.clock.now_ms());
    let append =
        Append { origin: Origin::Coordinator, ack, leader_epoch: log.leader_epoch(), ..Append::client(&marker) };
    log.append(&append)
}

/// The batch with a record for each decision that says something.
fn records(decisions: &[Decision], now_ms: i64) -> Result<Vec<u8>> {
    let mut builder = BatchBuilder::new();
    for decision in decisions.iter().filter(|decision| !matches!(decision, Decision::Commit(parts) if parts.is_empty()))
    {
        builder.append(now_ms, None, Some(&decision.encode()), &[]);
    }
    builder.build().map_err(|e| Error::InvalidRequest(e.to_string()))
}

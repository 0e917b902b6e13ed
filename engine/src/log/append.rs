//! Append: check without the lock, judge and stage under it, wait for the device without it again.
//!
//! A duplicate or refused append has no side effect: it neither rolls a segment nor writes a leader epoch (Kafka does
//! both). Space is made sure of before anything changes, so a full disk refuses an append and never half of one.

use parking_lot::MutexGuard;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::prefetch;
use oncelog_formats::batch::stamp;
use oncelog_formats::{BatchHeader, BatchView, Compression};
use oncelog_snapshot::{
    AdmitOptions, BatchMeta, CompletedTxn, Hint, Incoming, Known, Origin, Refusal, Standing, Update, Verdict, absorb,
    admit,
};

use super::Shared;
use super::recover::rejoin;
use super::roll::RollCheck;
use super::state::State;
use super::ticket::Ticket;
use super::types::{Ack, Append, Appended, Outcome};
use crate::atomic::PRODUCER_IDS;
use crate::error::{Error, Result};
use crate::segment::incoming;
use crate::validate;

/// With more than this staged an appender waits for the device or helps it, whatever it asked for.
const STAGED_LIMIT_BYTES: usize = 2 << 20;

/// With this much staged the committer is asked to begin, though nobody waits.
const STAGED_PLENTY_BYTES: usize = 256 << 10;

/// A batch ready to be staged: checked, with everything but its offset and leader epoch in place.
struct Candidate<'a> {
    bytes: Cow<'a, [u8]>,
    header: BatchHeader,
    incoming: Option<Incoming>,
    change: Option<Change>,
}

/// What the producer states say to a whole set.
enum Decision {
    Store,
    Duplicate(BatchMeta),
}

/// What one batch does to its producer.
struct Change {
    producer_id: i64,
    /// None: what the batch itself says, since it is the plain next one.
    update: Option<Update>,
    hint: Hint,
    completed: Option<CompletedTxn>,
    started: Option<i64>,
    clears_verification: bool,
}

impl Change {
    /// Of the plain next batch of a producer.
    fn plain(producer_id: i64, hint: Hint) -> Self {
        Self { producer_id, update: None, hint, completed: None, started: None, clears_verification: false }
    }
}

/// An append in its place, with the lock still held.
struct Ordered<'a> {
    state: MutexGuard<'a, State>,
    number: u64,
    ack: Ack,
    answer: Appended,
}

impl Shared {
    /// Orders an append; who holds the ticket waits for it later.
    pub(crate) fn append(self: &Arc<Self>, append: &Append<'_>) -> Result<Ticket> {
        let Ordered { mut state, number, ack, answer } = self.order(append)?;
        if ack != Ack::Accepted {
            self.see_to_commit(&mut state, number, ack);
        }
        self.bound_staged(state, ack)?;
        Ok(Ticket::new(self.clone(), number, ack, answer))
    }

    /// Orders an append and waits for it, without letting go of the lock in between: nobody else would want it now.
    pub(crate) fn append_wait(self: &Arc<Self>, append: &Append<'_>) -> Result<Appended> {
        let Ordered { state, number, ack, answer } = self.order(append)?;
        match ack {
            Ack::Accepted => self.bound_staged(state, ack)?,
            _ => self.commit_from(state, number, ack)?,
        }
        Ok(answer)
    }

    fn order(&self, append: &Append<'_>) -> Result<Ordered<'_>> {
        self.try_order(append).inspect_err(|error| self.metrics.count_refused(error))
    }

    fn try_order(&self, append: &Append<'_>) -> Result<Ordered<'_>> {
        let config = self.config();
        let now_ms = self.clock.now_ms();
        let set = validate::check_set(append.batches, append.origin, append.leader_epoch, &config)?;
        if set.is_empty() {
            return Ok(self.nothing());
        }
        if !matches!(append.origin, Origin::Client | Origin::Coordinator) {
            let mut candidates = Vec::with_capacity(set.len());
            for view in set {
                let (bytes, header) = (Cow::Borrowed(view.bytes()), *view.header());
                candidates.push(Candidate { bytes, header, incoming: incoming(&view)?, change: None });
            }
            return self.admit_and_stage(append, &mut candidates, false, -1, now_ms);
        }
        let view = validate::check_one(&set, append.origin)?;
        if append.origin == Origin::Client && PRODUCER_IDS.contains(&view.header().producer_id) {
            let id = view.header().producer_id;
            return Err(Error::InvalidRequest(format!("producer id {id} is kept for atomic batches")));
        }
        let batch = incoming(&view)?;
        if view.header().compression() != Ok(Compression::None)
            && let Some(answered) = self.early_duplicate(&batch, append)?
        {
            return Ok(answered);
        }
        let valid = match validate::validate(view, append.origin, &config, now_ms) {
            Ok(valid) => valid,
            Err(error) => return self.early_duplicate(&batch, append)?.ok_or_else(|| error.into()),
        };
        let stored = BatchView::new(&valid.bytes).expect("the validator hands out whole batches");
        let (header, incoming) = (*stored.header(), incoming(&stored)?);
        let mut candidate = Candidate { bytes: valid.bytes, header, incoming, change: None };
        self.admit_and_stage(append, std::slice::from_mut(&mut candidate), true, valid.log_append_time, now_ms)
    }

    /// A retry is recognised right behind its checksum, before it is decompressed, and whatever else is wrong with it
    /// by now.
    fn early_duplicate(&self, incoming: &Option<Incoming>, append: &Append<'_>) -> Result<Option<Ordered<'_>>> {
        let looks = append.origin == Origin::Client && !planted(Bug::DuplicateStored);
        let Some(batch) = incoming.filter(|_| looks) else { return Ok(None) };
        let state = self.state_with(batch.producer_id)?;
        state.check_usable()?;
        let (known, _) = look(&state, &batch);
        Ok(known.repeated.map(|meta| self.duplicate(state, &meta, append.ack)))
    }

    /// The first answer again, once the first copy is as durable as this caller asks for.
    fn duplicate<'a>(&self, state: MutexGuard<'a, State>, meta: &BatchMeta, ack: Ack) -> Ordered<'a> {
        self.metrics.count_duplicate();
        let answer = Appended {
            outcome: Outcome::Duplicate,
            base_offset: meta.first_offset,
            last_offset: meta.last_offset,
            log_append_time: meta.timestamp,
            log_start_offset: state.log_start,
        };
        let durable = meta.last_offset < state.progress.durable_offset || planted(Bug::DuplicateOvertakes);
        let number = if durable { 0 } else { state.progress.accepted };
        Ordered { state, number, ack, answer }
    }

    /// The answer to an empty set.
    fn nothing(&self) -> Ordered<'_> {
        let state = self.state.lock();
        let answer = Appended {
            outcome: Outcome::Nothing,
            base_offset: -1,
            last_offset: -1,
            log_append_time: -1,
            log_start_offset: state.log_start,
        };
        Ordered { state, number: 0, ack: Ack::Accepted, answer }
    }

    fn admit_and_stage(
        &self,
        append: &Append<'_>,
        candidates: &mut [Candidate<'_>],
        assigns: bool,
        log_append_time: i64,
        now_ms: i64,
    ) -> Result<Ordered<'_>> {
        let size_bytes: usize = candidates.iter().map(|c| c.bytes.len()).sum();
        let mut made_room = false;
        loop {
            let mut state = self.state.lock();
            state.check_usable()?;
            if state.must_spill() && !std::mem::replace(&mut made_room, true) {
                drop(state);
                self.spill_for_append()?;
                continue;
            }
            let mut ids = candidates.iter().flat_map(|candidate| &candidate.incoming).map(|batch| batch.producer_id);
            let table = &state.producers;
            if let Some(id) = ids.find(|id| table.is_away(*id)).filter(|_| !planted(Bug::SpilledTakenForUnknown)) {
                self.supply(state, id)?;
                continue;
            }
            if candidates.len() > 1 {
                ask_for_producers(&state, candidates);
            }
            if let Err(error) = may_be_stored(&state, candidates, assigns, append.leader_epoch, size_bytes) {
                drop(state);
                return self.early_duplicate(&candidates[0].incoming, append)?.ok_or(error);
            }
            if let Decision::Duplicate(meta) = decide(&state, candidates, append, now_ms)? {
                return Ok(self.duplicate(state, &meta, append.ack));
            }
            if append.origin == Origin::Client
                && let Some(batch) = &candidates[0].incoming
            {
                state.check_producer_limit(batch.producer_id, now_ms)?;
            }
            let (first, last) =
                (candidates[0].header.base_offset, candidates[candidates.len() - 1].header.last_offset());
            let max_timestamp = candidates.iter().map(|c| c.header.max_timestamp).max().unwrap_or(-1);
            let roll = state.should_roll(&RollCheck { size_bytes, max_timestamp, last_offset: last, now_ms });
            if let Some(need) = state.space_needed(roll, size_bytes) {
                drop(self.make_space(state, need)?);
                continue;
            }
            if state.log_start_batch >= state.log_end() {
                state.log_start_batch = first;
            }
            if roll {
                self.roll_to(&mut state, first);
            }
            self.store(&mut state, candidates, append.client_id, now_ms);
            let answer = Appended {
                outcome: Outcome::Appended,
                base_offset: first,
                last_offset: last,
                log_append_time,
                log_start_offset: state.log_start,
            };
            let ack = if state.flush_is_due() { Ack::Durable } else { append.ack };
            let number = state.progress.accepted;
            self.ask_for_space(&mut state);
            return Ok(Ordered { state, number, ack, answer });
        }
    }

    /// Has what was staged carried on its way where its caller may not come to wait for it soon: a thread that appends
    /// again before it waits drives several tickets, and they need not wait for it.
    fn see_to_commit(&self, state: &mut State, number: u64, ack: Ack) {
        let thread = this_thread();
        let (last_thread, last_number) = std::mem::replace(&mut state.progress.last_append, (thread, number));
        if thread == last_thread && state.progress.written < last_number {
            if ack == Ack::Durable {
                state.progress.durable_wanted = state.progress.durable_wanted.max(number);
            }
            self.ask_committer(state);
        }
    }

    /// Where much is staged that nobody waits for, the committer is asked to begin; where too much is, the caller
    /// waits.
    fn bound_staged(&self, mut state: MutexGuard<'_, State>, ack: Ack) -> Result<()> {
        let staged_bytes = state.staging.pending_bytes();
        if ack == Ack::Accepted && staged_bytes > STAGED_PLENTY_BYTES {
            self.ask_committer(&mut state);
        }
        if staged_bytes <= STAGED_LIMIT_BYTES {
            return Ok(());
        }
        let number = state.progress.flight.as_ref().map_or(state.progress.accepted, |flight| flight.number);
        self.commit_from(state, number, Ack::Written)
    }

    /// Stages the set and lets everything in memory follow. Nothing in here can fail.
    fn store(&self, state: &mut State, candidates: &mut [Candidate<'_>], client_id: Option<&str>, now_ms: i64) {
        let records = candidates.iter().map(|c| u64::try_from(c.header.record_count).unwrap_or(0)).sum();
        self.metrics.count_append(records, candidates.iter().map(|c| c.bytes.len() as u64).sum());
        for candidate in candidates.iter() {
            let (header, bytes) = (&candidate.header, &*candidate.bytes);
            if state.epochs.assign(header.partition_leader_epoch, header.base_offset).expect("checked by place") {
                state.epochs_dirty = true;
            }
            state.staging.reserve(bytes.len(), &self.buffers);
            let staged = state.staging.extend(bytes.len());
            staged.copy_from_slice(bytes);
            stamp(staged, header.base_offset, header.partition_leader_epoch).expect("a whole batch");
            let segment = state.active_mut();
            segment.index_batch(segment.size, header);
            segment.first_batch_timestamp.get_or_insert(header.max_timestamp);
            segment.size += bytes.len() as u64;
            segment.next_offset = header.next_offset();
            segment.data_end = segment.next_offset;
            segment.grown_ms = now_ms;
            segment.persisted = false;
        }
        state.progress.accepted += 1;
        let known = state.producers.len();
        apply_changes(state, candidates, now_ms);
        if let Some(created @ 1..) = state.producers.len().checked_sub(known) {
            state.accounts.note(client_id.unwrap_or_default(), created as u64, now_ms);
        }
        state.refresh_first_unstable();
        state.check_order();
    }
}

/// Tells threads apart, by where their stacks' neighbours lie; never 0.
fn this_thread() -> usize {
    thread_local!(static MARK: u8 = const { 0 });
    MARK.with(|mark| std::ptr::from_ref(mark).addr())
}

/// Everything that speaks against the set but what its producers say.
fn may_be_stored(
    state: &State,
    candidates: &mut [Candidate<'_>],
    assigns: bool,
    leader_epoch: i32,
    size_bytes: usize,
) -> Result<()> {
    state.check_writable()?;
    place(state, candidates, assigns, leader_epoch)?;
    let segment_bytes = state.config.segment_bytes;
    if size_bytes as u64 > segment_bytes {
        return Err(Error::RecordListTooLarge { size_bytes, segment_bytes });
    }
    Ok(())
}

/// Gives each batch its offsets and leader epoch, or checks those that it brings.
fn place(state: &State, candidates: &mut [Candidate<'_>], assigns: bool, leader_epoch: i32) -> Result<()> {
    let log_end_offset = state.log_end();
    if !assigns {
        let (first, last) = (candidates[0].header.base_offset, candidates[0].header.last_offset());
        if first < log_end_offset {
            return Err(Error::UnexpectedAppendOffset { first_offset: first, last_offset: last, log_end_offset });
        }
    }
    let mut next = log_end_offset;
    for candidate in candidates.iter_mut() {
        if assigns {
            candidate.header.base_offset = next;
            candidate.header.partition_leader_epoch = leader_epoch;
        }
        if candidate.header.partition_leader_epoch < 0 {
            let epoch = candidate.header.partition_leader_epoch;
            return Err(Error::InvalidRequest(format!(
                "leader epoch {epoch} at offset {}",
                candidate.header.base_offset
            )));
        }
        let Some(after) = candidate.header.last_offset().checked_add(1) else {
            return Err(Error::InvalidRequest("the log is at the last possible offset".into()));
        };
        next = after;
        if let Some(batch) = &mut candidate.incoming {
            batch.first_offset = candidate.header.base_offset;
            batch.last_offset = candidate.header.last_offset();
        }
    }
    Ok(())
}

/// Judges every batch of the set against copies; nothing in the log changes.
fn decide(state: &State, candidates: &mut [Candidate<'_>], append: &Append<'_>, now_ms: i64) -> Result<Decision> {
    let options = AdmitOptions {
        origin: append.origin,
        verification_enabled: state.config.transaction_partition_verification_enable,
        txn_version: append.txn_version,
        guard: append.guard,
        now_ms,
    };
    for at in 0..candidates.len() {
        let (before, rest) = candidates.split_at_mut(at);
        let candidate = &mut rest[0];
        candidate.change = None;
        let Some(batch) = &candidate.incoming else { continue };
        let id = batch.producer_id;
        let verification = state.verifications.get(id);
        let earlier = before.iter().rev().find(|c| c.change.as_ref().is_some_and(|change| change.producer_id == id));
        if earlier.is_none()
            && verification.is_none()
            && let Some(hint) = state.producers.follows(batch)
        {
            candidate.change = Some(Change::plain(id, hint));
            continue;
        }
        let earlier = earlier.map(|candidate| standing_behind(state, candidate, now_ms));
        let (known, hint) = look(state, batch);
        let judge = |options| admit(&known, earlier.as_ref(), verification, batch, options);
        let verdict = match judge(&options) {
            Verdict::Refuse(refusal) if forgiven(&refusal) => {
                judge(&AdmitOptions { origin: Origin::Replication, ..options })
            }
            Verdict::Duplicate(_) if planted(Bug::DuplicateStored) => {
                judge(&AdmitOptions { origin: Origin::Replication, ..options })
            }
            verdict => verdict,
        };
        match verdict {
            Verdict::Duplicate(meta) => return Ok(Decision::Duplicate(meta)),
            Verdict::Refuse(refusal) => return Err(Error::Refused { producer_id: id, refusal }),
            Verdict::Append { update, completed, started_txn, clears_verification } => {
                let started = started_txn.then_some(batch.first_offset);
                let update = Some(update);
                let change = Change { producer_id: id, update, hint, completed, started, clears_verification };
                candidate.change = Some(change);
            }
        }
    }
    Ok(Decision::Store)
}

/// The standing of its producer that a batch of this set leads to.
fn standing_behind(state: &State, candidate: &Candidate<'_>, now_ms: i64) -> Standing {
    match (&candidate.incoming, candidate.change.as_ref().and_then(|change| change.update.as_ref())) {
        (_, Some(update)) => update.standing,
        (Some(batch), None) => absorb(&look(state, batch).0.standing, batch, now_ms).standing,
        (None, None) => Standing::default(),
    }
}

/// Whether a bug is planted that takes what must be refused for this reason.
fn forgiven(refusal: &Refusal) -> bool {
    match refusal {
        Refusal::OutOfOrderSequence { .. } => planted(Bug::SequenceGapAccepted),
        Refusal::InvalidProducerEpoch { .. } => planted(Bug::FencedEpochAccepted),
        Refusal::TransactionCoordinatorFenced { .. } => planted(Bug::FencedCoordinatorAccepted),
        Refusal::InvalidTxnState { .. } => planted(Bug::UnverifiedTransactionAccepted),
        _ => false,
    }
}

/// Has what is stored of all the set's producers fetched together: of a million, each lies in memory that no cache
/// holds.
fn ask_for_producers(state: &State, candidates: &[Candidate<'_>]) {
    for batch in candidates.iter().filter_map(|candidate| candidate.incoming.as_ref()) {
        prefetch(state.producers.memory(batch.producer_id));
    }
}

/// What the table knows of a batch's producer.
fn look(state: &State, batch: &Incoming) -> (Known, Hint) {
    state.producers.look(batch.producer_id, batch.epoch, batch.base_sequence, batch.last_sequence)
}

/// Kafka's order: all transactions of the set start, then those that end are completed one by one.
fn apply_changes(state: &mut State, candidates: &[Candidate<'_>], now_ms: i64) {
    let changes = || candidates.iter().filter_map(|candidate| candidate.change.as_ref());
    let update = |candidate: &&Candidate<'_>| candidate.change.as_ref().and_then(|change| change.update);
    let first = candidates.iter().find(|c| update(c).is_some_and(|update| update.standing.uses_transactions()));
    if let Some(first) = first {
        state.reach.transactional_from.get_or_insert(first.header.base_offset);
    }
    let mut left = BTreeMap::new();
    if candidates.len() > 1 {
        let forgetting = changes().filter(|change| change.update.is_some_and(|update| update.forgets));
        let forgetting = forgetting.map(|change| change.producer_id);
        left = forgetting.filter_map(|id| Some((id, state.producers.get(id)?))).collect();
    }
    for candidate in candidates {
        let (Some(change), Some(batch)) = (&candidate.change, &candidate.incoming) else { continue };
        if change.clears_verification {
            state.verifications.clear(change.producer_id);
        }
        match &change.update {
            Some(update) => state.producers.apply(change.producer_id, update, change.hint),
            None => state.producers.follow(batch, now_ms, change.hint),
        }
        if let Some(first_offset) = change.started {
            state.transactional = true;
            state.txns.start(change.producer_id, first_offset);
        }
    }
    for (id, before) in left {
        rejoin(&mut state.producers, id, &before, i64::MAX);
    }
    for completed in changes().filter_map(|change| change.completed.as_ref()) {
        complete_txn(state, completed);
    }
}

/// Ends one transaction and remembers it in the aborted index if it was aborted.
pub(super) fn complete_txn(state: &mut State, completed: &CompletedTxn) {
    let last_stable_offset = state.txns.complete(completed);
    if !completed.commit && !planted(Bug::AbortNotIndexed) {
        state.aborted.push(oncelog_formats::txn_index::AbortedTxn {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset,
        });
    }
}

//! The verdict: may this batch be appended, is it a repetition, or is it refused?
//!
//! Pure, so that it can be held against Kafka's answers row by row (`testdata/kafka/producer-vectors.tsv`; rule numbers
//! P, E and V below are those of the page beside it). The rules stand in the order in which Kafka asks them, since the
//! first one that applies names the error.

use crate::producer::{BatchMeta, Known, NO_EPOCH, Standing, Update, batch_meta};
use crate::refusal::{Refusal, TxnStateConflict};
use crate::verification::Verification;

/// From this transaction version on every marker raises the producer's epoch.
const EPOCH_BUMP_VERSION: i16 = 2;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer; the only one whose sequences are checked.
    Client,
    /// A group or transaction coordinator.
    Coordinator,
    /// The leader of a Raft log.
    RaftLeader,
    /// A copy of what a leader took: followers, recovery, rebuilding. Hardly anything is refused.
    Replication,
}

/// What a control batch of a producer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marker {
    /// The transaction ends here.
    EndTxn {
        /// Committed, else aborted.
        commit: bool,
        /// Epoch of the coordinator that wrote it.
        coordinator_epoch: i32,
        /// Timestamp of the marker's record in ms.
        timestamp: i64,
    },
    /// Compaction took the record; the whole transaction is gone from the log.
    Empty,
    /// Another type of control record.
    Other,
}

/// A batch with a producer id, as far as the verdict needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incoming {
    /// The producer; at least 0.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of the first record, -1 without.
    pub base_sequence: i32,
    /// Sequence of the last record, -1 without.
    pub last_sequence: i32,
    /// Offset that the first record gets.
    pub first_offset: i64,
    /// Offset that the last record gets.
    pub last_offset: i64,
    /// The batch's maximum timestamp in ms.
    pub max_timestamp: i64,
    /// The transactional bit.
    pub transactional: bool,
    /// Set for a control batch.
    pub marker: Option<Marker>,
}

/// What else the verdict depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmitOptions {
    /// Who appends.
    pub origin: Origin,
    /// Whether transactional batches need a guard.
    pub verification_enabled: bool,
    /// Version of the transaction that a marker ends; unknown for other batches and in replication.
    pub txn_version: Option<i16>,
    /// The guard presented.
    pub guard: Option<u64>,
    /// Our clock in ms.
    pub now_ms: i64,
}

/// A transaction that a marker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTxn {
    /// The producer.
    pub producer_id: i64,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Offset of the marker.
    pub last_offset: i64,
    /// Committed, else aborted.
    pub commit: bool,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// To be appended; what follows from it holds once the bytes are written.
    Append {
        /// What it changes of its producer.
        update: Update,
        /// The transaction that ends here.
        completed: Option<CompletedTxn>,
        /// Whether a transaction starts at the batch's first offset.
        started_txn: bool,
        /// Whether the verification entry has served its purpose.
        clears_verification: bool,
    },
    /// A repetition of this remembered batch; nothing may be written of the whole append.
    Duplicate(BatchMeta),
    /// Refused; nothing may be written of the whole append.
    Refuse(Refusal),
}

/// Judges one batch.
///
/// `known` is what is known of the producer before this append (the default for a new one), `working` the standing that
/// an earlier batch of the same append led to (none for the first batch), `verification` what is pending for the
/// producer. Batches without a producer id are not asked about here. Rules of form (sequences below 0, control batches
/// of clients) are the validator's, not asked here.
#[inline(always)]
pub fn admit(
    known: &Known,
    working: Option<&Standing>,
    verification: Option<&Verification>,
    batch: &Incoming,
    options: &AdmitOptions,
) -> Verdict {
    if options.origin == Origin::Client
        && let Some(duplicate) = known.repeated
    {
        return Verdict::Duplicate(duplicate); // P1
    }
    let stored = &known.standing;
    let current = working.unwrap_or(stored);
    let question = Question { stored, current, known, verification, batch, options };
    match question.check() {
        Ok(()) => question.append(),
        Err(refusal) => Verdict::Refuse(refusal),
    }
}

/// What a batch changes that stands in the log whatever the rules say: what replication of a refused batch would have
/// led to. A log that holds such a batch must still open; the caller reports it.
#[inline(always)]
pub fn absorb(current: &Standing, batch: &Incoming, now_ms: i64) -> Update {
    let mut update = Update { standing: *current, forgets: false, batch: None, last_append_ms: now_ms };
    let standing = &mut update.standing;
    match batch.marker {
        None => {
            update.forgets = standing.epoch != batch.epoch;
            standing.epoch = batch.epoch;
            standing.last_sequence = batch.last_sequence;
            standing.has_batches = true;
            standing.last_timestamp = batch.max_timestamp;
            if batch.transactional && standing.txn_first_offset.is_none() {
                standing.txn_first_offset = Some(batch.first_offset);
            }
            let (first, last) = (batch.first_offset, batch.last_offset);
            update.batch = Some(batch_meta(batch.last_sequence, first, last, batch.max_timestamp));
        }
        Some(Marker::EndTxn { coordinator_epoch, timestamp, .. }) => {
            update.forgets = standing.epoch != batch.epoch;
            if update.forgets {
                (standing.epoch, standing.last_sequence, standing.has_batches) = (batch.epoch, -1, false);
            }
            standing.coordinator_epoch = coordinator_epoch;
            standing.last_timestamp = timestamp;
            standing.txn_first_offset = None;
        }
        // Kafka registers the producer and leaves everything else, the epoch too, as it is.
        Some(Marker::Empty | Marker::Other) => {}
    }
    update
}

struct Question<'a> {
    /// Before the append.
    stored: &'a Standing,
    /// Before the batch.
    current: &'a Standing,
    known: &'a Known,
    verification: Option<&'a Verification>,
    batch: &'a Incoming,
    options: &'a AdmitOptions,
}

impl Question<'_> {
    #[inline(always)]
    fn check(&self) -> Result<(), Refusal> {
        if matches!(self.options.origin, Origin::Client | Origin::Coordinator) && self.batch.transactional {
            self.check_transactional()?;
        }
        match self.batch.marker {
            None => self.check_data(),
            Some(Marker::EndTxn { coordinator_epoch, .. }) => self.check_marker(coordinator_epoch),
            Some(Marker::Empty) => Ok(()),
            Some(Marker::Other) => Err(Refusal::UnexpectedControlRecord),
        }
    }

    /// P2, P3 and E2: what is asked of transactional batches first, unless their transaction is open.
    #[inline(always)]
    fn check_transactional(&self) -> Result<(), Refusal> {
        if self.current.has_open_txn_in(self.batch.epoch) {
            return Ok(());
        }
        self.check_not_stale()?;
        let guarded = self.verification.is_some_and(|pending| self.options.guard == Some(pending.guard));
        if self.options.verification_enabled && self.batch.marker.is_none() && !guarded {
            return Err(txn_state(self.batch.producer_id, TxnStateConflict::NotVerified));
        }
        Ok(())
    }

    /// P4 to P9.
    #[inline(always)]
    fn check_data(&self) -> Result<(), Refusal> {
        if self.options.origin != Origin::Replication {
            self.check_not_stale()?;
        }
        if self.options.origin == Origin::Client && !self.sequence_fits() {
            return Err(Refusal::OutOfOrderSequence {
                producer_id: self.batch.producer_id,
                epoch: self.batch.epoch,
                sequence: self.batch.base_sequence,
                stored_epoch: self.current.epoch,
                last_sequence: self.current.last_sequence,
            });
        }
        if self.current.txn_first_offset.is_some() && !self.batch.transactional {
            return Err(txn_state(self.batch.producer_id, TxnStateConflict::OpenTransaction));
        }
        Ok(())
    }

    /// P5 to P8.
    #[inline(always)]
    fn sequence_fits(&self) -> bool {
        let sequence = self.batch.base_sequence;
        if let Some(pending) = self.verification {
            let from_nothing = pending.bumps_epoch && (!self.stored.has_batches || self.known.forgotten);
            if sequence > pending.lowest_sequence || (from_nothing && sequence != 0) {
                return false;
            }
        }
        if self.known.forgotten {
            // As of an unknown producer, but nothing that is known to be stored is taken again.
            return !self.known.overlaps;
        }
        if self.batch.epoch != self.current.epoch {
            return sequence == 0 || self.current.epoch == NO_EPOCH;
        }
        // Of a producer that was unknown before this append no sequence is asked, not even between its batches.
        self.stored.epoch == NO_EPOCH || sequence == self.current.next_sequence()
    }

    /// E3 to E7.
    #[inline(always)]
    fn check_marker(&self, coordinator_epoch: i32) -> Result<(), Refusal> {
        if self.options.origin == Origin::Replication {
            return Ok(());
        }
        let version = self.options.txn_version.ok_or(Refusal::UnknownTransactionVersion)?;
        let same_epoch = self.batch.epoch == self.current.epoch && self.batch.epoch != i16::MAX;
        if version >= EPOCH_BUMP_VERSION && same_epoch && self.current.txn_first_offset.is_some() {
            return Err(stale(self.batch.producer_id, self.batch.epoch, self.current.epoch));
        }
        self.check_not_stale()?;
        if coordinator_epoch < self.current.coordinator_epoch {
            return Err(Refusal::TransactionCoordinatorFenced {
                producer_id: self.batch.producer_id,
                coordinator_epoch,
                stored_coordinator_epoch: self.current.coordinator_epoch,
            });
        }
        Ok(())
    }

    #[inline(always)]
    fn append(&self) -> Verdict {
        let update = absorb(self.current, self.batch, self.options.now_ms);
        let was_open = self.current.txn_first_offset;
        let completed = match (self.batch.marker, was_open) {
            (Some(Marker::EndTxn { commit, .. }), Some(first_offset)) => Some(CompletedTxn {
                producer_id: self.batch.producer_id,
                first_offset,
                last_offset: self.batch.first_offset,
                commit,
            }),
            _ => None,
        };
        let started_txn = was_open.is_none() && update.standing.txn_first_offset.is_some();
        let clears_verification = self.verification.is_some_and(|pending| pending.is_served_by(self.batch));
        Verdict::Append { update, completed, started_txn, clears_verification }
    }

    #[inline(always)]
    fn check_not_stale(&self) -> Result<(), Refusal> {
        if self.batch.epoch < self.current.epoch {
            Err(stale(self.batch.producer_id, self.batch.epoch, self.current.epoch))
        } else {
            Ok(())
        }
    }
}

// Of values, not of the question: so it need not stand in memory for their sake.

#[cold]
fn stale(producer_id: i64, epoch: i16, stored_epoch: i16) -> Refusal {
    Refusal::InvalidProducerEpoch { producer_id, epoch, stored_epoch }
}

#[cold]
fn txn_state(producer_id: i64, conflict: TxnStateConflict) -> Refusal {
    Refusal::InvalidTxnState { producer_id, conflict }
}

//! Batches of the log applied to producer states, by the rules of a replica.

use oncelog_device::planted::{Bug, planted};
use oncelog_formats::BatchView;
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::{
    AdmitOptions, CompletedTxn, Forgotten, Incoming, OpenTxns, Origin, ProducerEntry, ProducerTable, Refusal, Verdict,
    absorb, admit,
};
use std::collections::BTreeMap;

use super::{Rebuild, Recovery};
use crate::error::Result;
use crate::log::state::Segment;
use crate::segment::incoming;

/// Producers and transactions as some way of reading the log leads to them.
#[derive(Default)]
pub(in crate::log) struct View {
    pub producers: ProducerTable,
    pub txns: OpenTxns,
    pub reach: Reach,
    /// Producers that left an epoch within the segment at hand, as they were before they first did.
    pub(super) left: BTreeMap<i64, ProducerEntry>,
}

/// Which batches count in what is known of transactions: what lies before may have been forgotten, as Kafka does.
#[derive(Clone, Copy, Default)]
pub(in crate::log) struct Reach {
    /// Every batch from here on.
    pub complete_from: i64,
    /// The first one by which the producers used transactions; 0 if that is not known.
    pub transactional_from: Option<i64>,
}

impl View {
    /// What a snapshot at `offset` says.
    pub fn from_table(offset: i64, producers: ProducerTable) -> Self {
        let (mut txns, mut transactional_from) = (OpenTxns::new(), None);
        for (id, entry) in producers.iter() {
            let open = entry.txn_first_offset.filter(|_| !planted(Bug::OpenTransactionForgotten));
            open.into_iter().for_each(|first| txns.start(id, first));
            if entry.coordinator_epoch >= 0 || entry.txn_first_offset.is_some() {
                transactional_from = Some(0);
            }
        }
        let reach = Reach { complete_from: offset, transactional_from };
        Self { producers, txns, reach, left: BTreeMap::new() }
    }

    /// What stands in the log counts, whatever the rules say; only what the rules say of it is reported. Answers the
    /// transaction that is aborted here.
    pub fn apply(&mut self, batch: &Incoming, append_ms: i64) -> std::result::Result<Option<AbortedTxn>, Refusal> {
        let Replayed { uses_transactions, started_txn, completed, refusal, left } =
            replay(&mut self.producers, batch, append_ms);
        if let Some(before) = left {
            self.left.entry(batch.producer_id).or_insert(before);
        }
        if uses_transactions {
            self.reach.transactional_from.get_or_insert(batch.first_offset);
        }
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        if started_txn {
            self.txns.start(batch.producer_id, batch.first_offset);
        }
        let Some(completed) = completed else { return Ok(None) };
        let last_stable_offset = self.txns.complete(&completed);
        Ok((!completed.commit).then_some(AbortedTxn {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset,
        }))
    }

    /// A segment ends that Kafka's load reads as one set, if it does so, from `from` on.
    pub fn end_set(&mut self, from: Option<i64>) {
        for (id, before) in std::mem::take(&mut self.left) {
            if let Some(from) = from {
                rejoin(&mut self.producers, id, &before, from);
            }
        }
    }
}

/// A set of batches that left a producer's epoch and came back to it leaves it the batches from before the set, which
/// begins at `from`: Kafka looks at epochs before and after a set, not within. `before`: when it left its epoch.
pub(in crate::log) fn rejoin(producers: &mut ProducerTable, id: i64, before: &ProducerEntry, from: i64) {
    let older = before.batches().iter().filter(|batch| batch.last_offset < from);
    if let Some(after) = producers.get(id)
        && after.epoch == before.epoch
        && before.forgotten != Forgotten::Producer
        && older.clone().next().is_some()
    {
        producers.put(id, after.with_older(older));
    }
}

/// What one batch of the log did.
#[derive(Default)]
pub(in crate::log) struct Replayed {
    uses_transactions: bool,
    started_txn: bool,
    completed: Option<CompletedTxn>,
    /// What the rules say of it; it counts all the same.
    refusal: Option<Refusal>,
    /// The producer before it left its epoch with this batch.
    left: Option<ProducerEntry>,
}

/// One batch of the log applied to its producer.
pub(in crate::log) fn replay(producers: &mut ProducerTable, batch: &Incoming, append_ms: i64) -> Replayed {
    let options = AdmitOptions {
        origin: Origin::Replication,
        verification_enabled: false,
        txn_version: None,
        guard: None,
        now_ms: append_ms,
    };
    let id = batch.producer_id;
    let (known, hint) = producers.look(id, batch.epoch, batch.base_sequence, batch.last_sequence);
    let (update, replayed) = match admit(&known, None, None, batch, &options) {
        Verdict::Append { update, completed, started_txn, .. } => {
            (update, Replayed { completed, started_txn, ..Replayed::default() })
        }
        Verdict::Refuse(refusal) => {
            let update = absorb(&known.standing, batch, append_ms);
            (update, Replayed { refusal: Some(refusal), ..Replayed::default() })
        }
        Verdict::Duplicate(_) => return Replayed::default(),
    };
    let left = if update.forgets { producers.get(id) } else { None };
    producers.apply(id, &update, hint);
    Replayed { uses_transactions: update.standing.uses_transactions(), left, ..replayed }
}

impl Recovery<'_> {
    pub(super) fn take_batch(
        &mut self,
        segment: &mut Segment,
        position: u64,
        view: &BatchView<'_>,
        rebuild: Rebuild,
    ) -> Result<()> {
        let header = view.header();
        self.report.batches_scanned += 1;
        self.report.bytes_scanned += header.size_bytes() as u64;
        segment.first_batch_timestamp.get_or_insert(header.max_timestamp);
        if rebuild.index {
            segment.index_batch(position, header);
            if header.partition_leader_epoch > self.epochs.latest().unwrap_or(-1) {
                self.epochs_dirty |=
                    self.epochs.assign(header.partition_leader_epoch, header.base_offset).unwrap_or(false);
            }
        } else {
            segment.index.note_timestamp(header.max_timestamp, header.last_offset());
        }
        let in_doubt = segment.base_offset >= self.starts.doubt;
        let counts = in_doubt || header.last_offset() >= self.starts.view;
        if (counts || header.last_offset() >= self.starts.kept)
            && let Some(batch) = incoming(view)?
        {
            self.report.batches_replayed += 1;
            self.meet_ahead(header.base_offset);
            let by_client = planted(Bug::ExpiryByClientTime);
            let append_ms = if by_client { header.max_timestamp } else { self.append_ms(segment, batch.producer_id) };
            if counts && self.put_off(&batch, append_ms)? {
                return Ok(());
            }
            self.replay(&batch, append_ms, counts, rebuild.aborted);
        }
        Ok(())
    }

    fn replay(&mut self, batch: &Incoming, append_ms: i64, counts: bool, rebuild_aborted: bool) {
        if !counts {
            self.keep(batch, append_ms);
            return;
        }
        let pending = self.before.and_then(|before| before.verifications.get(batch.producer_id));
        if pending.is_some_and(|pending| pending.is_served_by(batch)) {
            self.verified.insert(batch.producer_id);
        }
        match self.view.apply(batch, append_ms) {
            Ok(Some(aborted)) if rebuild_aborted => self.aborted.push(aborted),
            Ok(_) => {}
            Err(refusal) => {
                self.report.repaired.push(format!("offset {}: {refusal}; kept as it stands", batch.first_offset));
            }
        }
    }

    /// When a replayed batch was appended is known if the log was open just now. Otherwise: not after its segment was
    /// last written, which is what counts, so that nobody is forgotten too early. Its own timestamps are the client's
    /// and say nothing.
    fn append_ms(&self, segment: &Segment, producer_id: i64) -> i64 {
        if let Some(known) = self.before.and_then(|before| before.producers.get(producer_id)) {
            return known.last_append_ms;
        }
        let now_ms = self.clock.now_ms();
        segment.grown_ms.clamp(self.append_floor_ms.min(now_ms), now_ms)
    }
}

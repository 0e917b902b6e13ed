//! Atomic batches: records in several logs of one engine that are all there or none, through any crash, without a
//! coordinator. `docs/transactions.md` says what that means for readers and why it is done like this.

mod decision;
mod earlier;
pub(crate) mod ledger;

use std::sync::Arc;

use oncelog_formats::BatchBuilder;
use oncelog_snapshot::Origin;

use crate::error::{Error, Result};
use crate::log::{Ack, Append, Log};
use ledger::{EPOCH, Ledger, Marked, append_marker};

pub use ledger::{DECISIONS_LOG, PRODUCER_IDS};

/// Records for several logs of one engine, stored all or not at all.
///
/// Made by [`crate::Engine::begin`]. In each log it is a transaction of a producer of the engine's own: committed
/// readers see nothing of it before it is committed, and what lies behind it has to wait so long, so it should not stay
/// open. Dropping it without [`AtomicBatch::commit`] aborts it; so does a crash before its decision is durable.
///
/// ```
/// # use oncelog::{Engine, EngineOptions, OpenOptions};
/// # use oncelog_formats::BatchBuilder;
/// # let directory = tempfile::tempdir()?;
/// # let engine = Engine::open(directory.path(), EngineOptions::default())?;
/// let bills = engine.log("bills-0", OpenOptions::default())?;
/// let positions = engine.log("positions-0", OpenOptions::default())?;
/// let (mut bill, mut position) = (BatchBuilder::new(), BatchBuilder::new());
/// bill.append(0, None, Some(b"7 apples"), &[]);
/// position.append(0, Some(b"billing"), Some(&41i64.to_be_bytes()), &[]);
///
/// let mut batch = engine.begin()?;
/// batch.append(&bills, bill)?;
/// batch.append(&positions, position)?;
/// batch.commit()?; // from here on it survives any crash
/// # engine.close()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it aborts it"]
pub struct AtomicBatch {
    ledger: Arc<Ledger>,
    engine_id: usize,
    producer_id: i64,
    parts: Vec<Marked>,
    ended: bool,
}

impl std::fmt::Debug for AtomicBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let logs: Vec<_> = self.parts.iter().map(|part| part.log.name()).collect();
        f.debug_struct("AtomicBatch").field("producer_id", &self.producer_id).field("logs", &logs).finish()
    }
}

impl AtomicBatch {
    pub(crate) fn new(ledger: Arc<Ledger>, engine_id: usize) -> Result<Self> {
        let producer_id = ledger.take_producer()?;
        Ok(Self { ledger, engine_id, producer_id, parts: Vec::new(), ended: false })
    }

    /// Adds records to a log; answers the offset of the first. Producer, offsets and the transactional bit of the
    /// builder are set here, all else is the caller's. Nothing waits for the disk.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a log of another engine, for that of the decisions, for one whose high watermark
    /// somebody else moves, and for one that was truncated since the batch began in it; those of [`Log::append`]. The
    /// batch stays as it was.
    pub fn append(&mut self, log: &Log, records: BatchBuilder) -> Result<i64> {
        let shared = &log.shared;
        if Arc::as_ptr(&shared.checkpoints) as usize != self.engine_id {
            return Err(Error::InvalidRequest("the log belongs to another engine".into()));
        }
        if shared.name() == DECISIONS_LOG {
            return Err(Error::InvalidRequest(format!("{DECISIONS_LOG} is for decisions alone")));
        }
        let (follows_end, generation) = {
            let state = shared.state.lock();
            (state.follows_end, state.generation)
        };
        if !follows_end {
            let reason = "an atomic batch needs a log whose high watermark follows its end";
            return Err(Error::InvalidRequest(reason.into()));
        }
        let begun = self.parts.iter().find(|part| Arc::ptr_eq(&part.log, shared));
        if begun.is_some_and(|part| part.generation != generation) {
            return Err(Error::InvalidRequest("the log was truncated since the batch began in it".into()));
        }
        if begun.is_none() && log.producer(self.producer_id).is_some_and(|entry| entry.txn_first_offset.is_some()) {
            // A truncation has cut the marker of an earlier batch.
            let _ordered = append_marker(shared, self.producer_id, false, Ack::Accepted)?;
        }
        let sequence = log.producer(self.producer_id).map_or(0, |entry| entry.last_sequence().wrapping_add(1).max(0));
        let guard = log.start_verification(self.producer_id, sequence, EPOCH, 0)?;
        let mut records = records.base_offset(0).producer(self.producer_id, EPOCH, sequence).transactional(true);
        let bytes = records.build().map_err(|e| Error::InvalidRequest(e.to_string()))?;
        let append = Append {
            batches: &bytes,
            origin: Origin::Coordinator,
            ack: Ack::Accepted,
            leader_epoch: shared.leader_epoch(),
            txn_version: None,
            guard,
            client_id: None,
        };
        let ticket = log.append(append)?;
        let (first_offset, number) = (ticket.expected().base_offset, ticket.number());
        let end_offset = ticket.expected().last_offset + 1;
        match self.parts.iter_mut().find(|part| Arc::ptr_eq(&part.log, shared)) {
            Some(part) => (part.end_offset, part.number) = (end_offset, number),
            None => {
                let log = shared.clone();
                self.parts.push(Marked { log, first_offset, end_offset, number, generation, marker: None });
            }
        }
        Ok(first_offset)
    }

    /// Decides for all of it. When this returns the batch survives any crash; committed readers of each log see it as
    /// soon as its marker there is durable, which is under way.
    ///
    /// One write: the decision carries the records that are not durable in their logs yet, and those go there behind
    /// it, with the markers. Much of them, or what is on its way to the disk, is waited for first, in all logs at the
    /// same time.
    ///
    /// # Errors
    /// The failure of a log, or a truncation of one meanwhile: the batch is aborted. [`Error::Storage`] of the
    /// decisions' log: whether the batch was committed is known when the engine is opened again, and until then none is
    /// begun.
    pub fn commit(mut self) -> Result<()> {
        self.ended = true;
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            self.ledger.give_back(self.producer_id);
            return Ok(());
        }
        let now_ms = parts[0].log.clock.now_ms();
        let ledger = self.ledger.clone();
        let _no_cut = ledger.no_cut();
        match self.ledger.decide(self.producer_id, &parts, now_ms)? {
            Ok(at) => {
                self.ledger.conclude(Some(at), self.producer_id, true, parts);
                Ok(())
            }
            Err(refused) => {
                self.ledger.conclude(None, self.producer_id, false, parts);
                Err(refused)
            }
        }
    }

    /// Takes everything back: no committed reader will see any of it. What dropping does.
    pub fn abort(self) {}
}

impl Drop for AtomicBatch {
    fn drop(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            let parts = std::mem::take(&mut self.parts);
            if parts.is_empty() {
                self.ledger.give_back(self.producer_id);
            } else {
                self.ledger.conclude(None, self.producer_id, false, parts);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, EngineOptions, OpenOptions};

    /// The driver may come between a decision and what follows from it.
    #[test]
    fn a_decision_is_not_let_go_before_its_markers_are_there() {
        let device = Some(Arc::new(oncelog_device::MemoryDevice::new()) as Arc<dyn oncelog_device::Device>);
        let options = EngineOptions { device, driver: false, ..EngineOptions::default() };
        let engine = Engine::open("data", options).expect("it opens");
        let log = engine.log("orders-0", OpenOptions::default()).expect("it opens");
        let mut batch = engine.begin().expect("a batch");
        let mut records = BatchBuilder::new();
        records.append(0, None, Some(b"x"), &[]);
        batch.append(&log, records).expect("it is stored");
        let (ledger, id) = (batch.ledger.clone(), batch.producer_id);
        let parts = std::mem::take(&mut batch.parts);
        batch.ended = true;
        let decisions = ledger.log().expect("it is open").clone();
        let at = ledger.decide(id, &parts, 0).expect("it is known").expect("it is stored");
        ledger.trim(1).expect("nothing goes");
        assert_eq!(decisions.log_start_offset(), at);
        ledger.conclude(Some(at), id, true, parts);
        ledger.trim(1).expect("nothing goes");
        assert_eq!(decisions.log_start_offset(), at, "the marker is not durable");
        log.drive().expect("it moves on");
        ledger.drive().expect("it moves on");
        ledger.trim(1).expect("it is let go");
        assert_eq!(decisions.log_start_offset(), at + 1);
    }
}

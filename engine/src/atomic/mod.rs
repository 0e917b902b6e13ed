//! Atomic batches: records in several logs of one engine that are all there or none, through any crash, without a
//! coordinator. `docs/transactions.md` says what that means for readers and why it is done like this.

mod decision;
pub(crate) mod ledger;

use std::sync::Arc;

use oncelog_formats::BatchBuilder;
use oncelog_snapshot::Origin;

use crate::error::{Error, Result};
use crate::log::{Ack, Append, Log};
use ledger::{EPOCH, Ledger, Marked};

pub use ledger::{DECISIONS_LOG, PRODUCER_IDS};

/// Records for several logs of one engine, stored all or not at all.
///
/// Made by [`crate::Engine::begin`]. In each log it is a transaction of a producer of the engine's own: committed readers see
/// nothing of it before it is committed, and what lies behind it has to wait so long, so it should not stay open. Dropping it
/// without [`AtomicBatch::commit`] aborts it; so does a crash before its decision is durable.
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
    parts: Vec<Part>,
    ended: bool,
}

/// What the batch has in one log.
struct Part {
    marked: Marked,
    /// Number of its newest append.
    number: u64,
}

impl std::fmt::Debug for AtomicBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let logs: Vec<_> = self.parts.iter().map(|part| part.marked.log.name()).collect();
        f.debug_struct("AtomicBatch").field("producer_id", &self.producer_id).field("logs", &logs).finish()
    }
}

impl AtomicBatch {
    pub(crate) fn new(ledger: Arc<Ledger>, engine_id: usize) -> Result<Self> {
        let producer_id = ledger.take_producer()?;
        Ok(Self { ledger, engine_id, producer_id, parts: Vec::new(), ended: false })
    }

    /// Adds records to a log; answers the offset of the first. Producer, offsets and the transactional bit of the builder
    /// are set here, all else is the caller's. Nothing waits for the disk.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a log of another engine, for that of the decisions, and for one whose high watermark
    /// somebody else moves; those of [`Log::append`]. The batch stays as it was.
    pub fn append(&mut self, log: &Log, records: BatchBuilder) -> Result<i64> {
        let shared = &log.shared;
        if Arc::as_ptr(&shared.checkpoints) as usize != self.engine_id {
            return Err(Error::InvalidRequest("the log belongs to another engine".into()));
        }
        if shared.name() == DECISIONS_LOG {
            return Err(Error::InvalidRequest(format!("{DECISIONS_LOG} is for decisions alone")));
        }
        if !shared.state.lock().follows_end {
            let reason = "an atomic batch needs a log whose high watermark follows its end";
            return Err(Error::InvalidRequest(reason.into()));
        }
        let sequence = log.producer(self.producer_id).map_or(0, |entry| entry.last_sequence().wrapping_add(1).max(0));
        let guard = log.start_verification(self.producer_id, sequence, EPOCH, 0)?;
        let mut records = records.base_offset(0).producer(self.producer_id, EPOCH, sequence).transactional(true);
        let bytes = records.build().map_err(|e| Error::InvalidRequest(e.to_string()))?;
        let append = Append {
            batches: &bytes,
            origin: Origin::Coordinator,
            ack: Ack::Durable,
            leader_epoch: shared.leader_epoch(),
            txn_version: None,
            guard,
        };
        let ticket = log.append(append)?;
        let (offset, number) = (ticket.expected().base_offset, ticket.number());
        match self.parts.iter_mut().find(|part| Arc::ptr_eq(&part.marked.log, shared)) {
            Some(part) => part.number = number,
            None => {
                let marked = Marked { log: shared.clone(), first_offset: offset, marker: None };
                self.parts.push(Part { marked, number });
            }
        }
        Ok(offset)
    }

    /// Decides for all of it. When this returns the batch survives any crash; committed readers of each log see it as soon
    /// as its marker there is durable, which is under way.
    ///
    /// The parts become durable at the same time, then the decision; the markers wait for nothing.
    ///
    /// # Errors
    /// The failure of a log: the batch is aborted. [`Error::Storage`] of the decisions' log: whether the batch was committed
    /// is known when the engine is opened again, and until then none is begun.
    pub fn commit(mut self) -> Result<()> {
        self.ended = true;
        let parts = std::mem::take(&mut self.parts);
        if parts.is_empty() {
            self.ledger.give_back(self.producer_id);
            return Ok(());
        }
        let appends: Vec<_> = parts.iter().map(|part| (part.marked.log.clone(), part.number)).collect();
        let marked: Vec<Marked> = parts.into_iter().map(|part| part.marked).collect();
        if let Err(error) = self.ledger.sync(&appends) {
            self.ledger.conclude(None, self.producer_id, false, marked);
            return Err(error);
        }
        let now_ms = marked[0].log.clock.now_ms();
        match self.ledger.decide(&marked, now_ms)? {
            Ok(at) => {
                self.ledger.conclude(Some(at), self.producer_id, true, marked);
                Ok(())
            }
            Err(refused) => {
                self.ledger.conclude(None, self.producer_id, false, marked);
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
            let parts: Vec<Marked> = self.parts.drain(..).map(|part| part.marked).collect();
            if parts.is_empty() {
                self.ledger.give_back(self.producer_id);
            } else {
                self.ledger.conclude(None, self.producer_id, false, parts);
            }
        }
    }
}

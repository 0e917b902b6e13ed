//! What a log has not made durable yet, for who makes it durable elsewhere: the decisions of atomic batches carry it
//! along.

use std::ops::Range;
use std::sync::Arc;

use oncelog_formats::Batches;
use parking_lot::RwLock;

use super::Shared;
use super::state::State;
use crate::error::{Error, Result};

/// A decision carries so many bytes of the logs. What has more on the way is synced first: from here on writing it
/// twice costs more than waiting twice.
pub(crate) const CARRIED_BYTES: usize = 256 << 10;

type TellCut = dyn Fn(i64, &[Range<i64>]) -> Result<()> + Send + Sync;

/// Who makes batches of this log durable elsewhere, as a truncation sees it.
pub(crate) struct BeforeCut {
    /// Held for reading from the look at what is not durable until what follows from it has its place in this log too,
    /// so that nothing comes behind the truncation with what was cut.
    pub order: Arc<RwLock<()>>,
    /// The offsets of transactions that are committed and have no marker in this log yet. Asked without the log's lock.
    pub unmarked: Box<dyn Fn() -> Vec<Range<i64>> + Send + Sync>,
    /// Told of a truncation to an offset, and of those, when everything in the log is durable and nothing is cut yet.
    pub tell: Box<TellCut>,
}

/// A transaction in a log, and the last append of it.
pub(crate) struct Wanted {
    pub producer_id: i64,
    pub first_offset: i64,
    pub number: u64,
    /// Of the log, when the transaction began: a truncation raises it.
    pub generation: u64,
}

/// What somebody else has to make durable.
#[derive(Default)]
pub(crate) struct Undurable {
    pub batches: Vec<u8>,
    /// Offset behind them.
    pub end_offset: i64,
}

impl Shared {
    /// The bytes of every batch that is neither durable nor covered elsewhere, in order, with the transaction's last
    /// append among them; nothing if that is durable already. `None`: it has to be synced, because its bytes are not at
    /// hand or are more than `limit_bytes`.
    ///
    /// Who makes these bytes durable in another place has made this log durable up to their end: what lies before them
    /// is.
    pub(crate) fn undurable(&self, wanted: &Wanted, limit_bytes: usize) -> Result<Option<Undurable>> {
        let mut state = self.state.lock();
        state.check_usable()?;
        let ongoing = state.txns.is_ongoing(wanted.producer_id, wanted.first_offset);
        if !ongoing || state.generation != wanted.generation {
            let reason = format!("the atomic batch may have lost its part from offset {}", wanted.first_offset);
            return Err(Error::InvalidRequest(reason));
        }
        state.progress.keeps_flight = true;
        if state.progress.durable >= wanted.number {
            return Ok(Some(Undurable::default()));
        }
        let batches = bytes_from(&state, state.progress.durable_offset.max(state.progress.covered_offset));
        let end_offset = state.log_end();
        Ok(batches.filter(|bytes| bytes.len() <= limit_bytes).map(|batches| Undurable { batches, end_offset }))
    }

    /// Whether a transaction is open from the first to the last of these offsets.
    pub(crate) fn holds(&self, producer_id: i64, offsets: Range<i64>) -> bool {
        let entry = self.state_with(producer_id).ok().and_then(|state| state.producers.get(producer_id));
        entry.is_some_and(|e| e.txn_first_offset == Some(offsets.start) && e.last_offset() + 1 == offsets.end)
    }

    /// The batches below this offset have their place in something that becomes durable before anything that follows
    /// from it.
    pub(crate) fn note_covered(&self, end_offset: i64) {
        let progress = &mut self.state.lock().progress;
        progress.covered_offset = progress.covered_offset.max(end_offset);
    }
}

/// The batches from an offset on that is the end of one, where they stand in the forming group or in the flight.
fn bytes_from(state: &State, from: i64) -> Option<Vec<u8>> {
    let (progress, staging) = (&state.progress, &state.staging);
    let staged = &staging.buffer.as_slice()[staging.carried..staging.length];
    let starts_at = first_offset(staged).unwrap_or(state.log_end());
    if from >= starts_at {
        return Some(behind(staged, from).to_vec());
    }
    let flight = progress.flight.as_ref()?;
    let in_flight = flight.batches.as_deref()?;
    let is_next = flight.end_offset == starts_at && first_offset(in_flight)? <= from;
    is_next.then(|| [behind(in_flight, from), staged].concat())
}

fn first_offset(batches: &[u8]) -> Option<i64> {
    Some(Batches::new(batches).next()?.ok()?.header().base_offset)
}

/// Without the batches that end at or below an offset.
fn behind(batches: &[u8], offset: i64) -> &[u8] {
    let whole = Batches::new(batches).map_while(|batch| batch.ok());
    let below = whole.take_while(|batch| batch.header().next_offset() <= offset);
    &batches[below.map(|batch| batch.bytes().len()).sum()..]
}

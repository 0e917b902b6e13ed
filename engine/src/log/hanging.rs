//! Which transactions are open, what holds the last stable offset back, and who is late.
//!
//! The log ends no transaction by itself, so one that nobody ends must not stay unseen: anyone can ask for it, and the
//! background work looks for it.

use std::collections::BTreeSet;

use oncelog_formats::BatchHeader;
use oncelog_formats::control::ControlType;
use oncelog_formats::{BatchView, Batches};
use parking_lot::Mutex;

use super::Shared;
use super::types::{Isolation, Read};
use crate::error::Result;
use crate::segment::walk::Walker;

/// Kafka's allowance above the time that a transaction may take before it counts as late.
pub const LATE_ALLOWANCE_MS: i64 = 5 * 60 * 1000;
/// How often the background work looks.
const LOOK_EVERY_MS: i64 = 10_000;

/// A transaction without a marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Whose.
    pub producer_id: i64,
    /// The producer's newest epoch.
    pub producer_epoch: i16,
    /// Epoch of the coordinator that wrote the producer's newest marker; -1 if none was seen.
    pub coordinator_epoch: i32,
    /// Offset of its first record.
    pub first_offset: i64,
    /// Timestamp of its first batch, ms, as the log says; `None` if the log start has passed it.
    pub started_ms: Option<i64>,
    /// Timestamp of the producer's newest batch, ms, as the log says.
    pub last_timestamp: i64,
    /// Our clock at the producer's newest append, ms. What lateness is counted from: a client's clock cannot move it.
    pub last_append_ms: i64,
    /// Bytes of batches from its first offset up to the high watermark: what committed readers would have to wait for.
    pub bytes_held_back: u64,
    /// It is part of an atomic batch of the engine.
    pub is_atomic_batch: bool,
}

/// What holds the last stable offset back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: it is the high watermark.
    Nothing,
    /// A transaction without a marker.
    Open(OpenTransaction),
    /// A transaction whose marker the high watermark has not passed.
    Decided {
        /// Whose.
        producer_id: i64,
        /// Epoch of the marker.
        producer_epoch: i16,
        /// Offset of its first record.
        first_offset: i64,
        /// Offset of the marker.
        marker_offset: i64,
        /// Which it is.
        commit: bool,
    },
}

/// Where the last stable offset stands and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    /// Committed readers see up to here.
    pub last_stable_offset: i64,
    /// Readers see up to here.
    pub high_watermark: i64,
    /// The difference.
    pub hold: Hold,
}

impl Explanation {
    /// What would release it, in a sentence.
    #[must_use]
    pub fn released_by(&self) -> String {
        match &self.hold {
            Hold::Nothing => "nothing holds it back: it is the high watermark".to_owned(),
            Hold::Open(txn) => {
                let id = txn.producer_id;
                format!("a COMMIT or ABORT marker for producer {id}, and the high watermark passing it")
            }
            Hold::Decided { marker_offset, commit, .. } => {
                let marker = if *commit { ControlType::Commit } else { ControlType::Abort }.name();
                format!("the high watermark passing offset {marker_offset}, where its {marker} marker stands")
            }
        }
    }
}

/// What the background work has seen.
#[derive(Debug, Default)]
pub(crate) struct Late(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    looked_ms: Option<i64>,
    /// First offsets of those that are late now.
    now: BTreeSet<i64>,
    ever: u64,
}

impl Late {
    pub fn counts(&self) -> (u64, u64) {
        let seen = self.0.lock();
        (seen.now.len() as u64, seen.ever)
    }
}

impl Shared {
    pub(crate) fn open_transactions(&self) -> Result<Vec<OpenTransaction>> {
        self.commit_all(super::types::Ack::Written)?;
        let (open, end) = {
            let state = self.state.lock();
            state.check_usable()?;
            let open: Vec<_> = state
                .txns
                .ongoing()
                .map(|(id, first)| (id, first, state.producers.get(id).unwrap_or_default()))
                .collect();
            (open, state.high_watermark)
        };
        let end_position = if open.is_empty() { (0, 0) } else { self.position_of(end)? };
        open.into_iter()
            .map(|(producer_id, first_offset, entry)| {
                let from = self.position_of(first_offset)?;
                Ok(OpenTransaction {
                    producer_id,
                    producer_epoch: entry.epoch,
                    coordinator_epoch: entry.coordinator_epoch,
                    first_offset,
                    started_ms: self.header_at(first_offset)?.map(|header| header.max_timestamp),
                    last_timestamp: entry.last_timestamp,
                    last_append_ms: entry.last_append_ms,
                    bytes_held_back: self.bytes_between(from, end_position),
                    is_atomic_batch: crate::atomic::PRODUCER_IDS.contains(&producer_id),
                })
            })
            .collect()
    }

    pub(crate) fn explain(&self) -> Result<Explanation> {
        let (last_stable_offset, high_watermark, first, decided) = {
            let state = self.state.lock();
            state.check_usable()?;
            let first = state.txns.first_unstable().filter(|_| state.last_stable() < state.high_watermark);
            let decided = state.txns.unreplicated().find(|(_, offset, _)| first == Some(*offset));
            (state.last_stable(), state.high_watermark, first, decided)
        };
        let hold = match (first, decided) {
            (None, _) => Hold::Nothing,
            (Some(_), Some((producer_id, first_offset, marker_offset))) => {
                let (producer_epoch, commit) = self.marker_at(marker_offset)?;
                Hold::Decided { producer_id, producer_epoch, first_offset, marker_offset, commit }
            }
            (Some(first), None) => {
                let open = self.open_transactions()?.into_iter().find(|txn| txn.first_offset == first);
                open.map_or(Hold::Nothing, Hold::Open)
            }
        };
        Ok(Explanation { last_stable_offset, high_watermark, hold })
    }

    /// Looks for late transactions now and then; says each of them once.
    pub(super) fn watch_transactions(&self) {
        let now_ms = self.clock.now_ms();
        let mut seen = self.late.0.lock();
        if seen.looked_ms.is_some_and(|looked| (looked..looked.saturating_add(LOOK_EVERY_MS)).contains(&now_ms)) {
            return;
        }
        seen.looked_ms = Some(now_ms);
        let late: Vec<(i64, i64, i64)> = {
            let state = self.state.lock();
            let limit_ms = state.config.transaction_max_timeout_ms.saturating_add(LATE_ALLOWANCE_MS);
            let idle_ms = |id| now_ms.saturating_sub(state.producers.get(id).map_or(now_ms, |p| p.last_append_ms));
            let open = state.txns.ongoing().map(|(id, first)| (first, id, idle_ms(id)));
            open.filter(|(.., idle)| *idle >= limit_ms).collect()
        };
        seen.now.retain(|first| late.iter().any(|(still, ..)| still == first));
        for (first_offset, producer_id, idle_ms) in late {
            if seen.now.insert(first_offset) {
                seen.ever += 1;
                tracing::warn!(
                    dir = %self.dir.display(), producer_id, first_offset, idle_ms,
                    "a transaction is late and holds committed readers back"
                );
            }
        }
    }

    /// Base offset of the segment and position in it where the batch that holds `offset` starts, or the next one.
    fn position_of(&self, offset: i64) -> Result<(i64, u64)> {
        let (file, base, size, hint) = {
            let state = self.state.lock();
            let segment = state.segment_of(offset).or_else(|| state.segments.values().next());
            let segment = segment.expect("a log has a segment");
            (segment.file.clone(), segment.base_offset, segment.written.size, segment.hint_for(offset))
        };
        let mut walker = Walker::new(&*file, base, size);
        Ok((base, walker.locate(hint, offset)?.map_or(size, |found| found.position)))
    }

    fn bytes_between(&self, from: (i64, u64), to: (i64, u64)) -> u64 {
        let state = self.state.lock();
        let whole: u64 = state.segments.range(from.0..to.0.max(from.0)).map(|(_, segment)| segment.size).sum();
        (whole + to.1).saturating_sub(from.1)
    }

    /// Header of the batch that holds `offset`, `None` where the log start has passed it.
    fn header_at(&self, offset: i64) -> Result<Option<BatchHeader>> {
        Ok(self.batch_at(offset)?.and_then(|bytes| BatchHeader::parse(&bytes).ok()))
    }

    fn marker_at(&self, offset: i64) -> Result<(i16, bool)> {
        let Some(bytes) = self.batch_at(offset)? else { return Ok((-1, false)) };
        let read = |view: BatchView<'_>| Some((view.header().producer_epoch, view.control().ok()?.marker?.commit));
        Ok(BatchView::new(&bytes).ok().and_then(read).unwrap_or((-1, false)))
    }

    fn batch_at(&self, offset: i64) -> Result<Option<Vec<u8>>> {
        if offset < self.state.lock().log_start {
            return Ok(None);
        }
        let fetched = self.read(&Read { max_bytes: 1, isolation: Isolation::LogEnd, ..Read::from(offset) })?;
        Ok(Batches::new(&fetched.data).next().and_then(|batch| Some(batch.ok()?.bytes().to_vec())))
    }
}

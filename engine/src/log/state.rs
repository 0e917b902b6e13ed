//! What a log keeps in memory, under one short lock.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Waker;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{AlignedBuffer, BLOCK_BYTES, BufferPool, DeviceError, DeviceFile};
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_formats::{BatchHeader, OffsetEntry};
use oncelog_snapshot::{OpenTxns, ProducerTable, Verifications};

use super::accounts::Accounts;
use super::checkpoint::{Checkpoints, SnapshotDue};
use super::expiry::Sweep;
use super::recover::Reach;
use super::spill::Spill;
use super::types::Ack;
use crate::config::Config;
use crate::epochs::EpochCache;
use crate::error::{Damage, Error, Result};
use crate::follow::{Limits, Waiting};
use crate::index::{AbortedIndex, SegmentIndex};
use crate::spares::Spare;

/// How far a segment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub size: u64,
    /// Offset behind its last batch.
    pub data_end: i64,
}

/// One segment. `size` and `next_offset` include what is staged.
pub(crate) struct Segment {
    pub base_offset: i64,
    pub file: Arc<dyn DeviceFile>,
    pub size: u64,
    pub next_offset: i64,
    /// Offset behind the last batch: below `next_offset` after a truncation inside a batch.
    pub data_end: i64,
    /// What of `size` and `data_end` has come to the file: who reads it goes no further, for there a write may be on
    /// its way.
    pub written: Extent,
    pub index: SegmentIndex,
    /// Largest timestamp of the first batch: the clock of time-based rolling.
    pub first_batch_timestamp: Option<i64>,
    pub created_ms: i64,
    /// When it last grew: stands in for timestamps in retention where records carry none.
    pub grown_ms: i64,
    /// Bytes that cannot be trusted, and everything behind them in this segment.
    pub damage: Option<Damage>,
    /// The side files on disk say what memory says.
    pub persisted: bool,
    /// Entries of its `.txnindex` on disk.
    pub aborted_stored: usize,
    /// Index files exist, as Kafka expects of every segment; those of the active one say nothing yet.
    pub has_index_files: bool,
}

impl Segment {
    /// First position of the file whose batches may be damaged, or are not there yet.
    pub fn trusted_size(&self) -> u64 {
        self.damage.as_ref().map_or(self.written.size, |damage| damage.position)
    }

    /// All of it is in the file.
    pub fn note_written(&mut self) {
        self.written = Extent { size: self.size, data_end: self.data_end };
    }

    /// One without a batch, made or found now.
    pub fn empty(base_offset: i64, file: Arc<dyn DeviceFile>, config: &Config, now_ms: i64) -> Self {
        Self {
            base_offset,
            file,
            size: 0,
            next_offset: base_offset,
            data_end: base_offset,
            written: Extent { size: 0, data_end: base_offset },
            index: SegmentIndex::new(base_offset, config),
            first_batch_timestamp: None,
            created_ms: now_ms,
            grown_ms: now_ms,
            damage: None,
            persisted: true,
            aborted_stored: 0,
            has_index_files: false,
        }
    }

    /// Counts a batch that starts at `position`; an index entry is made when one is due.
    pub fn index_batch(&mut self, position: u64, header: &BatchHeader) -> bool {
        self.index.append(position, header.size_bytes(), header.last_offset(), header.max_timestamp)
    }

    /// Where to begin to look for `offset`.
    pub fn hint_for(&self, offset: i64) -> OffsetEntry {
        self.index.lookup_offset(offset)
    }

    /// Largest record timestamp, or the time of the last growth where there is none.
    pub fn retention_timestamp(&self) -> i64 {
        match self.index.largest_timestamp() {
            t if t >= 0 => t,
            _ => self.grown_ms,
        }
    }
}

/// Bytes accepted and not yet handed to the device, all for the active segment. The buffer comes from the engine's pool
/// with the first append and goes back there with the group: an idle log holds its partial last block, nothing more.
pub(crate) struct Staging {
    /// File position of the buffer's first byte, a multiple of the block.
    pub start: u64,
    pub buffer: AlignedBuffer,
    /// Bytes of batches in the buffer, the carried ones included.
    pub length: usize,
    /// Bytes at the front that an earlier group has written already.
    pub carried: usize,
    /// Length of the group before: they come in turns, those who were woken together wait together.
    pub previous: usize,
    /// The spare file that becomes this segment, until the first group has renamed it.
    pub birth: Option<Birth>,
}

/// A spare's way to a segment: the committer renames it before it writes.
#[derive(Clone)]
pub(crate) struct Birth {
    pub from: PathBuf,
    pub to: PathBuf,
}

impl Staging {
    pub fn new(start: u64, carried: &[u8]) -> Self {
        let mut buffer = AlignedBuffer::new(carried.len());
        buffer.as_mut_slice()[..carried.len()].copy_from_slice(carried);
        Self { start, buffer, length: carried.len(), carried: carried.len(), previous: 0, birth: None }
    }

    pub fn pending_bytes(&self) -> usize {
        self.length - self.carried
    }

    /// Room for `bytes` more, in whole blocks.
    pub fn reserve(&mut self, bytes: usize, pool: &BufferPool) {
        let need = padded_length(self.length + bytes);
        if need > self.buffer.capacity_bytes() {
            let mut larger = pool.take(need);
            larger.as_mut_slice()[..self.length].copy_from_slice(&self.buffer.as_slice()[..self.length]);
            pool.give(std::mem::replace(&mut self.buffer, larger));
        }
    }

    /// Gives back what an idle log does not need.
    pub fn trim(&mut self, pool: &BufferPool) {
        if self.pending_bytes() == 0 && self.buffer.capacity_bytes() > BLOCK_BYTES {
            let mut smaller = AlignedBuffer::new(self.length);
            smaller.as_mut_slice()[..self.length].copy_from_slice(&self.buffer.as_slice()[..self.length]);
            pool.give(std::mem::replace(&mut self.buffer, smaller));
        }
    }

    /// The next bytes to fill; they count at once.
    pub fn extend(&mut self, bytes: usize) -> &mut [u8] {
        let from = self.length;
        self.length += bytes;
        &mut self.buffer.as_mut_slice()[from..from + bytes]
    }
}

/// Whole blocks that hold `length` bytes, one at least. What stands behind them in the file are written zeroes, always.
pub(crate) fn padded_length(length: usize) -> usize {
    length.max(1).next_multiple_of(BLOCK_BYTES)
}

/// One write to the device: what was staged together.
pub(crate) struct Group {
    pub file: Arc<dyn DeviceFile>,
    /// Of the segment.
    pub base_offset: i64,
    pub start: u64,
    pub buffer: AlignedBuffer,
    pub length: usize,
    /// Bytes at the front that an earlier group has written already.
    pub carried: usize,
    pub birth: Option<Birth>,
    /// The segment ends here: cut to its data and sync.
    pub seal_at: Option<u64>,
    /// Everything up to this append is on the device when the group is.
    pub number: u64,
    pub end_offset: i64,
}

impl Group {
    /// Appends in it, if number `written` was the last before. The end of a segment and its birth count like appends,
    /// but are none.
    pub fn appends_behind(&self, written: u64) -> u64 {
        let none = u64::from(self.seal_at.is_some()) + u64::from(self.birth.is_some());
        self.number.saturating_sub(written + none)
    }
}

/// How far ahead of its end a log has its space made ready: as far as it will go in a moment, by how fast it went of
/// late.
pub(crate) struct Window {
    pub bytes: u64,
    /// So many bytes were carried since then, monotonic ns.
    pub counted: u64,
    pub since_ns: u64,
    /// The active file is to be ready up to here.
    pub target: u64,
    /// The background has been asked.
    pub asked: bool,
    /// Bytes carried since the last turn that was durable.
    pub unsynced: u64,
    /// Bytes carried from one such turn to the next, of late.
    pub between_syncs: u64,
}

/// What is on its way to the device.
pub(crate) struct Flight {
    /// Every append up to this one will be written when it has landed.
    pub number: u64,
    /// And durable.
    pub durable: bool,
    /// Offset behind it.
    pub end_offset: i64,
    /// The batches that it carries, where somebody may ask for them (see [`Progress::keeps_flight`]).
    pub batches: Option<Vec<u8>>,
}

/// A future that waits for an append.
pub(crate) struct Awaited {
    pub level: Ack,
    pub waker: Waker,
}

/// A segment's file on its way out.
pub(crate) struct Doomed {
    pub at_ms: i64,
    pub path: PathBuf,
    /// Of a `.log` that may be used again.
    pub file: Option<Arc<dyn DeviceFile>>,
}

/// How far the device has come. Numbers count appends from 1.
pub(crate) struct Progress {
    pub accepted: u64,
    pub written: u64,
    pub durable: u64,
    /// Somebody waits for this append to be durable.
    pub durable_wanted: u64,
    /// Somebody will want this append durable, and the committer is asked to see to it in a moment.
    pub durable_wanted_soon: u64,
    /// That was asked of the committer, and its time has not come.
    pub soon_asked: bool,
    /// Atomic batches come here: what is on its way to the device is kept within reach.
    pub keeps_flight: bool,
    /// What lies below is durable here or in the decisions of atomic batches.
    pub covered_offset: i64,
    pub durable_offset: i64,
    pub flight: Option<Flight>,
    /// Counts flights; its parity says at which gate the callers wait that the flight carries.
    pub turn: u64,
    /// The committer was asked to get every append up to this one written.
    pub committer_wanted: u64,
    /// The committer has a turn to come.
    pub committer_asked: bool,
    /// It had one while somebody else's flight was on the way, and gets another when that has landed.
    pub committer_held_up: bool,
    /// The thread of the last append that wants an answer, and that append.
    pub last_append: (usize, u64),
    /// The active file has completed writes that no sync covers.
    pub unsynced: bool,
    /// Names were changed that no directory sync covers.
    pub names_unsynced: bool,
    /// Sealed files whose last writes and length no sync covers.
    pub unsealed: Vec<Arc<dyn DeviceFile>>,
    pub queue: VecDeque<Group>,
    /// By append, then by when they came.
    pub futures: BTreeMap<(u64, u64), Awaited>,
    pub futures_made: u64,
}

impl Progress {
    /// Of a log that ends at `durable_offset`, all of it durable.
    pub fn new(durable_offset: i64) -> Self {
        Self {
            accepted: 0,
            written: 0,
            durable: 0,
            durable_wanted: 0,
            durable_wanted_soon: 0,
            soon_asked: false,
            keeps_flight: false,
            covered_offset: durable_offset,
            durable_offset,
            flight: None,
            turn: 0,
            committer_wanted: 0,
            committer_asked: false,
            committer_held_up: false,
            last_append: (0, 0),
            unsynced: false,
            names_unsynced: false,
            unsealed: Vec::new(),
            queue: VecDeque::new(),
            futures: BTreeMap::new(),
            futures_made: 0,
        }
    }
}

/// A file that holds what is already derivable from the log.
pub(crate) struct SideFile {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
}

/// See the module.
pub(crate) struct State {
    pub config: Arc<Config>,
    pub log_start: i64,
    /// The largest log start that the checkpoint file may name: above the one in force where a deletion failed half
    /// way.
    pub log_start_named: i64,
    /// Base offset of the first batch that ends behind the log start, the log end while there is none: where an older
    /// open transaction is taken to begin.
    pub log_start_batch: i64,
    pub high_watermark: i64,
    /// The high watermark is known to lie between two batches.
    pub high_watermark_settled: bool,
    pub follows_end: bool,
    pub epochs: EpochCache,
    pub epochs_dirty: bool,
    pub producers: ProducerTable,
    pub verifications: Verifications,
    pub txns: OpenTxns,
    /// First offset of the earliest transaction that is open, or decided above the high watermark: see
    /// [`State::refresh_first_unstable`].
    pub first_unstable: Option<i64>,
    pub aborted: AbortedIndex,
    /// Producers have used transactions: an empty `.txnindex` is then written too, so that the next opening can tell
    /// "none" from "lost" without reading the segment.
    pub transactional: bool,
    pub(super) reach: Reach,
    pub segments: BTreeMap<i64, Segment>,
    pub staging: Staging,
    /// Length of the active file whose blocks are written.
    pub prepared: u64,
    pub spare: Option<Spare>,
    pub window: Window,
    /// Someone is preparing space outside the lock.
    pub preparing: bool,
    pub progress: Progress,
    /// Producer snapshots left behind by rolls, oldest first.
    pub snapshots_due: VecDeque<SnapshotDue>,
    pub newest_snapshot: i64,
    pub checkpoint: Checkpoints,
    pub sweep: Sweep,
    pub spill: Spill,
    pub accounts: Accounts,
    /// Files renamed to `.deleted`, and when they may go.
    pub doomed: Vec<Doomed>,
    /// Set by the first failed write or sync.
    pub latch: Option<Arc<DeviceError>>,
    /// Damage that makes the log read-only.
    pub read_only: Option<Damage>,
    pub closed: bool,
    /// Who waits to see more.
    pub followers: Waiting,
    /// Offsets that a truncation inside a batch left empty: the batch behind them may be staged only.
    pub hole: std::ops::Range<i64>,
    /// A segment begins behind the hole, and the checkpoint file says so.
    pub hole_passed: bool,
    /// Kafka's recovery point: up to where the last clean opening, roll or sync saw to everything. What a truncation
    /// writes down, because it decides what the next opening looks at again.
    pub flushed_offset: i64,
    /// Counts truncations, so that a read can tell that the ground moved under it.
    pub generation: u64,
    /// Some segment may lack side files. Without this every round of the background would look at all of them, with the
    /// lock.
    pub side_files_due: bool,
}

impl State {
    pub fn active(&self) -> &Segment {
        self.segments.last_key_value().expect("a log has a segment").1
    }

    pub fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_entry().expect("a log has a segment").into_mut()
    }

    pub fn log_end(&self) -> i64 {
        self.active().next_offset
    }

    /// Refuses everything on a closed or latched log.
    pub fn check_usable(&self) -> Result<()> {
        if self.closed {
            return Err(Error::Closed);
        }
        match &self.latch {
            Some(failure) => Err(Error::Storage(failure.clone())),
            None => Ok(()),
        }
    }

    /// Refuses changes on a damaged log too.
    pub fn check_writable(&self) -> Result<()> {
        self.check_usable()?;
        match &self.read_only {
            Some(damage) => Err(Error::Damaged(Box::new(damage.clone()))),
            None => Ok(()),
        }
    }

    /// Finds the first unstable offset anew. As in Kafka that is due when the log is loaded, and whenever it grows, its
    /// high watermark or its start moves; not when it is truncated.
    pub fn refresh_first_unstable(&mut self) {
        let first = self.txns.first_unstable();
        self.first_unstable = first.map(|first| if first < self.log_start { self.log_start_batch } else { first });
    }

    /// A truncation may have taken a marker: its transaction is open again, and no committed reader may get past it.
    /// Kafka notices at the next append.
    pub fn hold_back_reopened(&mut self) {
        let clip = |first| if first < self.log_start { self.log_start_batch } else { first };
        let open = self.txns.first_undecided().map(clip);
        self.first_unstable = self.first_unstable.into_iter().chain(open).min();
    }

    pub fn last_stable(&self) -> i64 {
        match self.first_unstable {
            Some(offset) if offset < self.high_watermark && !planted(Bug::LastStableTooHigh) => offset,
            _ => self.high_watermark,
        }
    }

    /// Up to where readers see.
    pub fn limits(&self) -> Limits {
        Limits { high_watermark: self.high_watermark, last_stable: self.last_stable(), log_end: self.log_end() }
    }

    /// Takes out the followers that have something to see now.
    pub fn due_followers(&mut self) -> Vec<Waker> {
        if self.latch.is_some() { self.followers.take_all() } else { self.followers.take_due(self.limits()) }
    }

    /// Moves the high watermark into the log's bounds and lets go of transactions decided below it.
    pub fn set_high_watermark(&mut self, offset: i64) -> i64 {
        self.high_watermark = offset.clamp(self.log_start, self.log_end().max(self.log_start));
        self.high_watermark_settled = offset >= self.log_end() || self.follows_end;
        self.txns.advance_high_watermark(self.high_watermark);
        self.refresh_first_unstable();
        self.check_order();
        self.high_watermark
    }

    /// The inequalities that hold between operations. The high watermark may lie below the log start, inside the batch
    /// that holds both.
    pub fn check_order(&self) {
        debug_assert!(
            self.log_start.min(self.log_start_batch) <= self.high_watermark,
            "log start {} above the high watermark {}",
            self.log_start,
            self.high_watermark
        );
        debug_assert!(
            self.high_watermark <= self.log_end(),
            "high watermark {} above the end {}",
            self.high_watermark,
            self.log_end()
        );
    }

    /// The aborted transactions whose markers lie in the segment of this base: what its `.txnindex` holds.
    pub fn aborted_in_segment(&self, base_offset: i64) -> &[AbortedTxn] {
        let next = self.segments.range(base_offset + 1..).next().map_or(i64::MAX, |(base, _)| *base);
        self.aborted.ending_in(base_offset, next)
    }

    /// The segment that holds `offset` or would: the last whose base is not above it.
    pub fn segment_of(&self, offset: i64) -> Option<&Segment> {
        self.segments.range(..=offset).next_back().map(|(_, s)| s)
    }

    /// Whether append number `number` is at the level.
    pub fn reached(&self, number: u64, level: Ack) -> bool {
        match level {
            Ack::Accepted => true,
            Ack::Written => self.progress.written >= number,
            Ack::Durable => self.progress.durable >= number,
        }
    }

    /// Nothing more becomes written or durable.
    pub fn is_over(&self) -> bool {
        self.latch.is_some() || (self.closed && self.progress.flight.is_none())
    }

    /// `flush_messages` records have come since the last sync.
    pub fn flush_is_due(&self) -> bool {
        self.log_end() - self.progress.durable_offset >= self.config.flush_messages
    }

    /// Kafka takes a snapshot only above the newest one, or the log start where there is none: one there is dropped by
    /// its next load.
    pub fn snapshot_floor(&self) -> i64 {
        if self.newest_snapshot < 0 { self.log_start } else { self.newest_snapshot }
    }

    /// Bytes accepted and not yet on the device.
    pub fn staged_bytes(&self) -> usize {
        self.staging.pending_bytes() + self.progress.queue.iter().map(|g| g.length).sum::<usize>()
    }
}

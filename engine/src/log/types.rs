//! What goes into an operation of a log and what comes out.

use oncelog_formats::epoch_checkpoint::EpochEntry;
use oncelog_formats::offset_index::OffsetEntry;
use oncelog_formats::snapshot::SnapshotEntry;
use oncelog_formats::time_index::TimeEntry;
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::{Origin, ProducerEntry};

use crate::bytes::SharedBytes;
use crate::config::Config;
use crate::error::Damage;

/// How durable an append must be before it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Ack {
    /// Ordered, in the memory of this process: lost with it.
    Accepted,
    /// Survives the death of this process, not the loss of power.
    Written,
    /// Survives the loss of power.
    #[default]
    Durable,
}

/// One append: whole record batches as they come over the wire, and under which rules they are admitted.
#[derive(Debug, Clone, Copy)]
pub struct Append<'a> {
    /// Record batches of magic 2, one after the other; clients and coordinators send exactly one.
    pub batches: &'a [u8],
    /// Who sends: decides which checks apply and who assigns offsets.
    pub origin: Origin,
    /// When it is answered.
    pub ack: Ack,
    /// Leader epoch that is stamped into the batches; of a replica, the newest that it may take.
    pub leader_epoch: i32,
    /// Transaction version of the request, needed for markers; 2 makes them strict.
    pub txn_version: Option<i16>,
    /// Guard from [`crate::Log::start_verification`].
    pub guard: Option<u64>,
    /// Kafka's `client.id` of who sends: producers that come new are counted under it ([`crate::Log::producer_usage`]).
    pub client_id: Option<&'a str>,
}

impl<'a> Append<'a> {
    /// A producer's batch: durable, leader epoch 0, transaction version 0.
    #[must_use]
    pub fn client(batches: &'a [u8]) -> Self {
        Self {
            batches,
            origin: Origin::Client,
            ack: Ack::Durable,
            leader_epoch: 0,
            txn_version: Some(0),
            guard: None,
            client_id: None,
        }
    }

    /// A transaction coordinator's batch, a marker above all.
    #[must_use]
    pub fn coordinator(batches: &'a [u8]) -> Self {
        Self { origin: Origin::Coordinator, ..Self::client(batches) }
    }

    /// Batches as the leader stored them, byte for byte.
    #[must_use]
    pub fn replica(batches: &'a [u8], leader_epoch: i32) -> Self {
        Self { origin: Origin::Replication, leader_epoch, txn_version: None, ..Self::client(batches) }
    }

    /// The same append in the name of a client.
    #[must_use]
    pub fn client_id(mut self, client_id: &'a str) -> Self {
        self.client_id = Some(client_id);
        self
    }

    /// The same append answered at another level.
    #[must_use]
    pub fn ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Stored now.
    Appended,
    /// Stored before: the offsets are those of the first time.
    Duplicate,
    /// No batch was given, or all were left out.
    Nothing,
}

/// The answer to an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// What became of it.
    pub outcome: Outcome,
    /// First offset, -1 for [`Outcome::Nothing`].
    pub base_offset: i64,
    /// Last offset, -1 for [`Outcome::Nothing`].
    pub last_offset: i64,
    /// Time of the append under `LogAppendTime`, of the remembered batch for a duplicate, else -1 (ms).
    pub log_append_time: i64,
    /// The log start when it was answered.
    pub log_start_offset: i64,
}

/// Up to where a read sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Below the high watermark.
    #[default]
    Uncommitted,
    /// Below the last stable offset, with the list of aborted transactions.
    Committed,
    /// Up to the log end, as replicas read.
    LogEnd,
}

/// One read.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// First offset wanted.
    pub offset: i64,
    /// At most this many bytes of batches.
    pub max_bytes: usize,
    /// Up to where.
    pub isolation: Isolation,
    /// One batch at least, however large.
    pub at_least_one: bool,
}

impl Read {
    /// From `offset`, 1 MiB, below the high watermark.
    #[must_use]
    pub fn from(offset: i64) -> Self {
        Self { offset, max_bytes: 1 << 20, isolation: Isolation::Uncommitted, at_least_one: true }
    }
}

/// What a read found: whole batches of one segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Batches as stored; the first one holds the offset asked for or the next one stored. Shared with whoever else
    /// reads them, as far as they were in memory: see [`SharedBytes`] before keeping many.
    pub data: SharedBytes,
    /// The offset to go on from: behind the last batch, or the one asked for if there is none.
    pub next_offset: i64,
    /// Transactions aborted in the range: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
    /// The high watermark at that moment.
    pub high_watermark: i64,
    /// The last stable offset at that moment.
    pub last_stable_offset: i64,
}

/// How to open one log. `None` stands for what the checkpoint files and the shutdown mark say.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Settings of the topic.
    pub config: Config,
    /// Log start offset.
    pub log_start: Option<i64>,
    /// Offset up to which everything was synced.
    pub recovery_point: Option<i64>,
    /// High watermark.
    pub high_watermark: Option<i64>,
    /// Whether the last shutdown was clean.
    pub clean: Option<bool>,
    /// A log that stands alone moves its high watermark with its durable end; in a replica set the leader moves it.
    pub high_watermark_follows_end: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            config: Config::default(),
            log_start: None,
            recovery_point: None,
            high_watermark: None,
            clean: None,
            high_watermark_follows_end: true,
        }
    }
}

/// What opening a log found and did.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// Whether the shutdown before was clean.
    pub clean: bool,
    /// Batches read and checked.
    pub batches_scanned: u64,
    /// Bytes read and checked.
    pub bytes_scanned: u64,
    /// Offset of the producer snapshot that was used.
    pub snapshot_offset: Option<i64>,
    /// Offset of the checkpoint that was used instead of a snapshot.
    pub checkpoint_offset: Option<i64>,
    /// Batches applied to the producer state behind it.
    pub batches_replayed: u64,
    /// Torn tails that were cut off.
    pub cut: Vec<Damage>,
    /// Damage that was found and left alone; the log is read-only around it.
    pub damage: Vec<Damage>,
    /// Side files that were unreadable or wrong, and what was done instead.
    pub repaired: Vec<String>,
    /// How long it took, in ms of the monotonic clock.
    pub duration_ms: f64,
    /// How long each step of that took, in order: its name, and ms.
    pub steps: Vec<(&'static str, f64)>,
}

impl OpenReport {
    /// Bytes a second that the scan read; 0 if it read too little to tell.
    pub(crate) fn replay_bytes_per_s(&self) -> f64 {
        let scan_ms: f64 = self.steps.iter().filter(|(name, _)| *name == "scan").map(|(_, ms)| ms).sum();
        if self.bytes_scanned < 8 << 20 || scan_ms <= 0.0 { 0.0 } else { self.bytes_scanned as f64 / scan_ms * 1e3 }
    }
}

/// One segment, as `dump` shows it.
#[derive(Debug, Clone)]
pub struct SegmentState {
    /// First offset that it may hold.
    pub base_offset: i64,
    /// Bytes of batches.
    pub size_bytes: u64,
    /// Offset behind its last batch.
    pub next_offset: i64,
    /// Largest timestamp, -1 none (ms).
    pub max_timestamp: i64,
    /// Entries of the offset index.
    pub offset_index: Vec<OffsetEntry>,
    /// Entries of the time index.
    pub time_index: Vec<TimeEntry>,
    /// Entries of the aborted-transaction index.
    pub txn_index: Vec<AbortedTxn>,
}

/// One `.snapshot` file as it lies on disk.
#[derive(Debug, Clone)]
pub struct SnapshotState {
    /// The offset in its name: the state covers everything below it.
    pub offset: i64,
    /// Kafka's entries, or why it is unreadable.
    pub entries: Result<Vec<SnapshotEntry>, String>,
}

/// Everything about a log but its records.
#[derive(Debug, Clone)]
pub struct LogState {
    /// Whether the shutdown before this opening was clean.
    pub clean: bool,
    /// First offset that may be read.
    pub log_start_offset: i64,
    /// Offset that the next record gets.
    pub log_end_offset: i64,
    /// Everything below survives the loss of power.
    pub recovery_point: i64,
    /// Readers see up to here.
    pub high_watermark: i64,
    /// Committed readers see up to here.
    pub last_stable_offset: i64,
    /// First offset of the earliest transaction that is open or decided above the high watermark.
    pub first_unstable_offset: Option<i64>,
    /// Segments, oldest first.
    pub segments: Vec<SegmentState>,
    /// Leader epochs and where each starts.
    pub leader_epochs: Vec<EpochEntry>,
    /// Snapshot files as on disk now.
    pub snapshots: Vec<SnapshotState>,
    /// Producers by id.
    pub producers: Vec<(i64, ProducerEntry)>,
    /// Open transactions: producer id and first offset, by first offset.
    pub open_transactions: Vec<(i64, i64)>,
    /// Sum over what the log says of its producers; equal for replicas with equal logs.
    pub digest: u64,
}

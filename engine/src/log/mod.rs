//! One partition log: one verb per file around one state.

mod aborted;
mod accounts;
mod append;
mod checkpoint;
mod commit;
mod committed;
mod cursors;
mod describe;
mod expiry;
mod fetch;
mod gate;
mod hanging;
mod read;
mod retain;
mod roll;
mod spill;
mod state;
mod stream;
mod ticket;
mod timestamps;
mod truncate;
mod types;
mod undurable;
mod upkeep;

mod lag;
mod layout;
pub(crate) mod open;
mod recover;

use parking_lot::{Condvar, Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Waker;

use oncelog_device::{BufferPool, Clock, Device};
use oncelog_snapshot::ProducerEntry;

use crate::ahead::Ahead;
use crate::background::Background;
use crate::checkpoints::DirectoryCheckpoints;
use crate::config::Config;
use crate::error::Result;
use crate::follow::Follower;
use crate::observe::Metrics;
use crate::spares::Spares;
use crate::tail::Tail;
use cursors::Cursors;
use state::State;

pub use accounts::{Creator, ProducerUsage};
pub(crate) use commit::Turn;
pub use committed::{Committed, CommittedFilter};
pub use hanging::{Explanation, Hold, LATE_ALLOWANCE_MS, OpenTransaction};
pub use lag::Lag;
pub use ticket::Ticket;
pub use types::{
    Ack, Append, Appended, Fetched, Isolation, LogState, OpenOptions, OpenReport, Outcome, Read, SegmentState,
    SnapshotState,
};
pub(crate) use undurable::{BeforeCut, CARRIED_BYTES, Undurable, Wanted};

/// What a log's handles share with its tickets and with the engine's driver.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) device: Arc<dyn Device>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) checkpoints: Arc<DirectoryCheckpoints>,
    pub(crate) state: Mutex<State>,
    /// The settings in the state, for those who do not need it.
    pub(crate) config: RwLock<Arc<Config>>,
    /// Where callers wait for the device: those that the flight carries, and those behind it (see `commit`).
    pub(crate) gates: [gate::Gate; 2],
    /// Where callers wait for space.
    pub(crate) space: Condvar,
    /// One at a time writes side files and checkpoints, or truncates.
    pub(crate) upkeep: Mutex<()>,
    /// One at a time takes producers out of memory: not behind `upkeep`, which a checkpoint holds for long.
    pub(crate) spilling: Mutex<()>,
    /// Buffers for reads and writes, of all logs of the engine.
    pub(crate) buffers: Arc<BufferPool>,
    /// What was just written.
    pub(crate) tail: Tail,
    /// Where reads ended.
    pub(crate) cursors: Cursors,
    /// Reads on their way for those who read on, of all logs of the engine.
    pub(crate) ahead: Arc<Ahead>,
    /// By which `ahead` knows this log.
    pub(crate) number: u64,
    pub(crate) report: OpenReport,
    pub(crate) metrics: Metrics,
    /// Transactions that stay open for too long.
    pub(crate) late: hanging::Late,
    counted: lag::Counted,
    pub(crate) spares: Arc<Spares>,
    /// The engine's threads, if it has any.
    pub(crate) background: Option<Arc<Background>>,
    /// This log, for the queues of the background.
    pub(crate) this: OnceLock<Weak<Shared>>,
    /// Who has to know of a truncation.
    pub(crate) before_cut: OnceLock<BeforeCut>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.read().clone()
    }

    /// `topic-partition`.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }

    /// The newest leader epoch, which batches of the engine's own carry on.
    pub(crate) fn leader_epoch(&self) -> i32 {
        self.state.lock().epochs.latest().unwrap_or(0)
    }

    /// Somebody will want this append durable: what comes next on this log takes it along, else the committer sees to
    /// it soon, and nobody waits.
    pub(crate) fn want_durable_soon(&self, number: u64) {
        let Some(background) = &self.background else { return self.note_durable_wanted(number) };
        let progress = &mut self.state.lock().progress;
        progress.durable_wanted_soon = progress.durable_wanted_soon.max(number);
        if !std::mem::replace(&mut progress.soon_asked, true) {
            background.commits.ask_later(self.this(), self.clock.monotonic_ns());
        }
    }

    /// Begins the life of an opened log.
    pub(crate) fn into_log(self) -> Log {
        let shared = Arc::new(self);
        let _first = shared.this.set(Arc::downgrade(&shared));
        Log { shared }
    }

    fn this(&self) -> Weak<Self> {
        self.this.get().cloned().unwrap_or_default()
    }
}

/// An open partition log; clones are handles of the same one.
///
/// All methods may be called from any thread. Dropping the last handle writes nothing: close the [`crate::Engine`] for
/// a clean shutdown, anything else is a crash that the next opening recovers from.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

impl Log {
    /// The directory of the log.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Appends batches: orders them now, answers when the ticket is waited for.
    ///
    /// A retry of one of the producer's last five batches is answered with its first offsets and stored no second time.
    ///
    /// # Errors
    /// [`crate::Error::Refused`] and [`crate::Error::Invalid`] by the rules of Kafka's producers;
    /// [`crate::Error::StorageFull`] and [`crate::Error::TooManyProducers`] before anything is stored;
    /// [`crate::Error::Storage`] on a latched log; [`crate::Error::Damaged`] on a read-only one.
    pub fn append(&self, append: Append<'_>) -> Result<Ticket> {
        self.shared.append(&append)
    }

    /// Appends batches and waits for the answer.
    ///
    /// # Errors
    /// As [`Log::append`] and [`Ticket::wait`].
    pub fn append_wait(&self, append: Append<'_>) -> Result<Appended> {
        self.shared.append_wait(&append)
    }

    /// Asks for the guard that a transactional batch needs before a transaction is open; `None`: none is needed.
    ///
    /// # Errors
    /// `INVALID_PRODUCER_EPOCH` for an epoch below the stored one.
    pub fn start_verification(
        &self,
        producer_id: i64,
        sequence: i32,
        epoch: i16,
        txn_version: i16,
    ) -> Result<Option<u64>> {
        let now_ms = self.shared.clock.now_ms();
        let mut state = self.shared.state_with(producer_id)?;
        state.check_writable()?;
        if !state.config.transaction_partition_verification_enable {
            return Ok(None);
        }
        let stored = state.producers.asked_standing(producer_id);
        state
            .verifications
            .start(producer_id, &stored, sequence, epoch, txn_version >= 2, now_ms)
            .map_err(|refusal| crate::Error::Refused { producer_id, refusal })
    }

    /// Reads whole batches from one segment.
    ///
    /// # Errors
    /// [`crate::Error::OffsetOutOfRange`] outside the log; [`crate::Error::Damaged`] where stored bytes are not what
    /// was written.
    pub fn read(&self, read: Read) -> Result<Fetched> {
        self.shared.read(&read)
    }

    /// Committed batches only: what `isolation: Committed` reads, without aborted data and without markers. Offsets
    /// stay as they are, so there are gaps.
    ///
    /// May answer nothing although there is more: go on at [`Committed::next_offset`] until that is the last stable
    /// offset.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn read_committed(&self, offset: i64, max_bytes: usize) -> Result<Committed> {
        let read = Read { offset, max_bytes, isolation: Isolation::Committed, at_least_one: true };
        Committed::of(self.shared.read(&read)?, offset)
            .map_err(|source| crate::Error::Format { path: self.shared.dir.clone(), source })
    }

    /// How much a committed reader at `position` has still to read. Reads the batch headers in between, not the
    /// records: those of the first and the last segment each time, those of each one between them the first time.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn lag(&self, position: i64) -> Result<Lag> {
        self.shared.lag(position)
    }

    /// Reads from `read.offset` on and goes on as the log grows, woken when there is more to see: for threads and
    /// futures.
    #[must_use]
    pub fn follow(&self, read: Read) -> Follower {
        Follower::new(self.clone(), Read { at_least_one: true, ..read })
    }

    /// How many followers wait for more at this moment.
    #[must_use]
    pub fn waiting_followers(&self) -> usize {
        self.shared.state.lock().followers.len()
    }

    /// The first record at or behind a time: (offset, timestamp in ms). -1 asks for the log end, -2 for the log start,
    /// -3 for the record with the largest timestamp.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>> {
        self.shared.offset_for_timestamp(timestamp)
    }

    /// The largest epoch not above `epoch` and the offset behind its last record; (-1, -1) where unknown.
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: i32) -> (i32, i64) {
        let state = self.shared.state.lock();
        state.epochs.end_offset_for(epoch, state.log_end())
    }

    /// Moves the high watermark, within log start and log end; answers the one in force.
    ///
    /// # Errors
    /// On a closed or latched log.
    pub fn set_high_watermark(&self, offset: i64) -> Result<i64> {
        let mut state = self.shared.state.lock();
        state.check_usable()?;
        let in_force = state.set_high_watermark(offset);
        let followers = state.due_followers();
        drop(state);
        followers.into_iter().for_each(Waker::wake);
        Ok(in_force)
    }

    /// The high watermark.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.shared.state.lock().high_watermark
    }

    /// Committed readers see up to here: the first offset of the earliest transaction that is open, or decided above
    /// the high watermark, else the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> i64 {
        self.shared.state.lock().last_stable()
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> i64 {
        self.shared.state.lock().log_end()
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start_offset(&self) -> i64 {
        self.shared.state.lock().log_start
    }

    /// What is remembered of a producer; nothing either if that cannot be read.
    #[must_use]
    pub fn producer(&self, producer_id: i64) -> Option<ProducerEntry> {
        self.shared.state_with(producer_id).ok()?.producers.get(producer_id)
    }

    /// The transactions that have no marker, by first offset.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn open_transactions(&self) -> Result<Vec<OpenTransaction>> {
        self.shared.open_transactions()
    }

    /// Where the last stable offset stands, which transaction holds it there, and what would release it.
    ///
    /// # Errors
    /// As [`Log::read`].
    pub fn explain(&self) -> Result<Explanation> {
        self.shared.explain()
    }

    /// Transactions that are open longer than `transaction_max_timeout_ms` and five minutes, counted from their
    /// producer's newest append: how many there are now, and how many there were since the log was opened.
    /// [`Log::drive`] looks for them.
    #[must_use]
    pub fn late_transactions(&self) -> (u64, u64) {
        self.shared.late.counts()
    }

    /// Moves the log start to `before` (-1: the high watermark). Survives the loss of power when it returns.
    ///
    /// # Errors
    /// [`crate::Error::OffsetOutOfRange`] above the high watermark or for other negatives.
    pub fn delete_records(&self, before: i64) -> Result<i64> {
        let done = self.shared.delete_records(before);
        self.shared.wake_followers();
        done
    }

    /// Removes the segments that log start, size and time allow; answers their base offsets.
    ///
    /// # Errors
    /// When files cannot be renamed or the log start cannot be stored.
    pub fn apply_retention(&self) -> Result<Vec<i64>> {
        let done = self.shared.apply_retention();
        self.shared.wake_followers();
        done
    }

    /// Begins a new segment; answers the base offset of the active one.
    ///
    /// # Errors
    /// As [`Log::append`].
    pub fn roll(&self) -> Result<i64> {
        self.shared.roll()
    }

    /// Makes everything accepted so far durable and writes the checkpoint files; answers the recovery point.
    ///
    /// # Errors
    /// [`crate::Error::Storage`] when the log is or becomes latched.
    pub fn sync(&self) -> Result<i64> {
        self.shared.checkpoint()
    }

    /// Writes a producer snapshot at the log end; answers the offset of the newest one, -1 for none.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn snapshot(&self) -> Result<i64> {
        self.shared.take_snapshot()
    }

    /// Forgets producers whose last append is `producer_id_expiration_ms` ago by our clock and who have no transaction
    /// open; answers their ids.
    ///
    /// # Errors
    /// On a closed or latched log.
    pub fn expire_producers(&self) -> Result<Vec<i64>> {
        let now_ms = self.shared.clock.now_ms();
        let mut state = self.shared.state_with_all()?;
        state.check_usable()?;
        let expiration_ms = state.config.producer_id_expiration_ms;
        state.verifications.expire(now_ms, expiration_ms);
        let expired = state.producers.expire(now_ms, expiration_ms);
        drop(state);
        self.shared.metrics.count_expired(expired.len());
        Ok(expired.into_iter().map(|(id, _)| id).collect())
    }

    /// One step of [`Log::expire_producers`], over the few producers next in turn; answers the ids of those forgotten.
    /// An engine with a driver does this by itself, on idle logs too; [`Log::drive`] does not. Producers that an
    /// opening has not read yet are looked at when they are read.
    ///
    /// # Errors
    /// On a closed or latched log.
    pub fn sweep_producers(&self) -> Result<Vec<i64>> {
        self.shared.sweep_producers().map(|(expired, _)| expired)
    }

    /// What the log's producers take, and who made them lately.
    #[must_use]
    pub fn producer_usage(&self) -> ProducerUsage {
        let now_ms = self.shared.clock.now_ms();
        self.shared.state.lock().producer_usage(now_ms)
    }

    /// Cuts the log so that it ends at `offset`; answers the log end. Survives the loss of power when it returns.
    ///
    /// # Errors
    /// [`crate::Error::InvalidRequest`] for a negative offset; failures of the device.
    pub fn truncate_to(&self, offset: i64) -> Result<i64> {
        let done = self.shared.truncate_to(offset);
        self.shared.wake_followers();
        done
    }

    /// Empties the log and lets it begin at `offset`, with the log start at `log_start` (default the same).
    ///
    /// # Errors
    /// As [`Log::truncate_to`].
    pub fn truncate_fully_and_start_at(&self, offset: i64, log_start: Option<i64>) -> Result<i64> {
        let done = self.shared.truncate_fully_and_start_at(offset, log_start);
        self.shared.wake_followers();
        done
    }

    /// Changes the settings of the open log.
    ///
    /// # Errors
    /// On a closed log.
    pub fn configure(&self, config: Config) -> Result<()> {
        let mut state = self.shared.state.lock();
        if state.closed {
            return Err(crate::Error::Closed);
        }
        state.config = Arc::new(config);
        *self.shared.config.write() = state.config.clone();
        Ok(())
    }

    /// Settings in force.
    #[must_use]
    pub fn config(&self) -> Config {
        (*self.shared.config()).clone()
    }

    /// What opening found and did.
    #[must_use]
    pub fn report(&self) -> &OpenReport {
        &self.shared.report
    }

    /// Everything about the log but its records.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn describe(&self) -> Result<LogState> {
        self.shared.describe()
    }

    /// All batches of one segment as stored.
    ///
    /// # Errors
    /// [`crate::Error::InvalidRequest`] where there is no such segment; failures of the device.
    pub fn read_segment(&self, base_offset: i64) -> Result<Vec<u8>> {
        self.shared.read_segment(base_offset)
    }

    /// One step of background work: commits what nobody waits for, prepares space, writes side files, removes what may
    /// go. An engine with a driver thread does this by itself.
    ///
    /// # Errors
    /// The failure that latched the log, or that of a side file (which will be tried again).
    pub fn drive(&self) -> Result<()> {
        self.shared.drive()
    }

    /// Open transactions of atomic batches: producer id and first offset. `None` where they are not this engine's to
    /// end: on a replica, or on a log that cannot be written.
    pub(crate) fn atomic_transactions(&self) -> Option<Vec<(i64, i64)>> {
        let state = self.shared.state.lock();
        if !state.follows_end || state.check_writable().is_err() {
            return None;
        }
        Some(state.txns.ongoing().filter(|(id, _)| crate::atomic::PRODUCER_IDS.contains(id)).collect())
    }

    /// Drops the log as the death of the process would: nothing is written, what was `Written` stays.
    pub fn kill(&self) {
        self.shared.end();
    }
}

//! Open: read what the checkpoints promise, recover, and stand ready.

use parking_lot::{Condvar, Mutex, RwLock};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{BLOCK_BYTES, BufferPool, Clock, Device, OpenMode};
use oncelog_formats::epoch_checkpoint;
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_snapshot::Verifications;

use super::Shared;
use super::accounts::Accounts;
use super::checkpoint::Checkpoints;
use super::cursors::Cursors;
use super::expiry::Sweep;
use super::layout::tidy;
use super::recover::kept::MEMORY_FILE;
use super::recover::{Before, Bounds, Means, Recovery, drop_forgotten, forget_expired};
use super::spill::Spill;
use super::state::{Progress, Segment, Staging, State, Window};
use super::types::{OpenOptions, OpenReport};
use crate::ahead::Ahead;
use crate::background::Background;
use crate::checkpoints::{DirectoryCheckpoints, Stored};
use crate::config::Config;
use crate::epochs::EpochCache;
use crate::error::{Damage, Error, Result};
use crate::follow::Waiting;
use crate::index::AbortedIndex;
use crate::observe::Metrics;
use crate::segment::pieces::Gauge;
use crate::spares::Spares;
use crate::tail::{Budget, Tail};

/// What an engine gives to each of its logs.
pub(crate) struct Context {
    pub device: Arc<dyn Device>,
    pub clock: Arc<dyn Clock>,
    pub checkpoints: Arc<DirectoryCheckpoints>,
    pub background: Option<Arc<Background>>,
    pub spares: Arc<Spares>,
    /// Buffers for reads and writes.
    pub buffers: Arc<BufferPool>,
    /// What the tails of all logs may hold.
    pub tails: Arc<Budget>,
    /// What is read ahead of readers.
    pub ahead: Arc<Ahead>,
    /// Threads that read ahead of the recovery of a log.
    pub recovery_helpers: usize,
    /// The shutdown mark stood in the data directory.
    pub clean: bool,
}

impl Shared {
    /// Opens `dir`, the log of `topic` and `partition`, creating it if there is none.
    pub(crate) fn open(
        context: &Context,
        dir: &Path,
        topic: &str,
        partition: i32,
        options: OpenOptions,
        gauge: &Gauge,
    ) -> Result<Self> {
        let _span = tracing::info_span!("open", dir = %dir.display()).entered();
        let began_ns = context.clock.monotonic_ns();
        let device = &*context.device;
        device.create_directory(dir)?;
        if let Some(parent) = dir.parent() {
            // A directory that a power cut takes would take everything in it.
            device.sync_directory(parent)?;
        }
        let mut report = OpenReport { clean: options.clean.unwrap_or(context.clean), ..OpenReport::default() };
        let stored = context.checkpoints.read(device, topic, partition);
        let mut offset = |asked: Option<i64>, stored: &Stored| {
            if let Stored::Unreadable { path, reason } = stored {
                report.repaired.push(format!("{}: {reason}; everything is looked at instead", path.display()));
            }
            asked.or(stored.value()).unwrap_or(0)
        };
        let recovery_point = offset(options.recovery_point, &stored.recovery_point);
        let log_start = offset(options.log_start, &stored.log_start);
        let high_watermark = offset(options.high_watermark, &stored.high_watermark);

        let config = options.config.clone();
        let promised = recovery_point.min(stored.recovery_point.value().unwrap_or(0));
        let named_start = log_start.max(stored.log_start.value().unwrap_or(0));
        let ends_there = stored.recovery_point == Stored::Value(promised);
        let ended = (ends_there && (report.clean || promised > named_start)).then_some(promised);
        let bounds = Bounds { recovery_point, promised, ended, limit: i64::MAX, log_start };
        let (clock, buffers) = (&*context.clock, &*context.buffers);
        let means = Means { device, clock, buffers, helpers: context.recovery_helpers, gauge };
        let mut recovered = recover(means, dir, &config, &report, bounds, None)?;
        let mut log_end = recovered.log_end();
        if recovered.newest_used.is_some_and(|used| used > log_end) {
            // A snapshot of records that a crash took: begin again from one that the log bears out.
            report.cut = recovered.report.cut;
            report.repaired = recovered.report.repaired;
            let again = Bounds { limit: log_end, ..bounds };
            recovered = recover(means, dir, &config, &report, again, None)?;
            log_end = recovered.log_end();
        }
        if recovered.segments.is_empty() && bounds.promised > log_start {
            let path = dir.join(segment_file_name(log_start, Kind::Log));
            let reason = format!("no segment is left, everything below offset {} was promised", bounds.promised);
            recovered.note_damage(Damage { path, position: 0, offset: log_start, reason });
        }
        if recovered.segments.is_empty() || (log_end < log_start && recovered.report.damage.is_empty()) {
            restart_at(&mut recovered, log_start)?;
            log_end = log_start;
        }
        let outlived = recovered.memory_offset.is_some_and(|offset| offset > log_end);
        if outlived {
            recovered.remember_in_file(log_end);
        }
        let memory_offset = recovered.memory_offset.unwrap_or(-1);
        let settled_ns = context.clock.monotonic_ns();
        let waits = !recovered.begun.as_ref().is_some_and(|begun| begun.is_large);
        let shared = assemble(context, dir, topic, partition, options, recovered);
        shared.settle(log_start, high_watermark, log_end, memory_offset, waits)?;
        let mut shared = shared;
        let now_ns = context.clock.monotonic_ns();
        shared.report.steps.push(("settle", now_ns.saturating_sub(settled_ns) as f64 / 1e6));
        shared.report.duration_ms = now_ns.saturating_sub(began_ns) as f64 / 1e6;
        Ok(shared)
    }

    /// Log start, high watermark and epochs within what was found; snapshots of nothing go; side files are written,
    /// unless there are too many producers to wait for that.
    fn settle(&self, log_start: i64, high_watermark: i64, log_end: i64, memory_offset: i64, waits: bool) -> Result<()> {
        let first_base = *self.state.lock().segments.first_key_value().expect("a log has a segment").0;
        let log_start = log_start.max(first_base).min(log_end.max(first_base));
        let batch = self.batch_base_at(log_start)?.unwrap_or(log_end.max(log_start));
        {
            let mut state = self.state.lock();
            (state.log_start, state.log_start_batch) = (log_start, batch);
            state.flushed_offset = state.flushed_offset.max(log_start);
            let cut_end = state.epochs.truncate_from_end(log_end);
            let cut_start = state.epochs.truncate_from_start(log_start);
            state.epochs_dirty |= cut_end || cut_start;
            let wanted = if state.follows_end { log_end } else { high_watermark };
            state.set_high_watermark(wanted);
            let (now_ms, expiration_ms) = (self.clock.now_ms(), state.config.producer_id_expiration_ms);
            if waits {
                self.snapshot_at_end(&mut state);
            }
            if waits && state.producers.any_missing_page().is_none() {
                if !self.report.clean {
                    // Kafka reads its own snapshot of the end back: that one still knows whom it then forgets.
                    forget_expired(&mut state.producers, now_ms, expiration_ms);
                }
                drop_forgotten(&mut state.producers, now_ms, expiration_ms);
            } else {
                state.producers.expire(now_ms, expiration_ms);
            }
        }
        if waits {
            self.upkeep()?;
        }
        if self.report.damage.is_empty() {
            self.drop_stray_snapshots(log_start, log_end, memory_offset)?;
        }
        Ok(())
    }

    /// Kafka ends every load and truncation with a snapshot, if there is none yet.
    pub(super) fn snapshot_at_end(&self, state: &mut State) {
        if state.log_end() > state.snapshot_floor() && state.read_only.is_none() {
            state.freeze_snapshot(None);
        }
    }

    /// Kafka's choice at a load: snapshots at the bases of segments, and the newest of all.
    fn drop_stray_snapshots(&self, log_start: i64, log_end: i64, memory_offset: i64) -> Result<()> {
        let found = super::layout::snapshot_offsets(&*self.device, &self.dir)?;
        let newest = found.iter().filter(|o| **o <= log_end).max().copied();
        let (strays, others): (Vec<i64>, Vec<i64>) = {
            let state = self.state.lock();
            let is_wanted = |o: &i64| Some(*o) == newest || state.segments.contains_key(o);
            found.into_iter().partition(|o| !is_wanted(o) && (log_start + 1..=log_end).contains(o))
        };
        self.remove_snapshots(&strays)?;
        self.keep_snapshots(others, log_start, log_end, memory_offset)
    }

    /// Removes those of the snapshots that are not within the log. The newest at or below the log start becomes our
    /// memory of what lies there.
    pub(super) fn keep_snapshots(
        &self,
        mut found: Vec<i64>,
        log_start: i64,
        log_end: i64,
        memory_offset: i64,
    ) -> Result<()> {
        found.sort_unstable();
        let stays = |o: &i64| *o > log_start && *o <= log_end;
        let (kept, mut strays): (Vec<i64>, Vec<i64>) = found.into_iter().partition(stays);
        let mut state = self.state.lock();
        state.newest_snapshot = state.newest_snapshot.min(kept.last().copied().unwrap_or(-1));
        drop(state);
        let better = |o: &i64| *o <= log_start && (*o > memory_offset || memory_offset > log_start);
        let memory = strays.iter().rposition(better).map(|at| strays.remove(at));
        // Older ones go first: a crash in between must not leave one of them as the newest there is.
        self.remove_snapshots(&strays)?;
        if let Some(offset) = memory {
            let from = self.dir.join(segment_file_name(offset, Kind::Snapshot));
            self.device.rename(&from, &self.dir.join(MEMORY_FILE))?;
            self.device.sync_directory(&self.dir)?;
        }
        Ok(())
    }

    /// Removes snapshots of records that are no more: other records will get their offsets.
    pub(super) fn drop_snapshots_above(&self, offset: i64) -> Result<()> {
        let found = super::layout::snapshot_offsets(&*self.device, &self.dir)?;
        self.remove_snapshots(&found.into_iter().filter(|o| *o > offset).collect::<Vec<_>>())
    }

    fn remove_snapshots(&self, offsets: &[i64]) -> Result<()> {
        if planted(Bug::LaterSnapshotKept) {
            return Ok(());
        }
        let mut removed = false;
        for offset in offsets {
            removed |= self.device.remove(&self.dir.join(segment_file_name(*offset, Kind::Snapshot)))?;
        }
        if removed {
            self.device.sync_directory(&self.dir)?;
        }
        Ok(())
    }
}

/// One pass of recovery over the directory.
pub(super) fn recover<'a>(
    means: Means<'a>,
    dir: &'a Path,
    config: &'a Config,
    report: &OpenReport,
    bounds: Bounds,
    before: Option<Before<'a>>,
) -> Result<Recovery<'a>> {
    let _span = tracing::info_span!("recover", dir = %dir.display(), clean = report.clean).entered();
    let mut report = report.clone();
    loop {
        let layout = tidy(means.device, dir)?;
        let (epochs, epochs_lost) = load_epochs(means.device, dir, &mut report)?;
        let mut recovery = Recovery::new(means, dir, config, bounds, report.clone(), layout);
        (recovery.epochs, recovery.epochs_lost, recovery.epochs_dirty) = (epochs, epochs_lost, epochs_lost);
        recovery.before = before;
        match (recovery.run(), &recovery.begun) {
            (Ok(_), _) => return Ok(recovery),
            (Err(error), Some(begun)) if error.is_corruption() => {
                // A page of producers that the tail needs: begin again without the file.
                let first = begun.chain.offsets.first().copied();
                first.map_or(Ok(()), |first| recovery.set_checkpoint_aside(first, &error.to_string()))?;
                (report.cut, report.repaired) = (recovery.report.cut, recovery.report.repaired);
            }
            (Err(error), _) => return Err(error),
        }
    }
}

fn load_epochs(device: &dyn Device, dir: &Path, report: &mut OpenReport) -> Result<(EpochCache, bool)> {
    let path = dir.join(epoch_checkpoint::FILE_NAME);
    let Some(bytes) = device.read_small(&path, 64 << 20)? else { return Ok((EpochCache::new(), false)) };
    let parsed = epoch_checkpoint::parse(&bytes).map_err(|e| e.to_string());
    match parsed.and_then(|entries| EpochCache::from_entries(entries).map_err(|e| e.to_string())) {
        Ok(epochs) => Ok((epochs, false)),
        Err(reason) => {
            let aside = dir.join(format!("{}.unreadable-oncelog", epoch_checkpoint::FILE_NAME));
            device.rename(&path, &aside)?;
            report
                .repaired
                .push(format!("{}: {reason}; kept aside, epochs are taken from the batches", path.display()));
            Ok((EpochCache::new(), true))
        }
    }
}

/// The log ends below its start: what is left of it is gone, only the producers are remembered.
fn restart_at(recovery: &mut Recovery<'_>, offset: i64) -> Result<()> {
    recovery.keep_view(i64::MAX);
    // Of segments that go: what they remembered would be written over what is remembered now.
    recovery.snapshots_due.clear();
    if !recovery.kept.is_empty() && !planted(Bug::ProducersNotStoredAtRestart) {
        // Before the segments go that say it.
        let bytes = recovery.memory_bytes(offset);
        recovery.device.write_small(&recovery.dir.join(MEMORY_FILE), &bytes)?;
    }
    recovery.memory_offset = Some(offset);
    recovery.view.reach.complete_from = offset;
    recovery.begun = None;
    recovery.prepared = 0;
    recovery.forget_checkpoints()?;
    for base in std::mem::take(&mut recovery.segments).into_keys() {
        recovery.forget_segment(base, "lies below the log start")?;
    }
    recovery.epochs.clear();
    recovery.epochs_dirty = true;
    let segment = new_segment(recovery.device, recovery.clock, recovery.dir, recovery.config, offset)?;
    recovery.segments.insert(offset, segment);
    recovery.aborted = AbortedIndex::default();
    Ok(())
}

/// An empty segment with its file.
pub(super) fn new_segment(
    device: &dyn Device,
    clock: &dyn Clock,
    dir: &Path,
    config: &Config,
    base_offset: i64,
) -> Result<Segment> {
    let file = device.open(&dir.join(segment_file_name(base_offset, Kind::Log)), OpenMode::Create)?;
    device.sync_directory(dir)?;
    Ok(Segment::empty(base_offset, file, config, clock.now_ms()))
}

/// Staging that continues a segment of `size` bytes: its partial last block is read back.
pub(super) fn staging_behind(segment: &Segment) -> Result<Staging> {
    let start = segment.size - segment.size % BLOCK_BYTES as u64;
    let mut carried = vec![0; (segment.size - start) as usize];
    let got = segment.file.read(start, &mut carried)?;
    if got < carried.len() {
        return Err(Error::damaged(
            segment.file.path(),
            start + got as u64,
            segment.next_offset,
            "the file ends inside its data",
        ));
    }
    Ok(Staging::new(start, &carried))
}

impl Recovery<'_> {
    pub(super) fn log_end(&self) -> i64 {
        self.segments.last_key_value().map_or(self.bounds.log_start, |(_, segment)| segment.next_offset)
    }
}

fn assemble(
    context: &Context,
    dir: &Path,
    topic: &str,
    partition: i32,
    options: OpenOptions,
    mut recovered: Recovery<'_>,
) -> Shared {
    recovered.segments.values_mut().for_each(Segment::note_written);
    let active = recovered.segments.last_key_value().expect("a log has a segment").1;
    let log_end = active.next_offset;
    let read_only = recovered.report.damage.first().cloned();
    let staging = match staging_behind(active) {
        Ok(staging) => staging,
        Err(_) => Staging::new(0, &[]),
    };
    // One at the end that was not the source of this state may know less than we do: it is written again.
    let used = recovered.report.snapshot_offset.or(recovered.report.checkpoint_offset);
    let transactional = recovered.may_hold_transactions();
    let producers = recovered.producers(log_end);
    let newest_snapshot =
        recovered.layout.snapshots.iter().copied().filter(|o| *o < log_end || used == Some(*o)).max().unwrap_or(-1);
    let state = State {
        prepared: staging.start.max(recovered.prepared / BLOCK_BYTES as u64 * BLOCK_BYTES as u64),
        staging,
        config: Arc::new(options.config),
        log_start: 0,
        log_start_named: 0,
        log_start_batch: 0,
        high_watermark: 0,
        high_watermark_settled: false,
        follows_end: options.high_watermark_follows_end,
        epochs: recovered.epochs,
        epochs_dirty: recovered.epochs_dirty,
        producers,
        verifications: Verifications::new(),
        txns: recovered.view.txns,
        first_unstable: None,
        aborted: recovered.aborted,
        transactional,
        reach: recovered.view.reach,
        segments: recovered.segments,
        spare: None,
        window: Window::default(),
        preparing: false,
        progress: Progress::new(log_end),
        snapshots_due: recovered.snapshots_due,
        newest_snapshot,
        checkpoint: Checkpoints::behind(recovered.begun, &recovered.report),
        sweep: Sweep::default(),
        spill: Spill::default(),
        accounts: Accounts::default(),
        doomed: Vec::new(),
        latch: None,
        read_only,
        closed: false,
        followers: Waiting::default(),
        hole: 0..0,
        hole_passed: true,
        flushed_offset: if recovered.clean { log_end } else { recovered.bounds.recovery_point.min(log_end) },
        generation: 0,
        side_files_due: true,
    };
    Shared {
        dir: dir.to_path_buf(),
        topic: topic.to_string(),
        partition,
        device: context.device.clone(),
        clock: context.clock.clone(),
        checkpoints: context.checkpoints.clone(),
        config: RwLock::new(state.config.clone()),
        state: Mutex::new(state),
        gates: Default::default(),
        space: Condvar::new(),
        upkeep: Mutex::new(()),
        spilling: Mutex::new(()),
        buffers: context.buffers.clone(),
        tail: Tail::new(context.tails.clone(), context.buffers.clone()),
        cursors: Cursors::default(),
        ahead: context.ahead.clone(),
        number: context.ahead.number_log(),
        report: recovered.report,
        metrics: Metrics::default(),
        late: super::hanging::Late::default(),
        counted: super::lag::Counted::default(),
        spares: context.spares.clone(),
        background: context.background.clone(),
        this: OnceLock::new(),
        before_cut: OnceLock::new(),
    }
}

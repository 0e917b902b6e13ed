//! A checkpoint: everything that an opening needs to begin here instead of at the last roll.
//!
//! The first file of a chain says everything, those behind it what changed since the one before, so that writing costs
//! what changed. They are written when replaying the tail behind the newest would take half of the recovery budget, and
//! at a clean close. Nothing in one is newer than what is durable when it gets its name.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use oncelog_device::DeviceFile;
use oncelog_formats::OffsetEntry;
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::log_checkpoint::{LogCheckpoint, PageRef, SegmentPoint, file_name};
use oncelog_snapshot::Frozen;
use oncelog_snapshot::pages::PageWriter;

use super::pages::PageFile;
use crate::error::{Error, Result};
use crate::log::Shared;
use crate::log::recover::{Begun, PutOff};
use crate::log::state::State;
use crate::log::types::{Ack, OpenReport};
use crate::segment::walk::Walker;

/// Bytes that are copied between two offers of the core to somebody else.
const COPY_BYTES: usize = 1 << 20;
/// List entries that are copied under the lock in one step.
const LIST_STEP: usize = 2048;
/// Files of a chain at most: each is opened at a recovery.
const LONGEST_CHAIN: usize = 24;
/// Files of changes are read at an opening, whole: so many bytes of them at most, unless one alone has more.
const LEAST_LATER_BYTES: u64 = 1 << 20;
const MOST_LATER_BYTES: u64 = 16 << 20;
/// Bytes a second that a recovery is taken to read before one was measured.
const USUAL_REPLAY_BYTES_PER_S: f64 = 500e6;
/// The same of files of changes.
const CHANGES_BYTES_PER_S: f64 = 300e6;
/// What every opening takes before it reads the tail.
const OPENING: Duration = Duration::from_micros(500);
/// How long after a failure the next one is tried.
const RETRY_MS: i64 = 5_000;
/// What a recovery is taken to need for a producer of a `.snapshot`.
const PRODUCER_LOAD: Duration = Duration::from_nanos(500);

/// The checkpoints of an open log.
#[derive(Default)]
pub(crate) struct Checkpoints {
    /// The pages that the table still needs.
    pub pages: Option<Arc<PageFile>>,
    /// What waits for them.
    pub(in crate::log) put_off: PutOff,
    pub chain: Chain,
    /// Bytes a second that the last recovery read; 0 if it read too little to tell.
    pub replay_bytes_per_s: f64,
    /// After a failure it is not tried again at once.
    pub not_before_ms: i64,
}

impl Checkpoints {
    /// Of a log that was opened so.
    pub(in crate::log) fn behind(begun: Option<Begun>, report: &OpenReport) -> Self {
        let Begun { chain, pages, put_off, .. } = begun.unwrap_or_default();
        Self { pages, put_off, chain, replay_bytes_per_s: report.replay_bytes_per_s(), not_before_ms: i64::MIN }
    }
}

/// The files that together say where to begin.
#[derive(Clone, Default, Debug)]
pub(crate) struct Chain {
    /// Their offsets, oldest first; none: there is no checkpoint.
    pub offsets: Vec<i64>,
    pub first_bytes: u64,
    pub later_bytes: u64,
    /// Segment and size then, and how many index entries and aborted transactions of it are in the chain.
    pub base_offset: i64,
    pub size_bytes: u64,
    pub offset_entries: usize,
    pub time_entries: usize,
    pub aborted: usize,
}

impl Chain {
    /// The next file should say everything again.
    fn is_over(&self) -> bool {
        self.offsets.is_empty()
            || self.offsets.len() >= LONGEST_CHAIN
            || self.later_bytes > self.first_bytes.clamp(LEAST_LATER_BYTES, MOST_LATER_BYTES)
    }
}

/// A checkpoint that is being made.
struct Draft {
    head: LogCheckpoint,
    view: Frozen,
    file: Arc<dyn DeviceFile>,
    hint: OffsetEntry,
    chain: Chain,
}

impl State {
    /// Bytes of the log behind the newest checkpoint.
    fn bytes_behind_checkpoint(&self) -> u64 {
        let chain = &self.checkpoint.chain;
        let behind: u64 = self.segments.range(chain.base_offset..).map(|(_, segment)| segment.size).sum();
        let covered = if self.segments.contains_key(&chain.base_offset) { chain.size_bytes } else { 0 };
        behind.saturating_sub(covered)
    }

    /// What an opening would need for the producers: of a snapshot all are loaded, of a checkpoint what it changes.
    fn producers_s(&self) -> f64 {
        match self.checkpoint.chain.offsets.is_empty() {
            true => self.producers.len() as f64 * PRODUCER_LOAD.as_secs_f64(),
            false => self.checkpoint.chain.later_bytes as f64 / CHANGES_BYTES_PER_S,
        }
    }

    /// Half of the budget. The other half is for what every opening does and for a disk that is slower than it was.
    fn half_budget_s(&self) -> f64 {
        (self.config.recovery_budget_ms as f64 / 2e3 - OPENING.as_secs_f64()).max(0.0)
    }

    /// Whether the snapshot of a clean close would take too long to load.
    pub(in crate::log) fn close_needs_checkpoint(&self) -> bool {
        self.producers.len() as f64 * PRODUCER_LOAD.as_secs_f64() > self.half_budget_s()
    }

    /// Whether a recovery from the newest checkpoint would take more than half of the budget.
    pub(in crate::log) fn checkpoint_is_due(&self, now_ms: i64) -> bool {
        if self.closed || self.latch.is_some() || self.read_only.is_some() || now_ms < self.checkpoint.not_before_ms {
            return false;
        }
        let rate = match self.checkpoint.replay_bytes_per_s {
            measured if measured > 0.0 => measured,
            _ => USUAL_REPLAY_BYTES_PER_S,
        };
        let scan_s = self.bytes_behind_checkpoint() as f64 / rate;
        scan_s + self.producers_s() > self.half_budget_s()
    }

    /// Everything as it is now. Costs the index entries since the last one and a constant.
    fn draft(&mut self, all: bool, now_ms: i64) -> Draft {
        let segment = self.active();
        let (base_offset, size_bytes) = (segment.base_offset, segment.size);
        let before = if all || self.checkpoint.chain.base_offset != base_offset {
            Chain::default()
        } else {
            self.checkpoint.chain.clone()
        };
        let index = &segment.index;
        let aborted = self.aborted.ending_in(base_offset, i64::MAX);
        let chain = Chain {
            base_offset,
            size_bytes,
            offset_entries: index.offset_entries().len(),
            time_entries: index.time_entries().len(),
            aborted: aborted.len(),
            ..if all { Chain::default() } else { self.checkpoint.chain.clone() }
        };
        let mut head = LogCheckpoint {
            log_end_offset: self.log_end(),
            parent: if all { None } else { self.checkpoint.chain.offsets.last().copied() },
            made_ms: now_ms,
            complete_from: self.reach.complete_from,
            transactional_from: self.reach.transactional_from,
            leader_epoch: self.epochs.latest(),
            segment: SegmentPoint {
                base_offset,
                size_bytes,
                last_batch: None,
                largest: index.largest(),
                bytes_since_entry: index.bytes_since_entry(),
                offset_entries_before: before.offset_entries as u32,
                time_entries_before: before.time_entries as u32,
                aborted_before: before.aborted as u32,
            },
            open_txns: self.txns.ongoing().collect(),
            ..LogCheckpoint::default()
        };
        let (file, hint) = (segment.file.clone(), segment.hint_for(head.log_end_offset));
        let view = self.producers.freeze_changes(all);
        (head.producer_count, head.digest) = (view.len as u64, view.digest);
        Draft { head, view, file, hint, chain }
    }
}

impl Shared {
    /// Writes a checkpoint of this moment. With the upkeep lock held.
    pub(in crate::log) fn write_checkpoint(&self) -> Result<()> {
        // What lies below a checkpoint is not looked at again, so the indexes of closed segments must be there.
        self.write_side_files()?;
        let all = self.state.lock().checkpoint.chain.is_over();
        let mut state = self.state_with_pages()?;
        let end = state.log_end();
        let nothing_new = end == 0 || state.checkpoint.chain.offsets.last() == Some(&end);
        if state.closed || state.read_only.is_some() || nothing_new {
            return Ok(());
        }
        let draft = state.draft(all, self.clock.now_ms());
        // Until it is on the disk there is no chain to go on from: after a failure the next one says everything.
        state.checkpoint.chain = Chain::default();
        state.checkpoint.not_before_ms = self.clock.now_ms().saturating_add(RETRY_MS);
        drop(state);
        let chain = self.finish(draft)?;
        if all {
            super::load::remove_all_but(&*self.device, &self.dir, &chain.offsets)?;
        }
        let mut state = self.state.lock();
        state.checkpoint.chain = chain;
        state.checkpoint.not_before_ms = i64::MIN;
        Ok(())
    }

    fn finish(&self, draft: Draft) -> Result<Chain> {
        let Draft { mut head, mut view, file, hint, mut chain } = draft;
        let durable = self.commit_all(Ack::Durable).and_then(|()| self.persist_epochs());
        if let Err(failure) = durable {
            self.state.lock().producers.thaw(view);
            return Err(failure);
        }
        view.prepare();
        let mut writer = PageWriter::for_view(&view);
        self.read_view(view, |blocks| writer.push(blocks))?;
        self.copy_lists(&mut head, &chain)?;
        let (pages, bytes) = writer.finish();
        head.pages = pages
            .iter()
            .map(|page| PageRef {
                first_hash: page.first_hash,
                position: page.position as u64,
                length: page.length as u32,
                crc: crc32c(&bytes[page.position..page.position + page.length]),
            })
            .collect();
        if head.segment.size_bytes > 0 {
            let mut walker = Walker::new(&*file, head.segment.base_offset, head.segment.size_bytes);
            let last = walker.locate(hint, head.log_end_offset - 1)?;
            head.segment.last_batch = last.map(|found| (found.position, found.header.crc));
        }
        let mut whole = head.encode();
        whole.reserve_exact(bytes.len());
        for piece in bytes.chunks(COPY_BYTES) {
            whole.extend_from_slice(piece);
            thread::yield_now();
        }
        self.device.write_small(&self.dir.join(file_name(head.log_end_offset)), &whole)?;
        chain.offsets.push(head.log_end_offset);
        match chain.offsets.len() {
            1 => (chain.first_bytes, chain.later_bytes) = (whole.len() as u64, 0),
            _ => chain.later_bytes += whole.len() as u64,
        }
        Ok(chain)
    }

    /// The index entries and aborted transactions up to where the chain says, some at a time: entries are only added.
    fn copy_lists(&self, head: &mut LogCheckpoint, chain: &Chain) -> Result<()> {
        let SegmentPoint { base_offset, offset_entries_before, time_entries_before, aborted_before, .. } = head.segment;
        let before = [offset_entries_before, time_entries_before, aborted_before].map(|count| count as usize);
        let [mut offsets, mut times, mut aborted] = before;
        while offsets < chain.offset_entries || times < chain.time_entries || aborted < chain.aborted {
            let state = self.state.lock();
            let Some(segment) = state.segments.get(&base_offset) else { return Err(Error::Closed) };
            let ends = |from: usize, all: usize| from..all.min(from + LIST_STEP);
            let some = ends(offsets, chain.offset_entries);
            offsets = some.end;
            head.offset_entries.extend_from_slice(&segment.index.offset_entries()[some]);
            let some = ends(times, chain.time_entries);
            times = some.end;
            head.time_entries.extend_from_slice(&segment.index.time_entries()[some]);
            let some = ends(aborted, chain.aborted);
            aborted = some.end;
            head.aborted.extend_from_slice(&state.aborted.ending_in(base_offset, i64::MAX)[some]);
        }
        Ok(())
    }

    /// Removes every checkpoint, for good when this returns: what they say is about to be cut off.
    pub(in crate::log) fn forget_checkpoints(&self, state: &mut State) -> Result<()> {
        (state.checkpoint.chain, state.checkpoint.pages) = (Chain::default(), None);
        state.checkpoint.put_off.clear();
        super::load::remove_all_but(&*self.device, &self.dir, &[])
    }
}

//! Beginning at a checkpoint: when that leads to the same as Kafka's steps, only sooner.
//!
//! A checkpoint says what the running log knew. Kafka's load would know the same, but where it begins again with
//! nothing at a segment that holds the log start: then what lies before counts no more for transactions and
//! coordinators, and what the segment says counts again, had it been forgotten. A checkpoint may stand for that only if
//! there is neither.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use oncelog_formats::log_checkpoint::LogCheckpoint;
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::{FrozenBlock, Incoming, OpenTxns, ProducerTable};

use super::kept::MEMORY_FILE;
use super::replay::replay;
use super::{Bounds, Opened, Reach, Recovery, Starts, View};
use crate::error::Result;
use crate::index::SegmentIndex;
use crate::log::checkpoint::{Beginning, Chain, PageFile};
use crate::segment::scan::{Stop, scan};

/// Of the segment of a checkpoint, so many bytes are looked at again for each ms of the budget: a tenth of what a disk
/// reads.
const LOOK_BYTES_PER_MS: u64 = 100 << 10;
const LEAST_LOOK_BYTES: u64 = 1 << 20;

/// So few pages of producers are read at an opening whether they are asked for or not.
const PAGES_AT_ONCE: usize = 16;
/// After so many reads of single pages the whole file is read.
const SINGLE_READS: usize = 128;

/// Batches of producers that are still in a checkpoint, by page, with the time to count as their append. Such a batch
/// changes its producer alone, so it waits for the page: an opening costs what it reads of the log, not what it
/// touches.
pub(in crate::log) type PutOff = BTreeMap<usize, Vec<(Incoming, i64)>>;

/// The checkpoint that a recovery has begun at.
#[derive(Default)]
pub(in crate::log) struct Begun {
    pub chain: Chain,
    /// Where the producers are that were not asked for yet.
    pub pages: Option<Arc<PageFile>>,
    pub put_off: PutOff,
    /// Too many producers to be waited for.
    pub is_large: bool,
    single_reads: usize,
}

/// Where the segment of a checkpoint goes on.
pub(super) struct Resume {
    pub base_offset: i64,
    pub position: u64,
    pub next_offset: i64,
    pub index: SegmentIndex,
    pub aborted: Vec<AbortedTxn>,
}

impl Recovery<'_> {
    /// Takes over the newest checkpoint that may be begun at, if there is one; the others are removed.
    pub(super) fn begin_at_checkpoint(&mut self, opened: &[Opened]) -> Result<Option<Resume>> {
        let segments: BTreeMap<_, _> = opened.iter().map(|o| (o.base, (o.file.clone(), o.length))).collect();
        let found = if self.epochs_lost { None } else { self.load_checkpoint(&segments)? };
        let Some(beginning) = found else { return Ok(None) };
        if self.leads_to_the_same(opened, &beginning)? && self.bears_a_look(opened, &beginning)? {
            return self.begin_at(beginning).map(Some);
        }
        self.forget_checkpoints()?;
        Ok(None)
    }

    /// See the module. Also what the checkpoint takes for granted must be there: the side files of the segments before.
    fn leads_to_the_same(&mut self, opened: &[Opened], beginning: &Beginning) -> Result<bool> {
        let (end, base) = (beginning.head.log_end_offset, beginning.head.segment.base_offset);
        let reach = reach_of(&beginning.head);
        let from = reach.transactional_from.unwrap_or(i64::MAX);
        let Bounds { limit, log_start, recovery_point, .. } = self.bounds;
        let first_base = opened.first().map_or(log_start, |o| o.base);
        if end > limit || end <= log_start {
            return Ok(false);
        }
        let knows_epoch = |epoch| self.epochs.entries().iter().any(|entry| entry.epoch == epoch);
        if !beginning.head.leader_epoch.is_none_or(knows_epoch) {
            return Ok(false);
        }
        let newest = self.layout.snapshots.iter().copied().rfind(|offset| *offset <= limit);
        if self.clean && newest.is_some_and(|newest| newest > end) {
            return Ok(false);
        }
        let doubt = self.doubt(opened, recovery_point);
        let start = if self.clean { log_start.max(first_base) } else { log_start };
        let counts = |offset: &i64| *offset > start && *offset <= limit.min(doubt);
        // None counts for a log without records, and this may be one.
        let has_snapshot = end > first_base && self.layout.snapshots.iter().any(counts);
        // Where Kafka's steps would begin with nothing, if they do.
        let restart = opened.iter().rfind(|o| o.base >= doubt && o.base <= log_start).map(|o| o.base);
        let restart = restart.or_else(|| (!has_snapshot).then_some(start.max(first_base)));
        if restart.is_some_and(|restart| restart > base.min(from) || restart < reach.complete_from) {
            return Ok(false);
        }
        let is_sound = |o: &Opened| {
            let next = o.next_base.unwrap_or(i64::MAX);
            o.index.is_some() && (o.aborted.is_some() || from >= next)
        };
        // Behind a crash those from its own on are made anew.
        if !opened.iter().filter(|o| self.clean || o.base < base).all(is_sound) {
            return Ok(false);
        }
        self.memory_offset = super::files::memory_offset(self.device, &self.dir.join(MEMORY_FILE))?;
        Ok(self.memory_offset.is_none_or(|offset| offset <= end))
    }

    /// Whether the segment is undamaged up to the checkpoint, where reading that much fits the budget easily; damage in
    /// a longer one is found when it is read.
    fn bears_a_look(&self, opened: &[Opened], beginning: &Beginning) -> Result<bool> {
        let point = &beginning.head.segment;
        let limit = (self.config.recovery_budget_ms as u64).saturating_mul(LOOK_BYTES_PER_MS).max(LEAST_LOOK_BYTES);
        let segment = opened.iter().find(|o| o.base == point.base_offset);
        let Some(segment) = segment.filter(|_| !self.clean && point.size_bytes <= limit) else {
            return Ok(true);
        };
        let go_on = |_, _: oncelog_formats::BatchView<'_>| Ok(ControlFlow::Continue(()));
        let end = scan(&*segment.file, 0, point.size_bytes, point.base_offset, go_on)?;
        Ok(end.stop == Stop::End && end.next_offset == beginning.head.log_end_offset)
    }

    /// Takes over what a checkpoint says; answers where its segment goes on.
    fn begin_at(&mut self, beginning: Beginning) -> Result<Resume> {
        let Beginning { head, index, aborted, table, pages, chain } = beginning;
        let (end, base) = (head.log_end_offset, head.segment.base_offset);
        // Everything before was durable, and its side files written, when the checkpoint got its name.
        self.bounds.recovery_point = self.bounds.recovery_point.max(base);
        let doubt = if self.clean { i64::MAX } else { base };
        self.starts = Starts { doubt, view: end, kept: i64::MAX };
        (self.report.checkpoint_offset, self.newest_used) = (Some(end), Some(end));
        self.append_floor_ms = head.made_ms;
        let mut txns = OpenTxns::new();
        head.open_txns.iter().for_each(|(producer_id, first_offset)| txns.start(*producer_id, *first_offset));
        // Who has a transaction open is looked at without being asked for.
        let open: BTreeSet<usize> = txns.ongoing().filter_map(|(id, _)| table.missing_page(id)).collect();
        self.view = View { producers: table, txns, reach: reach_of(&head), ..View::default() };
        let few = pages.count() <= PAGES_AT_ONCE;
        self.begun = Some(Begun { chain, pages: Some(pages), is_large: !few, ..Begun::default() });
        open.into_iter().try_for_each(|page| self.supply(page))?;
        if few {
            self.supply_all()?;
        }
        Ok(Resume { base_offset: base, position: head.segment.size_bytes, next_offset: end, index, aborted })
    }

    /// Puts the batch off if its producer is on disk and it has to do with no transaction; else its producer is in
    /// memory.
    pub(super) fn put_off(&mut self, batch: &Incoming, append_ms: i64) -> Result<bool> {
        let Some(page) = self.view.producers.missing_page(batch.producer_id) else { return Ok(false) };
        if batch.transactional || batch.marker.is_some() {
            self.supply(page)?;
            return Ok(false);
        }
        let Some(begun) = &mut self.begun else { return Ok(false) };
        begun.put_off.entry(page).or_default().push((*batch, append_ms));
        Ok(true)
    }

    /// Every producer is in memory.
    pub(super) fn supply_all(&mut self) -> Result<()> {
        while let Some(page) = self.view.producers.any_missing_page() {
            self.supply(page)?;
        }
        Ok(())
    }

    fn supply(&mut self, page: usize) -> Result<()> {
        let Some(begun) = &mut self.begun else { return Ok(()) };
        begun.single_reads += 1;
        let all = begun.single_reads > SINGLE_READS;
        let Some(pages) = begun.pages.clone() else { return Ok(()) };
        let (producers, put_off) = (&mut self.view.producers, &mut begun.put_off);
        if all {
            pages.read_from(producers.any_missing_page().unwrap_or(page), |page, blocks| {
                supply(producers, put_off, page, blocks, i64::MIN);
                ControlFlow::Continue(())
            })?;
        } else {
            supply(producers, put_off, page, pages.read(page)?, i64::MIN);
        }
        if producers.any_missing_page().is_none() {
            begun.pages = None;
        }
        Ok(())
    }
}

/// A page has come: what was put off is done. See [`ProducerTable::supply`].
pub(in crate::log) fn supply(
    producers: &mut ProducerTable,
    put_off: &mut PutOff,
    page: usize,
    blocks: Vec<FrozenBlock>,
    limit_ms: i64,
) {
    let batches = put_off.remove(&page).unwrap_or_default();
    let ids: Vec<i64> = batches.iter().map(|(batch, _)| batch.producer_id).collect();
    producers.supply(page, blocks, limit_ms, &ids, |producers| {
        for (batch, append_ms) in &batches {
            let _without_transactions = replay(producers, batch, *append_ms);
        }
    });
}

fn reach_of(head: &LogCheckpoint) -> Reach {
    Reach { complete_from: head.complete_from, transactional_from: head.transactional_from }
}

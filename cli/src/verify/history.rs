//! What the log says across its segments: leader epochs, producers, transactions.

use super::findings::Findings;
use super::segment::Visitor;
use oncelog_formats::control::ControlType;
use oncelog_formats::snapshot::SealedSegment;
use oncelog_formats::{AbortedTxn, BatchHeader, BatchView, EpochEntry, SnapshotEntry};
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Batches of a producer that are remembered, and within which a repeated one is a double.
const WINDOW: usize = 5;

#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    /// Base sequence, last sequence, last offset; newest last.
    batches: VecDeque<(i32, i32, i64)>,
    open_since: Option<i64>,
}

/// Follows the log from its first batch.
#[derive(Debug, Default)]
pub struct History {
    /// First offset that may be read.
    pub log_start: i64,
    /// The leader-epoch checkpoint, which says nothing more about records below `log_start`.
    pub epochs: Vec<EpochEntry>,
    /// A clean stop left the log: what stands beside the segments is complete.
    pub clean: bool,
    /// Producer snapshots and checkpoints by the offset in their name, and their name.
    pub snapshots: BTreeMap<(i64, String), Vec<SnapshotEntry>>,
    /// Sealed segments that a snapshot describes, by base offset, each with the snapshot's file.
    pub sealed: BTreeMap<i64, (String, SealedSegment)>,
    /// The log was compacted: the cleaner's checkpoint says so, or offsets are missing between two batches of one
    /// segment.
    pub compacted: bool,
    /// Aborts whose transactions were seen, since this was last taken.
    pub aborted: Vec<AbortedTxn>,
    producers: HashMap<i64, Producer>,
    first_offset: Option<i64>,
    /// The file of the last batch and the offset behind it.
    last: Option<(String, i64)>,
    last_epoch: i32,
    misses_epochs: bool,
}

impl Visitor for History {
    fn batch(&mut self, file: &str, position: u64, batch: &BatchView<'_>, findings: &mut Findings) {
        let header = batch.header();
        self.first_offset.get_or_insert(header.base_offset);
        let before = self.last.as_ref().filter(|(last, _)| last == file);
        self.compacted |= before.is_some_and(|(_, next_offset)| header.base_offset > *next_offset);
        self.last = Some((file.to_owned(), header.next_offset()));
        self.compare_snapshots(header.base_offset, findings);
        self.check_epoch(file, position, header, findings);
        if !header.has_producer_id() {
            return;
        }
        let producer = self.producers.entry(header.producer_id).or_default();
        if producer.epoch != header.producer_epoch {
            producer.batches.clear();
            producer.epoch = header.producer_epoch;
        }
        if !header.is_control() {
            producer.data(file, position, header, findings);
        } else if header.record_count > 0
            && let Ok(control) = batch.control()
        {
            let open_since = producer.open_since.take();
            if let (ControlType::Abort, Some(first_offset)) = (control.kind, open_since) {
                let (producer_id, last_offset) = (header.producer_id, header.last_offset());
                let still_open = self.producers.values().filter_map(|producer| producer.open_since).min();
                let last_stable_offset = still_open.unwrap_or(last_offset.saturating_add(1));
                self.aborted.push(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset });
            }
        }
    }
}

impl Producer {
    fn data(&mut self, file: &str, position: u64, header: &BatchHeader, findings: &mut Findings) {
        let sequences = (header.base_sequence, header.last_sequence());
        // A coordinator's batches all carry sequence 0 and are no retries of each other.
        let numbered = header.base_sequence >= 0 && !(header.is_transactional() && header.base_sequence == 0);
        if let Some((.., offset)) = self.batches.iter().find(|batch| numbered && (batch.0, batch.1) == sequences) {
            let what = format!(
                "stored twice: the batch of producer {} with sequences {} to {} that ends at offset {offset}",
                header.producer_id, sequences.0, sequences.1
            );
            findings.problem(file, Some(position), Some(header.base_offset), what);
        }
        if self.batches.len() == WINDOW {
            self.batches.pop_front();
        }
        self.batches.push_back((sequences.0, sequences.1, header.last_offset()));
        if header.is_transactional() {
            self.open_since.get_or_insert(header.base_offset);
        }
    }
}

impl History {
    /// Before the first batch of a log that may be read from `log_start` on.
    pub fn new(log_start: i64, clean: bool) -> Self {
        Self { log_start, clean, ..Self::default() }
    }

    /// Whether nothing was deleted or compacted away before or in what was seen.
    pub fn saw_everything(&self) -> bool {
        self.first_offset == Some(0) && !self.compacted
    }

    /// A segment that was sealed must still end where it ended then.
    pub fn check_sealed(&mut self, base_offset: i64, next_offset: i64, findings: &mut Findings) {
        if let Some((file, sealed)) = self.sealed.remove(&base_offset)
            && sealed.next_offset != next_offset
        {
            let what = format!(
                "the segment at {base_offset} was sealed at offset {}, but ends at {next_offset}",
                sealed.next_offset
            );
            findings.problem(&file, None, Some(next_offset), what);
        }
    }

    /// Compares the snapshots that cover nothing at or behind `offset`.
    pub fn compare_snapshots(&mut self, offset: i64, findings: &mut Findings) {
        while let Some(entry) = self.snapshots.first_entry().filter(|entry| entry.key().0 <= offset) {
            let ((at, file), entries) = entry.remove_entry();
            for entry in entries {
                self.compare(&file, at, &entry, findings);
            }
        }
    }

    /// A producer whose last batch lies in what was walked must be remembered the way it was walked, unless compaction
    /// has taken that batch since.
    fn compare(&self, file: &str, at: i64, entry: &SnapshotEntry, findings: &mut Findings) {
        let walked_from = self.first_offset.unwrap_or(i64::MAX);
        if entry.last_sequence < 0 || entry.last_offset < walked_from || entry.last_offset >= at {
            return;
        }
        let last = self.producers.get(&entry.producer_id).and_then(|producer| producer.batches.back());
        if self.compacted && last.is_none_or(|(.., last_offset)| *last_offset < entry.last_offset) {
            return;
        }
        if last.map(|batch| (batch.1, batch.2)) != Some((entry.last_sequence, entry.last_offset)) {
            let says = format!("sequence {} at offset {}", entry.last_sequence, entry.last_offset);
            let log = last.map_or("nothing".to_owned(), |batch| format!("sequence {} at offset {}", batch.1, batch.2));
            let what = format!("producer {}: says {says}, the log says {log}", entry.producer_id);
            findings.problem(file, None, Some(entry.last_offset), what);
        }
    }

    fn check_epoch(&mut self, file: &str, position: u64, header: &BatchHeader, findings: &mut Findings) {
        let epoch = header.partition_leader_epoch;
        if epoch < 0 {
            return;
        }
        let (at, offset) = (Some(position), Some(header.base_offset));
        if epoch < self.last_epoch {
            findings.problem(file, at, offset, format_args!("leader epoch {epoch} behind epoch {}", self.last_epoch));
        }
        self.last_epoch = self.last_epoch.max(epoch);
        let recorded = self.epochs.iter().rev().find(|entry| entry.start_offset <= header.base_offset);
        if recorded.is_none() && header.base_offset >= self.log_start && !self.misses_epochs {
            self.misses_epochs = true;
            let what = format!("leader epoch {epoch} is not in leader-epoch-checkpoint");
            match self.clean || !self.epochs.is_empty() {
                true => findings.problem(file, at, offset, what),
                false => findings.note(file, at, offset, what),
            }
        }
        if let Some(recorded) = recorded.filter(|recorded| recorded.epoch != epoch) {
            let what = format!("leader epoch {epoch}, but leader-epoch-checkpoint says {}", recorded.epoch);
            findings.problem(file, at, offset, what);
        }
    }
}

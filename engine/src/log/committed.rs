//! Committed batches without the others, for readers that ignore the list of aborted transactions.
//!
//! Nothing is copied: the bytes stay as they were read, and what is left of them is named by its place.

use std::collections::HashSet;
use std::ops::Range;

use oncelog_formats::control::ControlType;
use oncelog_formats::{BatchView, Batches, FormatError};

use super::types::Fetched;

/// Tells the batches of aborted transactions from others, within one [`Fetched`]; the rule of Kafka's consumer.
#[derive(Clone, Debug)]
pub struct CommittedFilter {
    /// First offset and producer id, the latest first, so that the next one is popped from the end.
    ahead: Vec<(i64, i64)>,
    open: HashSet<i64>,
}

impl CommittedFilter {
    /// For a read that came with this list of producer ids and first offsets.
    #[must_use]
    pub fn new(aborted: &[(i64, i64)]) -> Self {
        let mut ahead: Vec<_> = aborted.iter().map(|(producer_id, first)| (*first, *producer_id)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self { ahead, open: HashSet::new() }
    }

    /// Whether a committed reader is shown this batch: no marker and no part of an aborted transaction. To be asked of
    /// every batch of the read, in order.
    ///
    /// # Errors
    /// A marker that cannot be read.
    pub fn shows(&mut self, batch: &BatchView<'_>) -> Result<bool, FormatError> {
        let header = batch.header();
        while let Some((_, producer_id)) = self.ahead.pop_if(|(first, _)| *first <= header.last_offset()) {
            self.open.insert(producer_id);
        }
        if header.is_control() {
            if header.record_count > 0
                && self.open.contains(&header.producer_id)
                && batch.control()?.kind == ControlType::Abort
            {
                self.open.remove(&header.producer_id);
            }
            return Ok(false);
        }
        Ok(!header.is_transactional() || !self.open.contains(&header.producer_id))
    }
}

/// Committed batches of one read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    fetched: Fetched,
    kept: Vec<Range<usize>>,
    next_offset: i64,
}

impl Committed {
    pub(super) fn of(fetched: Fetched, offset: i64) -> Result<Self, FormatError> {
        let mut filter = CommittedFilter::new(&fetched.aborted);
        let (mut kept, mut next_offset, mut at) = (Vec::<Range<usize>>::new(), offset, 0);
        for batch in Batches::new(&fetched.data) {
            let batch = batch?;
            let place = at..at + batch.bytes().len();
            at = place.end;
            next_offset = batch.header().next_offset();
            if filter.shows(&batch)? {
                match kept.last_mut() {
                    Some(run) if run.end == place.start => run.end = place.end,
                    _ => kept.push(place),
                }
            }
        }
        Ok(Self { fetched, kept, next_offset })
    }

    /// The batches, byte for byte as stored: runs of whole ones that lie side by side, in order of their offsets.
    pub fn runs(&self) -> impl Iterator<Item = &[u8]> {
        self.kept.iter().map(|run| &self.fetched.data[run.clone()])
    }

    /// The batches one by one.
    pub fn batches(&self) -> impl Iterator<Item = Result<BatchView<'_>, FormatError>> {
        self.runs().flat_map(Batches::new)
    }

    /// Whether nothing is left of what was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Bytes of all batches that were looked at, shown or not.
    #[must_use]
    pub fn read_bytes(&self) -> usize {
        self.fetched.data.len()
    }

    /// Where the next read begins: behind what was looked at, shown or not.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// The last stable offset at that moment.
    #[must_use]
    pub fn last_stable_offset(&self) -> i64 {
        self.fetched.last_stable_offset
    }

    /// The high watermark at that moment.
    #[must_use]
    pub fn high_watermark(&self) -> i64 {
        self.fetched.high_watermark
    }
}

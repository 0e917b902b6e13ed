//! How many committed records lie behind a position. The difference of two offsets says more than there is: markers,
//! aborted transactions and what compaction took have offsets too.

use std::collections::HashMap;
use std::sync::Arc;

use oncelog_device::DeviceFile;
use oncelog_formats::BatchHeader;

use super::Shared;
use super::types::Ack;
use crate::error::{Error, Result};
use crate::segment::walk::Walker;

/// What a committed reader has still to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lag {
    /// Committed data records from the position up to the last stable offset.
    pub records: u64,
    /// Bytes of the batches that hold them.
    pub bytes: u64,
    /// Offsets from the last stable offset to the high watermark: what open transactions hold back.
    pub held_back_offsets: u64,
}

/// A segment, as far as its headers are needed.
struct Part {
    file: Arc<dyn DeviceFile>,
    base_offset: i64,
    size: u64,
    hint: u64,
}

/// First and last offsets of aborted transactions by producer, ascending.
type Aborted = HashMap<i64, Vec<(i64, i64)>>;

impl Shared {
    pub(crate) fn lag(&self, position: i64) -> Result<Lag> {
        self.commit_all(Ack::Written)?;
        let (parts, aborted, limit, held_back) = {
            let state = self.state.lock();
            state.check_usable()?;
            let (start, end) = (state.log_start, state.log_end());
            if position < start || position > end {
                return Err(Error::OffsetOutOfRange { offset: position, log_start_offset: start, limit: end });
            }
            let limit = state.last_stable();
            let first = state.segment_of(position).map_or(i64::MIN, |segment| segment.base_offset);
            let part = |segment: &super::state::Segment| Part {
                file: segment.file.clone(),
                base_offset: segment.base_offset,
                size: segment.size,
                hint: segment.hint_for(position),
            };
            let parts: Vec<Part> = state.segments.range(first..limit.max(first)).map(|(_, s)| part(s)).collect();
            let mut aborted = Aborted::new();
            state.aborted.overlapping(position, limit, |txn| {
                aborted.entry(txn.producer_id).or_default().push((txn.first_offset, txn.last_offset));
            });
            (parts, aborted, limit, state.high_watermark.saturating_sub(limit))
        };
        let mut lag = Lag { held_back_offsets: held_back.max(0) as u64, ..Lag::default() };
        for part in parts {
            count(&part, position, limit, &aborted, &mut lag)?;
        }
        Ok(lag)
    }
}

fn count(part: &Part, position: i64, limit: i64, aborted: &Aborted, lag: &mut Lag) -> Result<()> {
    let mut walker = Walker::new(&*part.file, part.base_offset, part.size);
    let mut at = walker.start(part.hint, position)?;
    while let Some(found) = walker.header(at)? {
        let header = found.header;
        if header.base_offset >= limit {
            return Ok(());
        }
        if header.last_offset() >= position && !header.is_control() && !is_aborted(&header, aborted) {
            let of_interest = header.last_offset() - header.base_offset.max(position) + 1;
            lag.records += i64::from(header.record_count).min(of_interest).max(0) as u64;
            lag.bytes += header.size_bytes() as u64;
        }
        at += header.size_bytes() as u64;
    }
    Ok(())
}

fn is_aborted(header: &BatchHeader, aborted: &Aborted) -> bool {
    let Some(txns) = aborted.get(&header.producer_id).filter(|_| header.is_transactional()) else { return false };
    // Of one producer they neither overlap nor change places.
    let ended = txns.partition_point(|(_, last)| *last < header.base_offset);
    txns.get(ended).is_some_and(|(first, _)| *first <= header.last_offset())
}

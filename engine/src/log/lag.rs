//! How many committed records lie behind a position. The difference of two offsets says more than there is: markers,
//! aborted transactions and what compaction took have offsets too.
//!
//! So the headers are read, but those of a sealed segment once: what is committed in it stays. Numbers beside the index
//! would make that first time free as well; nothing that Kafka writes has them, so its segments would be read all the
//! same.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use oncelog_device::DeviceFile;
use oncelog_formats::{BatchHeader, OffsetEntry};
use parking_lot::{Mutex, MutexGuard};

use super::Shared;
use super::state::{Segment, State};
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

/// Committed data of a whole segment, records and bytes.
type Committed = (u64, u64);

/// What was counted of segments that nothing is added to and whose transactions are all decided: that stays as it is
/// until the log is truncated.
#[derive(Default)]
pub(super) struct Counted(Mutex<(u64, BTreeMap<i64, Committed>)>);

impl Counted {
    /// Those of the log as it is after so many truncations, and from this segment on.
    fn of(&self, generation: u64, first_base: i64) -> MutexGuard<'_, (u64, BTreeMap<i64, Committed>)> {
        let mut counted = self.0.lock();
        if counted.0 != generation {
            *counted = (generation, BTreeMap::new());
        }
        while counted.1.first_entry().is_some_and(|first| *first.key() < first_base) {
            counted.1.pop_first();
        }
        counted
    }
}

/// A segment, as far as its headers are needed.
struct Part {
    file: Arc<dyn DeviceFile>,
    base_offset: i64,
    size: u64,
    hint: OffsetEntry,
    /// All of it is looked at, and it changes no more.
    is_whole: bool,
    aborted: Aborted,
}

/// First and last offsets of aborted transactions by producer, ascending.
type Aborted = HashMap<i64, Vec<(i64, i64)>>;

impl Shared {
    pub(crate) fn lag(&self, position: i64) -> Result<Lag> {
        self.commit_all(Ack::Written)?;
        let mut lag = Lag::default();
        let (parts, limit, generation, first_base) = {
            let state = self.state.lock();
            state.check_usable()?;
            let (start, end) = (state.log_start, state.log_end());
            if position < start || position > end {
                return Err(Error::OffsetOutOfRange { offset: position, log_start_offset: start, limit: end });
            }
            let limit = state.last_stable();
            lag.held_back_offsets = state.high_watermark.saturating_sub(limit).max(0) as u64;
            let first_base = state.segments.first_key_value().map_or(0, |(base, _)| *base);
            let counted = self.counted.of(state.generation, first_base);
            let first = state.segment_of(position).map_or(i64::MIN, |segment| segment.base_offset);
            let mut parts = Vec::new();
            for (base, segment) in state.segments.range(first..limit.max(first)) {
                let is_whole = position <= *base && segment.next_offset <= limit && *base != state.active().base_offset;
                match counted.1.get(base).filter(|_| is_whole) {
                    Some(known) => lag.add(*known),
                    None => parts.push(part(&state, segment, position, limit, is_whole)),
                }
            }
            (parts, limit, state.generation, first_base)
        };
        for part in parts {
            let found = count(&part, position, limit)?;
            lag.add(found);
            if part.is_whole {
                self.counted.of(generation, first_base).1.insert(part.base_offset, found);
            }
        }
        Ok(lag)
    }
}

impl Lag {
    fn add(&mut self, (records, bytes): Committed) {
        self.records += records;
        self.bytes += bytes;
    }
}

fn part(state: &State, segment: &Segment, position: i64, limit: i64, is_whole: bool) -> Part {
    let mut aborted = Aborted::new();
    let (from, to) = (position.max(segment.base_offset), limit.min(segment.next_offset));
    state.aborted.overlapping(from, to, |txn| {
        aborted.entry(txn.producer_id).or_default().push((txn.first_offset, txn.last_offset));
    });
    Part {
        file: segment.file.clone(),
        base_offset: segment.base_offset,
        size: segment.written.size,
        hint: segment.hint_for(position),
        is_whole,
        aborted,
    }
}

fn count(part: &Part, position: i64, limit: i64) -> Result<Committed> {
    let mut walker = Walker::new(&*part.file, part.base_offset, part.size);
    let mut at = walker.start(part.hint, position)?.map_or(0, |found| found.position);
    let (mut records, mut bytes) = (0, 0);
    while let Some(found) = walker.header(at)? {
        let header = found.header;
        if header.base_offset >= limit {
            break;
        }
        if header.last_offset() >= position && !header.is_control() && !is_aborted(&header, &part.aborted) {
            let of_interest = header.last_offset() - header.base_offset.max(position) + 1;
            records += i64::from(header.record_count).min(of_interest).max(0) as u64;
            bytes += header.size_bytes() as u64;
        }
        at += header.size_bytes() as u64;
    }
    Ok((records, bytes))
}

fn is_aborted(header: &BatchHeader, aborted: &Aborted) -> bool {
    let Some(txns) = aborted.get(&header.producer_id).filter(|_| header.is_transactional()) else { return false };
    // Of one producer they neither overlap nor change places.
    let ended = txns.partition_point(|(_, last)| *last < header.base_offset);
    txns.get(ended).is_some_and(|(first, _)| *first <= header.last_offset())
}

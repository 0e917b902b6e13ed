//! The sparse index of one segment, in memory.
//!
//! Nothing here is needed for correctness: an index only says where to begin a scan, so it is kept whole in memory,
//! written when its segment is sealed, and rebuilt from the log where its file cannot be trusted. Kafka's rule for when
//! an entry is due is followed exactly, since other programs read the files ([`SegmentIndex::append`]). Other than
//! Kafka, recovery can never overflow a tiny index: what does not fit is left out, and the segment rolls.

use crate::config::Config;
use oncelog_formats::{FormatError, IndexFindings, OffsetEntry, TimeEntry};

pub mod aborted;
pub mod offset;
pub mod time;

pub use aborted::AbortedIndex;
pub use offset::OffsetIndex;
pub use time::TimeIndex;

/// Why an entry was refused; the index is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// No slot is left.
    #[error("the index holds its {entries} entries")]
    Full {
        /// Entries held.
        entries: usize,
    },
    /// An offset that does not follow the last one.
    #[error("offset {offset} does not follow {last}")]
    OffsetOutOfOrder {
        /// As given.
        offset: i64,
        /// Of the last entry.
        last: i64,
    },
    /// A timestamp below the last one.
    #[error("timestamp {timestamp} is below {last}")]
    TimestampOutOfOrder {
        /// As given.
        timestamp: i64,
        /// Of the last entry.
        last: i64,
    },
    /// An offset or position that the file cannot hold.
    #[error("offset {offset} at position {position} does not fit an index with base offset {base_offset}")]
    OutOfRange {
        /// As given.
        offset: i64,
        /// As given, in bytes; 0 for a time index.
        position: u64,
        /// Of the segment.
        base_offset: i64,
    },
}

/// Whether an index of base `base_offset` can hold `offset`: 0 to 2^31 - 1 above it.
#[must_use]
pub fn can_hold(base_offset: i64, offset: i64) -> bool {
    offset.checked_sub(base_offset).is_some_and(|relative| (0..=i64::from(i32::MAX)).contains(&relative))
}

/// How many of `count` decoded entries stand before the first one that is out of order or range.
fn sound_entries(count: usize, findings: &IndexFindings) -> usize {
    [findings.first_not_increasing, findings.first_out_of_range].into_iter().flatten().fold(count, usize::min)
}

/// Both indexes of a segment, with what decides when the next entry is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentIndex {
    base_offset: i64,
    offsets: OffsetIndex,
    times: TimeIndex,
    interval_bytes: u64,
    bytes_since_entry: u64,
    largest: Option<TimeEntry>,
}

impl SegmentIndex {
    /// Empty indexes of at most `segment_index_bytes` each, with an entry due after more than `index_interval_bytes`.
    #[must_use]
    pub fn new(base_offset: i64, config: &Config) -> Self {
        Self {
            base_offset,
            offsets: OffsetIndex::new(base_offset, config.segment_index_bytes),
            times: TimeIndex::new(base_offset, config.segment_index_bytes),
            interval_bytes: config.index_interval_bytes,
            bytes_since_entry: 0,
            largest: None,
        }
    }

    /// Indexes as stored, with what is odd about each file: offset index, time index. Entries from the first one out of
    /// order or range on are left out. The largest timestamp is the last entry's; batches behind it may carry a larger
    /// one, see [`SegmentIndex::note_timestamp`].
    #[must_use]
    pub fn from_bytes(
        base_offset: i64,
        config: &Config,
        offset_index: &[u8],
        time_index: &[u8],
    ) -> (Self, [IndexFindings; 2]) {
        let (offsets, offset_findings) = OffsetIndex::from_bytes(base_offset, config.segment_index_bytes, offset_index);
        let (times, time_findings) = TimeIndex::from_bytes(base_offset, config.segment_index_bytes, time_index);
        let largest = times.entries().last().copied();
        let empty = Self::new(base_offset, config);
        (Self { offsets, times, largest, ..empty }, [offset_findings, time_findings])
    }

    /// An index that goes on where one of these entries was left off. `None` if they do not follow on.
    #[must_use]
    pub fn resume(
        base_offset: i64,
        config: &Config,
        offset_entries: &[OffsetEntry],
        time_entries: &[TimeEntry],
        largest: Option<TimeEntry>,
        bytes_since_entry: u64,
    ) -> Option<Self> {
        let mut index = Self { largest, bytes_since_entry, ..Self::new(base_offset, config) };
        for entry in offset_entries {
            index.offsets.append(entry.offset, u64::from(entry.position)).ok()?;
        }
        for entry in time_entries {
            index.times.maybe_append(entry.timestamp, entry.offset).ok()?;
        }
        let whole = index.offset_entries() == offset_entries && index.time_entries() == time_entries;
        whole.then_some(index)
    }

    /// Bytes of batches since the one that got the last entry, that one included.
    #[must_use]
    pub fn bytes_since_entry(&self) -> u64 {
        self.bytes_since_entry
    }

    /// Counts a batch behind all before it, by Kafka's rule: its timestamp counts first; if more than the interval was
    /// written since the last entry, it gets one in each index; then its bytes count. Whether it got one.
    ///
    /// `position` and `size_bytes` in bytes, `max_timestamp` in ms (-1 for none). Cannot fail, since who calls it is
    /// past the point of return: an entry that does not fit or follow is left out, and the index is only less dense.
    pub fn append(&mut self, position: u64, size_bytes: usize, last_offset: i64, max_timestamp: i64) -> bool {
        if can_hold(self.base_offset, last_offset) {
            self.note_timestamp(max_timestamp, last_offset);
        }
        let due = self.bytes_since_entry > self.interval_bytes;
        let added = due && !self.is_full() && self.offsets.append(last_offset, position).is_ok();
        if let (true, Some(largest)) = (added, self.largest) {
            // The largest is never below the last entry in either field, and there is room.
            let _added = self.times.maybe_append(largest.timestamp, largest.offset);
        }
        if due {
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry = self.bytes_since_entry.saturating_add(size_bytes as u64);
        added
    }

    /// Takes a timestamp into account if it is strictly larger than all before: of a batch that ends with
    /// `last_offset`.
    pub fn note_timestamp(&mut self, max_timestamp: i64, last_offset: i64) {
        if max_timestamp > self.largest_timestamp() {
            self.largest = Some(TimeEntry { timestamp: max_timestamp, offset: last_offset });
        }
    }

    /// Adds the final time entry, into the reserved slot if need be; nothing where the last entry says as much.
    /// Done when the segment is rolled or closed, before the files are written.
    pub fn seal(&mut self) -> bool {
        self.largest.is_some_and(|largest| self.times.append_final(largest.timestamp, largest.offset) == Ok(true))
    }

    /// Restarts the byte counter, as Kafka does when a segment is opened again.
    pub fn restart_counter(&mut self) {
        self.bytes_since_entry = 0;
    }

    /// The last entry at or below `offset`; (base offset, 0) where there is none.
    #[must_use]
    pub fn lookup_offset(&self, offset: i64) -> OffsetEntry {
        self.offsets.lookup(offset)
    }

    /// Offset of the first entry at or behind `position` (bytes), Kafka's upper bound of a read that ends there.
    #[must_use]
    pub fn offset_at_position(&self, position: u64) -> Option<i64> {
        self.offsets.offset_at_position(position)
    }

    /// The last time entry at or below `timestamp`; (-1, base offset) where there is none.
    #[must_use]
    pub fn lookup_timestamp(&self, timestamp: i64) -> TimeEntry {
        self.times.lookup(timestamp)
    }

    /// Whether the segment has to roll because an index has no room.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.offsets.is_full() || self.times.is_full()
    }

    /// Largest timestamp of any batch, ms; -1 for none.
    #[must_use]
    pub fn largest_timestamp(&self) -> i64 {
        self.largest.map_or(-1, |entry| entry.timestamp)
    }

    /// Largest timestamp with the last offset of the batch that carried it first.
    #[must_use]
    pub fn largest(&self) -> Option<TimeEntry> {
        self.largest
    }

    /// Entries of the offset index.
    #[must_use]
    pub fn offset_entries(&self) -> &[OffsetEntry] {
        self.offsets.entries()
    }

    /// Entries of the time index.
    #[must_use]
    pub fn time_entries(&self) -> &[TimeEntry] {
        self.times.entries()
    }

    /// The two files: offset index, time index.
    pub fn encode(&self) -> Result<[Vec<u8>; 2], FormatError> {
        Ok([self.offsets.encode()?, self.times.encode()?])
    }
}

#[cfg(test)]
mod tests;

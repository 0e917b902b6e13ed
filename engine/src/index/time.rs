//! From a timestamp to an offset: `.timeindex`, in memory.

use oncelog_formats::time_index::{self, ENTRY_BYTES};
use oncelog_formats::{FormatError, IndexFindings, TimeEntry};

use super::{IndexError, can_hold, sound_entries};

/// Entries of one segment, strictly increasing in timestamp.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeIndex {
    base_offset: i64,
    max_entries: usize,
    entries: Vec<TimeEntry>,
}

impl TimeIndex {
    /// An empty index of at most `max_index_bytes`.
    #[must_use]
    pub fn new(base_offset: i64, max_index_bytes: u64) -> Self {
        let mut index = Self { base_offset, max_entries: 0, entries: Vec::new() };
        index.set_max_bytes(max_index_bytes);
        index
    }

    /// An index as stored, with what is odd about the file. Entries from the first one out of order or range on are
    /// left out.
    #[must_use]
    pub fn from_bytes(base_offset: i64, max_index_bytes: u64, bytes: &[u8]) -> (Self, IndexFindings) {
        let (mut entries, findings) = time_index::decode_all(base_offset, bytes);
        entries.truncate(sound_entries(entries.len(), &findings));
        (Self { entries, ..Self::new(base_offset, max_index_bytes) }, findings)
    }

    /// Adds an entry if `timestamp` is above the last one's (-1 where there is none); whether it was added.
    pub fn maybe_append(&mut self, timestamp: i64, offset: i64) -> Result<bool, IndexError> {
        if self.is_full() {
            return Err(IndexError::Full { entries: self.entries.len() });
        }
        self.append_final(timestamp, offset)
    }

    /// As [`TimeIndex::maybe_append`], but also into the slot that is reserved for the entry of a roll or close.
    pub fn append_final(&mut self, timestamp: i64, offset: i64) -> Result<bool, IndexError> {
        if let Some(last) = self.entries.last() {
            if offset < last.offset {
                return Err(IndexError::OffsetOutOfOrder { offset, last: last.offset });
            }
            if timestamp < last.timestamp {
                return Err(IndexError::TimestampOutOfOrder { timestamp, last: last.timestamp });
            }
        }
        if timestamp <= self.last().timestamp {
            return Ok(false);
        }
        if !can_hold(self.base_offset, offset) {
            return Err(IndexError::OutOfRange { offset, position: 0, base_offset: self.base_offset });
        }
        self.entries.push(TimeEntry { timestamp, offset });
        Ok(true)
    }

    /// The last entry; (-1, base offset) where there is none.
    #[must_use]
    pub fn last(&self) -> TimeEntry {
        self.entries.last().copied().unwrap_or(self.nothing())
    }

    /// The greatest entry at or below `timestamp`; (-1, base offset) where there is none.
    #[must_use]
    pub fn lookup(&self, timestamp: i64) -> TimeEntry {
        let above = self.entries.partition_point(|entry| entry.timestamp <= timestamp);
        above.checked_sub(1).map_or(self.nothing(), |at| self.entries[at])
    }

    /// Whether only the slot of the final entry is left, or none.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() + 1 >= self.max_entries
    }

    /// Changes the size limit; entries above it stay.
    pub fn set_max_bytes(&mut self, max_index_bytes: u64) {
        self.max_entries = usize::try_from(max_index_bytes).unwrap_or(usize::MAX) / ENTRY_BYTES;
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[TimeEntry] {
        &self.entries
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        time_index::encode_all(self.base_offset, &self.entries)
    }

    fn nothing(&self) -> TimeEntry {
        TimeEntry { timestamp: -1, offset: self.base_offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: i64 = 45;

    /// Ten slots, nine of them filled with timestamps 10 to 90: full but for the reserved one.
    fn nine() -> TimeIndex {
        let mut index = TimeIndex::new(BASE, 12 * 10 + 11);
        for at in 1..10 {
            assert!(!index.is_full());
            assert_eq!(index.maybe_append(10 * at, BASE + at), Ok(true));
        }
        index
    }

    #[test]
    fn lookup_finds_the_entry_at_or_below() {
        let entry = |timestamp, offset| TimeEntry { timestamp, offset };
        assert_eq!(TimeIndex::new(BASE, 120).lookup(100), entry(-1, BASE));
        for (timestamp, expected) in
            [(9, entry(-1, BASE)), (25, entry(20, BASE + 2)), (30, entry(30, BASE + 3)), (999, entry(90, BASE + 9))]
        {
            assert_eq!(nine().lookup(timestamp), expected, "{timestamp}");
        }
    }

    #[test]
    fn the_last_slot_is_for_the_final_entry() {
        let mut index = nine();
        assert!(index.is_full());
        assert_eq!(index.maybe_append(100, BASE + 10), Err(IndexError::Full { entries: 9 }));
        assert_eq!(index.append_final(90, BASE + 10), Ok(false));
        assert_eq!(index.append_final(100, BASE + 10), Ok(true));
        assert_eq!(index.last(), TimeEntry { timestamp: 100, offset: BASE + 10 });
    }

    #[test]
    fn refuses_what_goes_backwards_and_ignores_what_stands_still() {
        let mut index = TimeIndex::new(BASE, 120);
        assert_eq!(index.maybe_append(-1, BASE), Ok(false));
        assert_eq!(index.maybe_append(10, BASE + 1), Ok(true));
        assert_eq!(index.maybe_append(10, BASE + 2), Ok(false));
        assert_eq!(index.maybe_append(11, BASE), Err(IndexError::OffsetOutOfOrder { offset: BASE, last: BASE + 1 }));
        assert_eq!(index.maybe_append(9, BASE + 2), Err(IndexError::TimestampOutOfOrder { timestamp: 9, last: 10 }));
        assert!(matches!(index.maybe_append(12, BASE + (1 << 31)), Err(IndexError::OutOfRange { .. })));
        assert_eq!(index.entries().len(), 1);
    }

    #[test]
    fn the_file_says_what_memory_says() {
        let index = nine();
        let (read, findings) = TimeIndex::from_bytes(BASE, 12 * 10 + 11, &index.encode().unwrap());
        assert!(findings.is_clean());
        assert_eq!(read, index);
    }

    #[test]
    fn a_file_is_used_up_to_its_first_flaw() {
        let mut file = nine().encode().unwrap();
        file.copy_within(0..12, 60);
        let (index, findings) = TimeIndex::from_bytes(BASE, 120, &file);
        assert_eq!((index.entries().len(), findings.first_not_increasing), (5, Some(5)));
    }
}

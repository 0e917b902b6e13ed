//! From an offset to the position of its batch: `.index`, in memory.

use oncelog_formats::offset_index::{self, ENTRY_BYTES};
use oncelog_formats::{FormatError, IndexFindings, OffsetEntry};

use super::{IndexError, can_hold, sound_entries};

/// Entries of one segment, strictly increasing in offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetIndex {
    base_offset: i64,
    max_entries: usize,
    entries: Vec<OffsetEntry>,
}

impl OffsetIndex {
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
        let (mut entries, findings) = offset_index::decode_all(base_offset, bytes);
        entries.truncate(sound_entries(entries.len(), &findings));
        (Self { entries, ..Self::new(base_offset, max_index_bytes) }, findings)
    }

    /// Whether [`OffsetIndex::append`] would take the entry, full or not.
    pub fn check(&self, offset: i64, position: u64) -> Result<(), IndexError> {
        if i32::try_from(position).is_err() || !can_hold(self.base_offset, offset) {
            return Err(IndexError::OutOfRange { offset, position, base_offset: self.base_offset });
        }
        match self.entries.last() {
            Some(last) if offset <= last.offset => Err(IndexError::OffsetOutOfOrder { offset, last: last.offset }),
            _ => Ok(()),
        }
    }

    /// Adds an entry: the batch that starts at `position` (bytes) ends with `offset`.
    pub fn append(&mut self, offset: i64, position: u64) -> Result<(), IndexError> {
        if self.is_full() {
            return Err(IndexError::Full { entries: self.entries.len() });
        }
        self.check(offset, position)?;
        self.entries.push(OffsetEntry { offset, position: position as u32 });
        Ok(())
    }

    /// The greatest entry at or below `offset`; (base offset, 0) where there is none.
    #[must_use]
    pub fn lookup(&self, offset: i64) -> OffsetEntry {
        let above = self.entries.partition_point(|entry| entry.offset <= offset);
        above.checked_sub(1).map_or(OffsetEntry { offset: self.base_offset, position: 0 }, |at| self.entries[at])
    }

    /// Offset of the first entry at or behind `position` (bytes): no batch below `position` reaches it. Kafka's search
    /// never looks at its first entry where it looks for an upper bound, so one that stands right at `position` is
    /// passed over.
    #[must_use]
    pub fn offset_at_position(&self, position: u64) -> Option<i64> {
        let below = self.entries.partition_point(|entry| u64::from(entry.position) < position);
        let is_first = below == 0 && self.entries.first().is_some_and(|first| u64::from(first.position) == position);
        self.entries.get(below + usize::from(is_first)).map(|entry| entry.offset)
    }

    /// Whether no further entry fits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.max_entries
    }

    /// Changes the size limit; entries above it stay.
    pub fn set_max_bytes(&mut self, max_index_bytes: u64) {
        self.max_entries = usize::try_from(max_index_bytes).unwrap_or(usize::MAX) / ENTRY_BYTES;
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[OffsetEntry] {
        &self.entries
    }

    /// The file.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        offset_index::encode_all(self.base_offset, &self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(base_offset: i64, offsets: impl IntoIterator<Item = i64>) -> OffsetIndex {
        let mut index = OffsetIndex::new(base_offset, 240);
        for (at, offset) in offsets.into_iter().enumerate() {
            index.append(offset, 10 * at as u64).unwrap();
        }
        index
    }

    #[test]
    fn lookup_finds_the_entry_at_or_below() {
        let index = filled(45, [50, 60, 75]);
        for (offset, expected) in
            [(44, (45, 0)), (49, (45, 0)), (50, (50, 0)), (59, (50, 0)), (74, (60, 10)), (900, (75, 20))]
        {
            let found = index.lookup(offset);
            assert_eq!((found.offset, found.position), expected, "{offset}");
        }
        assert_eq!(OffsetIndex::new(7, 240).lookup(100), OffsetEntry { offset: 7, position: 0 });
    }

    #[test]
    fn refuses_what_does_not_follow_or_fit() {
        let mut index = filled(45, [51]);
        assert_eq!(index.append(50, 9), Err(IndexError::OffsetOutOfOrder { offset: 50, last: 51 }));
        assert_eq!(index.append(51, 9), Err(IndexError::OffsetOutOfOrder { offset: 51, last: 51 }));
        for (base, offset) in
            [(0, -1 - i64::from(i32::MAX)), (0, 1 << 31), (1, 0), (100, 10), (1 << 31, 0), (i64::MIN, i64::MAX)]
        {
            assert!(
                matches!(OffsetIndex::new(base, 240).append(offset, 0), Err(IndexError::OutOfRange { .. })),
                "{base} {offset}"
            );
        }
        assert!(matches!(index.append(60, 1 << 31), Err(IndexError::OutOfRange { .. })));
        assert_eq!(index.append(45 + i64::from(i32::MAX), 9), Ok(()));
    }

    #[test]
    fn the_offset_at_a_position() {
        let mut index = OffsetIndex::new(0, 240);
        for (offset, position) in [(1, 0), (2, 10), (3, 23), (4, 37)] {
            index.append(offset, position).unwrap();
        }
        let found =
            [(0, 2), (5, 2), (10, 2), (22, 3), (23, 3), (34, 4)].map(|(position, offset)| (position, Some(offset)));
        let table = found.into_iter().chain([(38, None), (200, None)]);
        for (position, expected) in table {
            assert_eq!(index.offset_at_position(position), expected, "{position}");
        }
        assert_eq!(OffsetIndex::new(0, 240).offset_at_position(5), None);
    }

    #[test]
    fn full_at_the_floor_of_its_size() {
        let mut index = OffsetIndex::new(0, 23);
        assert!(!index.is_full());
        index.append(1, 0).unwrap();
        assert!(!index.is_full());
        index.append(2, 1).unwrap();
        assert!(index.is_full());
        assert_eq!(index.append(3, 2), Err(IndexError::Full { entries: 2 }));
        assert!(OffsetIndex::new(0, 7).is_full());
    }

    #[test]
    fn the_file_says_what_memory_says() {
        let index = filled(0, 1..10);
        let (read, findings) = OffsetIndex::from_bytes(0, 240, &index.encode().unwrap());
        assert!(findings.is_clean());
        assert_eq!(read, index);
    }

    #[test]
    fn a_file_is_used_up_to_its_first_flaw() {
        let mut file = filled(100, [101, 102, 103]).encode().unwrap();
        let tail = file[..8].to_vec();
        file.extend(tail);
        file.push(7);
        let (index, findings) = OffsetIndex::from_bytes(100, 240, &file);
        assert_eq!((findings.first_not_increasing, findings.partial_bytes), (Some(3), 1));
        assert_eq!(index, filled(100, [101, 102, 103]));
    }
}

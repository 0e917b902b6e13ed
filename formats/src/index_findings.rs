//! What is odd about the content of an offset or time index.
//!
//! Kafka trusts an index whose length fits, and then skips stored records without a word when its content is garbage.
//! Decoding here never refuses: it returns every entry it could read and this list of oddities, because only the engine
//! knows whether to use the index, trim it or rebuild it from the log.

/// Oddities of one index file. Entry numbers count from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexFindings {
    /// Bytes behind the last whole entry (the length is no multiple of the entry size); ignored.
    pub partial_bytes: usize,
    /// All-zero entries at the end, as an untrimmed preallocated file has; left out of the entries. Entry 0 is never
    /// counted here, see [`zero_first_entry`](Self::zero_first_entry).
    pub trimmed_zero_entries: usize,
    /// Entry 0 is all zero and was kept. That is genuine only if it says what the log says (base offset at position 0,
    /// or base offset at timestamp 0); it is also what an untrimmed file without entries looks like. No fault in
    /// itself.
    pub zero_first_entry: bool,
    /// First entry that is not above the one before it.
    pub first_not_increasing: Option<usize>,
    /// First entry with a value that no writer produces: relative offset or position below zero, or an offset beyond
    /// i64.
    pub first_out_of_range: Option<usize>,
}

impl IndexFindings {
    /// Nothing to complain about. A zero first entry alone does not count; judge it against the log.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        *self == Self { zero_first_entry: self.zero_first_entry, ..Self::default() }
    }

    /// Splits `bytes` into whole entries that are worth decoding, and starts the findings with what was cut off.
    pub(crate) fn split<const N: usize>(bytes: &[u8]) -> (&[[u8; N]], Self) {
        let (all, partial) = bytes.as_chunks::<N>();
        let is_zero = |entry: &[u8; N]| entry.iter().all(|byte| *byte == 0);
        let used = all.iter().rposition(|entry| !is_zero(entry)).map_or(0, |last| last + 1);
        let kept = used.max(all.len().min(1));
        let findings = Self {
            partial_bytes: partial.len(),
            trimmed_zero_entries: all.len() - kept,
            zero_first_entry: all.first().is_some_and(is_zero),
            ..Self::default()
        };
        (&all[..kept], findings)
    }

    pub(crate) fn note_not_increasing(&mut self, entry: usize) {
        self.first_not_increasing.get_or_insert(entry);
    }

    pub(crate) fn note_out_of_range(&mut self, entry: usize) {
        self.first_out_of_range.get_or_insert(entry);
    }
}

/// Offset relative to the base as the indexes store it.
pub(crate) fn relative_offset(base_offset: i64, offset: i64, what: &'static str) -> crate::Result<i32> {
    offset
        .checked_sub(base_offset)
        .and_then(|relative| i32::try_from(relative).ok())
        .filter(|relative| *relative >= 0)
        .ok_or(crate::FormatError::OutOfRange { what, value: offset })
}

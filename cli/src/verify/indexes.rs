//! The indexes of one segment, held against its batches as they pass by.

use super::findings::Findings;
use oncelog_formats::{
    AbortedTxn, BatchHeader, IndexFindings, OffsetEntry, TimeEntry, offset_index, time_index, txn_index,
};

/// What one segment's `.index` and `.timeindex` say, and how far that was checked.
#[derive(Debug, Default)]
pub struct Indexes {
    unsettled: bool,
    largest_timestamp: Option<i64>,
    offsets: Entries<OffsetEntry>,
    times: Entries<TimeEntry>,
    /// Position of the entry in `offsets` was found, its offset not yet.
    position_seen: bool,
}

#[derive(Debug)]
struct Entries<T> {
    file: String,
    unsettled: bool,
    entries: std::iter::Peekable<std::iter::Enumerate<std::vec::IntoIter<T>>>,
    entry_bytes: usize,
    zero_first: bool,
    /// The file is there and holds nothing.
    is_empty: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            file: String::new(),
            entries: Vec::new().into_iter().enumerate().peekable(),
            entry_bytes: 0,
            zero_first: false,
            unsettled: false,
            is_empty: false,
        }
    }
}

impl<T: Copy> Entries<T> {
    fn new(
        (file, unsettled): (String, bool),
        entries: Vec<T>,
        odd: IndexFindings,
        entry_bytes: usize,
        findings: &mut Findings,
    ) -> Self {
        let at = |entry: usize| Some((entry * entry_bytes) as u64);
        if odd.partial_bytes > 0 {
            findings.index(
                unsettled,
                &file,
                at(entries.len() + odd.trimmed_zero_entries),
                None,
                "ends inside an entry",
            );
        }
        if let Some(entry) = odd.first_not_increasing {
            findings.index(
                unsettled,
                &file,
                at(entry),
                None,
                format_args!("entry {entry} is not above the one before it"),
            );
        }
        if let Some(entry) = odd.first_out_of_range {
            findings.index(
                unsettled,
                &file,
                at(entry),
                None,
                format_args!("entry {entry} holds a value that nobody writes"),
            );
        }
        if odd.trimmed_zero_entries > 0 {
            findings.note(
                &file,
                None,
                None,
                format_args!("{} unused entries, as an unclean stop leaves them", odd.trimmed_zero_entries),
            );
        }
        Self {
            file,
            unsettled,
            is_empty: entries.is_empty(),
            entries: entries.into_iter().enumerate().peekable(),
            entry_bytes,
            zero_first: odd.zero_first_entry,
        }
    }

    fn peek(&mut self) -> Option<T> {
        self.entries.peek().map(|(_, entry)| *entry)
    }

    fn pass(&mut self) {
        self.entries.next();
    }

    /// Passes an entry that is wrong. An untrimmed file's zero first entry looks wrong and is none.
    fn wrong(&mut self, offset: i64, what: &str, findings: &mut Findings) {
        if let Some((number, _)) = self.entries.next()
            && !(number == 0 && self.zero_first)
        {
            let at = Some((number * self.entry_bytes) as u64);
            findings.index(self.unsettled, &self.file, at, Some(offset), format_args!("entry {number} {what}"));
        }
    }
}

impl Indexes {
    /// Of a segment. If it is `unsettled` the next opening makes its indexes anew, so that nothing in them is a
    /// problem.
    pub fn new(unsettled: bool) -> Self {
        Self { unsettled, ..Self::default() }
    }

    /// Reads the offset index.
    pub fn load_offsets(&mut self, file: String, base_offset: i64, bytes: &[u8], findings: &mut Findings) {
        let (entries, odd) = offset_index::decode_all(base_offset, bytes);
        self.offsets = Entries::new((file, self.unsettled), entries, odd, offset_index::ENTRY_BYTES, findings);
    }

    /// Reads the time index.
    pub fn load_times(&mut self, file: String, base_offset: i64, bytes: &[u8], findings: &mut Findings) {
        let (entries, odd) = time_index::decode_all(base_offset, bytes);
        self.times = Entries::new((file, self.unsettled), entries, odd, time_index::ENTRY_BYTES, findings);
    }

    /// Holds the entries for this batch against it. Batches come in order.
    pub fn batch(&mut self, position: u64, header: &BatchHeader, findings: &mut Findings) {
        self.largest_timestamp = self.largest_timestamp.max(Some(header.max_timestamp));
        while let Some(entry) = self.offsets.peek() {
            let starts = u64::from(entry.position);
            if !self.position_seen && starts > position {
                break;
            }
            if !self.position_seen && starts < position {
                self.offsets.wrong(entry.offset, "points between batches", findings);
                continue;
            }
            self.position_seen = true;
            if entry.offset > header.last_offset() {
                break;
            }
            if entry.offset < header.last_offset() {
                self.offsets.wrong(entry.offset, "has an offset that is not where it points", findings);
            } else {
                self.offsets.pass();
            }
            self.position_seen = false;
        }
        while let Some(entry) = self.times.peek().filter(|entry| entry.offset <= header.last_offset()) {
            if entry.offset < header.base_offset || entry.timestamp != header.max_timestamp {
                self.times.wrong(entry.offset, "has a timestamp that its batch does not have", findings);
            } else {
                self.times.pass();
            }
        }
    }

    /// Reports what points behind the last batch, and a time index that lost all that it held: it gets its last entry
    /// when its segment is sealed or closed.
    pub fn finish(&mut self, next_offset: i64, findings: &mut Findings) {
        let has_times = self.largest_timestamp.is_some_and(|timestamp| timestamp >= 0);
        if self.times.is_empty && has_times {
            findings.index(
                self.unsettled,
                &self.times.file,
                Some(0),
                None,
                "is empty, although its records have times",
            );
        }
        let what = format!("points behind the segment's end at offset {next_offset}");
        while let Some(entry) = self.offsets.peek() {
            self.offsets.wrong(entry.offset, &what, findings);
        }
        while let Some(entry) = self.times.peek() {
            self.times.wrong(entry.offset, &what, findings);
        }
    }
}

/// A segment's `.txnindex`.
pub struct Aborted {
    /// Name of the file.
    pub file: String,
    /// Its content; `None`: there is no such file.
    pub bytes: Option<Vec<u8>>,
    /// The next opening reads the segment again and rebuilds the file, so it may lack entries.
    pub unsettled: bool,
    /// Nobody asks for what was aborted below, and Kafka's cleaner leaves it out.
    pub log_start: i64,
}

impl Aborted {
    /// Compares it with the aborts seen in the segment. Where the log was not seen `from_the_start`, transactions may
    /// have begun earlier than was seen.
    pub fn check(&self, seen: &[AbortedTxn], from_the_start: bool, findings: &mut Findings) {
        let decoded = self.bytes.as_deref().map(txn_index::decode_all);
        let entries = match decoded.unwrap_or(Ok((Vec::new(), txn_index::TxnFindings::default()))) {
            Ok((entries, odd)) => {
                self.report_odd(&entries, odd, findings);
                entries
            }
            Err(error) => return findings.problem(&self.file, None, None, error),
        };
        let unknown = |entry: &&AbortedTxn| !seen.iter().any(|abort| abort.last_offset == entry.last_offset);
        for entry in entries.iter().filter(|_| from_the_start).filter(unknown) {
            let what = format!("no transaction of producer {} was aborted here", entry.producer_id);
            findings.problem(&self.file, None, Some(entry.last_offset), what);
        }
        for abort in seen.iter().filter(|abort| abort.last_offset >= self.log_start) {
            let at = Some(abort.last_offset);
            match entries.iter().find(|entry| entry.last_offset == abort.last_offset) {
                None if self.unsettled => {
                    findings.note(&self.file, None, at, "no entry yet for the transaction aborted here");
                }
                None => {
                    let producer_id = abort.producer_id;
                    let what = format!(
                        "no entry for the transaction of producer {producer_id} aborted here; its records would be shown"
                    );
                    findings.problem(&self.file, None, at, what);
                }
                Some(entry) if entry != abort && (from_the_start || entry.first_offset > abort.first_offset) => {
                    findings.problem(&self.file, None, at, format_args!("says {entry:?}, the log says {abort:?}"));
                }
                Some(_) => {}
            }
        }
    }

    fn report_odd(&self, entries: &[AbortedTxn], odd: txn_index::TxnFindings, findings: &mut Findings) {
        let at = |entry: usize| Some((entry * txn_index::ENTRY_BYTES) as u64);
        if odd.partial_bytes > 0 {
            findings.problem(&self.file, at(entries.len()), None, "ends inside an entry");
        }
        if let Some(entry) = odd.first_not_increasing {
            findings.problem(&self.file, at(entry), None, format_args!("entry {entry} is not above the one before it"));
        }
        if let Some(entry) = odd.first_impossible {
            findings.problem(
                &self.file,
                at(entry),
                None,
                format_args!("entry {entry} holds a value that nobody writes"),
            );
        }
    }
}

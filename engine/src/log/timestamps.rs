//! Offsets by time.

use std::ops::ControlFlow;

use oncelog_device::DeviceFile;
use oncelog_device::planted::{Bug, planted};
use oncelog_formats::{BatchView, OffsetEntry, TimeEntry};

use super::Shared;
use super::types::Ack;
use crate::error::{Error, Result};
use crate::segment::scan::{Stop, scan};
use crate::segment::walk::{Found, Walker};
use crate::validate::DECODE_LIMIT_BYTES;

/// The log end.
const LATEST: i64 = -1;
/// The log start.
const EARLIEST: i64 = -2;
/// The record with the largest timestamp.
const LARGEST: i64 = -3;

impl Shared {
    pub(crate) fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>> {
        self.commit_all(Ack::Written)?;
        let state = self.state.lock();
        state.check_usable()?;
        match timestamp {
            LATEST => return Ok(Some((state.log_end(), -1))),
            EARLIEST => return Ok(Some((state.log_start, -1))),
            _ => {}
        }
        let log_start = state.log_start;
        let (segment, wanted) = if timestamp == LARGEST {
            let mut best = state.segments.values().next().expect("a log has a segment");
            for segment in state.segments.values() {
                if segment.index.largest_timestamp() > best.index.largest_timestamp() {
                    best = segment;
                }
            }
            (best, best.index.largest_timestamp())
        } else {
            match state.segments.values().find(|s| s.index.largest_timestamp() >= timestamp) {
                Some(segment) => (segment, timestamp),
                None => return Ok(None),
            }
        };
        let exact = timestamp == LARGEST;
        let entry = match segment.index.largest() {
            Some(largest) if exact => largest,
            // Of the entry with this very timestamp nothing would tell that a batch before it has the same.
            _ => segment.index.lookup_timestamp(wanted.saturating_sub(1)),
        };
        let (file, size, base) = (segment.file.clone(), segment.size, segment.base_offset);
        let segment_end = segment.data_end;
        // The largest timestamp is that of the files, whatever may be read of them.
        let first = if exact { i64::MIN } else { log_start };
        let behind = Behind { entry, hint: segment.hint_for(entry.offset.max(first)), first };
        let accepted = state.progress.accepted;
        drop(state);
        // All that the index knows of has to be in the file. What came behind that is not looked at.
        self.commit(accepted, Ack::Written)?;
        let mut walker = Walker::new(&*file, base, size).ending_at(segment_end);
        let sought = Sought { wanted, first, exact };
        let from = behind.position(&mut walker)?;
        match sought.search(&*file, from, (base, size), &mut walker)? {
            None if from > 0 => Ok(sought.search(&*file, 0, (base, size), &mut walker)?.flatten()),
            found => Ok(found.flatten()),
        }
    }
}

/// What the time index says of where to begin.
struct Behind {
    entry: TimeEntry,
    /// Of the offset index.
    hint: OffsetEntry,
    /// The first offset that counts.
    first: i64,
}

impl Behind {
    /// Where to begin to look: at the first offset that counts, or at the batch of the entry if it carries that
    /// timestamp, so that those before it are older; else at the front. An index is not believed.
    fn position(&self, walker: &mut Walker<'_>) -> Result<u64> {
        let Self { entry, hint, first } = *self;
        match walker.locate(hint, entry.offset.max(first)) {
            Ok(Some(found)) if entry.offset < first || found.header.max_timestamp == entry.timestamp => {
                Ok(found.position)
            }
            Ok(_) | Err(Error::Damaged(_)) => Ok(0),
            Err(error) => Err(error),
        }
    }
}

/// What is looked for in a segment.
struct Sought {
    wanted: i64,
    /// The first offset that counts.
    first: i64,
    exact: bool,
}

impl Sought {
    /// The first record that counts whose timestamp is at or behind `wanted`; with `exact` that of the first batch
    /// whose largest timestamp is `wanted`, which may have lost its records to compaction: then there is none, as in
    /// Kafka. Damage before it may hide an earlier one, and is an error.
    fn search(
        &self,
        file: &dyn DeviceFile,
        from: u64,
        (base_offset, size): (i64, u64),
        walker: &mut Walker<'_>,
    ) -> Result<Option<Option<(i64, i64)>>> {
        let Self { wanted, first, exact } = *self;
        let (mut found, mut expected) = (None, base_offset);
        let end = scan(file, from, size, base_offset, |position, view| {
            let header = view.header();
            let largest = header.max_timestamp;
            if if exact { largest == wanted } else { largest >= wanted } {
                let record = first_record(&view, wanted, first)
                    .map_err(|reason| Error::damaged(file.path(), position, header.base_offset, reason))?;
                found = (exact || record.is_some()).then_some(record);
                walker.check_place(&Found { position, header: *header }, expected)?;
            }
            expected = header.next_offset();
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match end.stop {
            _ if planted(Bug::TimeEndsAtDamage) => Ok(found),
            Stop::Broken(reason) if found.is_none() => {
                Err(Error::damaged(file.path(), end.position, end.next_offset, reason))
            }
            Stop::Zeroes if found.is_none() => {
                Err(Error::damaged(file.path(), end.position, end.next_offset, "zeroes"))
            }
            _ => Ok(found),
        }
    }
}

fn first_record(view: &BatchView<'_>, wanted: i64, log_start: i64) -> std::result::Result<Option<(i64, i64)>, String> {
    let records = view.decode(DECODE_LIMIT_BYTES).map_err(|e| e.to_string())?;
    for record in records.records() {
        let record = record.map_err(|e| e.to_string())?;
        if record.timestamp >= wanted && record.offset >= log_start {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}

//! The files of a segment and the snapshots, as they are found: absent, usable, or put aside.

use std::path::Path;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{Device, DeviceFile, OpenMode};
use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::snapshot::{HEADER_BYTES, PEEK_BYTES, SealedSegment, SnapshotFile, peek_log_end_offset};
use oncelog_formats::txn_index::{self, AbortedTxn};
use oncelog_snapshot::ProducerTable;
use oncelog_snapshot::codec::{self, Loaded};

use super::kept::{MEMORY_FILE, table_below};
use super::{Opened, Recovery};
use crate::error::Result;
use crate::index::SegmentIndex;
use crate::log::describe::SNAPSHOT_LIMIT_BYTES;

/// Of a snapshot whose part of ours does not count.
pub(super) const OTHER_PART: &str = "what stands behind Kafka's entries is damaged or of another version";

impl Recovery<'_> {
    pub(super) fn open_segments(&mut self) -> Result<Vec<Opened>> {
        let bases = self.layout.bases.clone();
        let mut opened = Vec::with_capacity(bases.len());
        if !self.clean {
            // A dead process may have left names that are not on disk yet either.
            self.device.sync_directory(self.dir)?;
        }
        for (i, &base) in bases.iter().enumerate() {
            let file = self.device.open(&self.path(base, Kind::Log), OpenMode::Write)?;
            let next_base = bases.get(i + 1).copied();
            let is_promised = next_base.is_some_and(|next| next <= self.bounds.promised);
            if !self.clean && !is_promised && !planted(Bug::RecoverySyncSkipped) {
                // What a dead process wrote may not be on disk yet; it must be before anything follows from it. What
                // the checkpoint file promises is there already, and there may be thousands of such segments.
                file.sync()?;
            }
            let length = file.length()?;
            let (index, index_end) = self.load_index(base, length, &*file)?;
            let aborted = self.load_aborted(base, next_base)?;
            let modified_ms = self.layout.modified_ms.get(&base).copied().unwrap_or(i64::MAX);
            opened.push(Opened { base, next_base, file, length, index, index_end, aborted, modified_ms });
        }
        Ok(opened)
    }

    /// The index as stored, if its last entry points where it says.
    fn load_index(
        &mut self,
        base: i64,
        length: u64,
        file: &dyn DeviceFile,
    ) -> Result<(Option<SegmentIndex>, Option<i64>)> {
        let limit = length.max(64 << 20);
        let offsets = self.device.read_small(&self.path(base, Kind::OffsetIndex), limit)?;
        let times = self.device.read_small(&self.path(base, Kind::TimeIndex), limit)?;
        let (Some(offsets), Some(times)) = (offsets, times) else { return Ok((None, None)) };
        let (index, findings) = SegmentIndex::from_bytes(base, self.config, &offsets, &times);
        let mut walker = crate::segment::walk::Walker::new(file, base, length);
        let mut sound = |entry: &oncelog_formats::offset_index::OffsetEntry| {
            walker.batch_of(*entry).is_ok_and(|found| found.is_some())
        };
        let entries = index.offset_entries();
        let first_sound = entries.first().is_none_or(&mut sound);
        let ordered = findings
            .iter()
            .all(|f| f.partial_bytes == 0 && f.first_not_increasing.is_none() && f.first_out_of_range.is_none());
        let index_end = entries.last().map(|e| e.offset).filter(|_| first_sound && ordered);
        let mut usable = first_sound && findings.iter().all(|f| f.is_clean()) && entries.last().is_none_or(&mut sound);
        if let Some(largest) = index.largest().filter(|_| usable) {
            // Who looks for a time passes whole segments by this one alone.
            let found = walker.locate(index.lookup_offset(largest.offset), largest.offset).unwrap_or_default();
            usable = found.is_some_and(|found| found.header.max_timestamp == largest.timestamp);
        }
        if !usable {
            self.report.repaired.push(format!("index of segment {base} is not what the log says: rebuilt"));
        }
        Ok((usable.then_some(index), index_end))
    }

    fn load_aborted(&mut self, base: i64, next_base: Option<i64>) -> Result<Option<Vec<AbortedTxn>>> {
        let path = self.path(base, Kind::TxnIndex);
        let Some(bytes) = self.device.read_small(&path, 1 << 30)? else { return Ok(None) };
        let in_segment =
            |txn: &AbortedTxn| txn.last_offset >= base && next_base.is_none_or(|next| txn.last_offset < next);
        match txn_index::decode_all(&bytes) {
            Ok((entries, findings)) if findings.is_clean() && entries.iter().all(in_segment) => Ok(Some(entries)),
            _ => {
                self.report.repaired.push(format!("{}: unreadable, rebuilt", path.display()));
                Ok(None)
            }
        }
    }

    /// The newest readable snapshot above `floor` and not above `limit`.
    pub(super) fn newest_snapshot(&mut self, floor: i64, limit: i64) -> Result<Option<(i64, Loaded)>> {
        self.newest_that(floor, limit, |_| true)
    }

    fn newest_that(
        &mut self,
        floor: i64,
        limit: i64,
        is_wanted: impl Fn(&Loaded) -> bool,
    ) -> Result<Option<(i64, Loaded)>> {
        let candidates = self.layout.snapshots.clone().into_iter().rev().filter(|o| *o > floor && *o <= limit);
        for offset in candidates {
            if let Some(loaded) = self.load_snapshot(offset)?.filter(&is_wanted) {
                return Ok(Some((offset, loaded)));
            }
        }
        Ok(None)
    }

    /// The newest table that any `.snapshot` not above `limit` holds, unless the view begins with that very file.
    pub(super) fn newest_memory(&mut self, limit: i64) -> Result<Option<(i64, ProducerTable)>> {
        let newest = self.layout.snapshots.iter().copied().rfind(|o| *o <= limit);
        if newest == self.report.snapshot_offset {
            return Ok(None);
        }
        let found = self.newest_snapshot(self.report.snapshot_offset.unwrap_or(i64::MIN), limit)?;
        Ok(found.map(|(offset, loaded)| (offset, loaded.table)))
    }

    /// The newest whole table of a file not above `offset`: a truncation may come back to there. Where there is none,
    /// what the file of ours says of the log below `limit`.
    pub(super) fn memory_below(&mut self, offset: i64, limit: i64) -> Result<Option<(i64, ProducerTable)>> {
        let own = self.load_memory(limit)?;
        let floor = own.as_ref().map(|(own, _)| *own).filter(|own| *own <= offset).unwrap_or(i64::MIN);
        let found = self.newest_that(floor, offset, Loaded::is_whole)?;
        Ok(found.map(|(offset, loaded)| (offset, loaded.table)).or(own))
    }

    /// Of producers whose records a crash has taken since, what is still there.
    fn load_memory(&mut self, limit: i64) -> Result<Option<(i64, ProducerTable)>> {
        let path = self.dir.join(MEMORY_FILE);
        let Some(bytes) = self.device.read_small(&path, SNAPSHOT_LIMIT_BYTES)? else { return Ok(None) };
        let reason = match codec::decode(&bytes) {
            Ok(Loaded { table, meta: Some(meta), .. }) => {
                let offset = meta.log_end_offset;
                self.memory_offset = Some(offset);
                let table = if offset <= limit { table } else { table_below(&table, limit) };
                return Ok(Some((offset.min(limit), table)));
            }
            // A snapshot that Kafka wrote: it says nothing of what its load forgets.
            Ok(loaded) if loaded.is_whole() => return Ok(None),
            Ok(_) => OTHER_PART.to_owned(),
            Err(reason) => reason.to_string(),
        };
        self.put_aside(MEMORY_FILE, &reason)?;
        Ok(None)
    }

    pub(super) fn load_snapshot(&mut self, offset: i64) -> Result<Option<Loaded>> {
        let name = segment_file_name(offset, Kind::Snapshot);
        let bytes = self.device.read_small(&self.dir.join(&name), SNAPSHOT_LIMIT_BYTES)?.unwrap_or_default();
        match codec::decode(&bytes) {
            Ok(loaded) => Ok(Some(loaded)),
            Err(reason) => {
                self.layout.snapshots.retain(|o| *o != offset);
                self.put_aside(&name, &reason.to_string())?;
                Ok(None)
            }
        }
    }

    /// An unreadable file is kept under another name, reported, and counts no more.
    fn put_aside(&mut self, name: &str, reason: &str) -> Result<()> {
        let path = self.dir.join(name);
        self.device.rename(&path, &self.dir.join(format!("{name}.unreadable-oncelog")))?;
        self.report.repaired.push(format!("{}: {reason}; kept aside, an older one is used", path.display()));
        Ok(())
    }

    /// What the snapshot at a roll remembers of the segment that it closed.
    pub(super) fn sealed_before(&self, base: i64) -> Result<Option<SealedSegment>> {
        let path = self.path(base, Kind::Snapshot);
        let Some(bytes) = self.device.read_small(&path, SNAPSHOT_LIMIT_BYTES)? else { return Ok(None) };
        Ok(codec::decode(&bytes).ok().and_then(|l| l.meta).and_then(|m| m.sealed))
    }

    pub fn forget_segment(&mut self, base: i64, reason: &str) -> Result<()> {
        self.report.repaired.push(format!("segment {base} {reason}: set aside as .deleted"));
        for kind in Kind::ALL {
            let from = self.path(base, kind);
            if self.device.length(&from)?.is_some() {
                let to = self.dir.join(format!("{}.deleted", segment_file_name(base, kind)));
                self.device.rename(&from, &to)?;
            }
        }
        self.layout.snapshots.retain(|o| *o != base);
        Ok(())
    }
}

/// The offset that our file of producers speaks of, told from a few of its bytes: it may be long. `None` without a
/// file; of one that does not begin as it should, the largest there is.
pub(super) fn memory_offset(device: &dyn Device, path: &Path) -> Result<Option<i64>> {
    if device.length(path)?.is_none() {
        return Ok(None);
    }
    let file = device.open(path, OpenMode::Read)?;
    let mut head = [0; HEADER_BYTES];
    let mut found = None;
    if file.read(0, &mut head)? == head.len()
        && let Some(position) = SnapshotFile::extension_position(&head)
    {
        let mut bytes = [0; PEEK_BYTES];
        let got = file.read(position, &mut bytes)?;
        found = peek_log_end_offset(&bytes[..got]);
    }
    Ok(found.or(Some(i64::MAX)))
}

/// Largest timestamp of the first batch in the file.
pub(super) fn first_timestamp(file: &dyn DeviceFile, base: i64, length: u64) -> Option<i64> {
    let mut walker = crate::segment::walk::Walker::new(file, base, length);
    walker.header(0).ok().flatten().map(|found| found.header.max_timestamp)
}

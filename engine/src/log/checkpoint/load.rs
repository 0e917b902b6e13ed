//! Where an opening may begin: the newest chain of checkpoints that is whole and that the log bears out.
//!
//! Another program may have cut the log and written other records since. So a checkpoint counts only if the batch that
//! it ends with stands where it says, with the same CRC and the same last offset: then everything before it is the same
//! too.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use oncelog_device::{Device, DeviceFile, OpenMode};
use oncelog_formats::log_checkpoint::{HEADER_BYTES, LogCheckpoint, PageRef, file_name, parse_file_name};
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_snapshot::ProducerTable;

use super::pages::PageFile;
use super::write::Chain;
use crate::config::Config;
use crate::error::Result;
use crate::index::SegmentIndex;
use crate::log::recover::Recovery;
use crate::segment::walk::Walker;

/// A checkpoint that an opening begins with.
pub(in crate::log) struct Beginning {
    pub head: LogCheckpoint,
    pub index: SegmentIndex,
    pub aborted: Vec<AbortedTxn>,
    pub table: ProducerTable,
    pub pages: Arc<PageFile>,
    pub chain: Chain,
}

/// What became of looking at a file.
enum Looked<T> {
    Fine(T),
    /// Whole, but not of this log as it is now.
    Stale,
    Unreadable(i64, String),
}

impl Recovery<'_> {
    /// The newest usable checkpoint; files that are of no use are removed, unreadable ones kept aside. `segments`: file
    /// and length by base offset.
    pub(in crate::log) fn load_checkpoint(
        &mut self,
        segments: &BTreeMap<i64, (Arc<dyn DeviceFile>, u64)>,
    ) -> Result<Option<Beginning>> {
        let found = offsets_on_disk(self.device, self.dir)?;
        for &newest in found.iter().rev() {
            match self.look(newest, segments)? {
                Looked::Fine(beginning) => {
                    remove(self.device, self.dir, found, &beginning.chain.offsets)?;
                    return Ok(Some(beginning));
                }
                Looked::Stale => {}
                Looked::Unreadable(offset, reason) => self.set_checkpoint_aside(offset, &reason)?,
            }
        }
        remove(self.device, self.dir, found, &[])?;
        Ok(None)
    }

    pub(in crate::log) fn set_checkpoint_aside(&mut self, offset: i64, reason: &str) -> Result<()> {
        let path = self.dir.join(file_name(offset));
        self.device.rename(&path, &self.dir.join(format!("{}.unreadable-oncelog", file_name(offset))))?;
        self.device.sync_directory(self.dir)?;
        self.report.repaired.push(format!("{}: {reason}; kept aside, an older one is used", path.display()));
        Ok(())
    }

    fn look(&self, newest: i64, segments: &BTreeMap<i64, (Arc<dyn DeviceFile>, u64)>) -> Result<Looked<Beginning>> {
        let mut heads: Vec<LogCheckpoint> = Vec::new();
        let mut chain = Chain::default();
        let mut next = Some(newest);
        while let Some(offset) = next {
            let (head, bytes) = match self.read_head(offset)? {
                Looked::Fine(found) => found,
                Looked::Stale => return Ok(Looked::Stale),
                Looked::Unreadable(offset, reason) => return Ok(Looked::Unreadable(offset, reason)),
            };
            next = head.parent.filter(|parent| *parent < offset);
            (chain.first_bytes, chain.later_bytes) = (bytes, chain.later_bytes + chain.first_bytes);
            chain.offsets.insert(0, offset);
            heads.push(head);
        }
        let Some(oldest) = heads.last().filter(|oldest| oldest.parent.is_none()) else { return Ok(Looked::Stale) };
        let head = &heads[0];
        let borne_out = match segments.get(&head.segment.base_offset) {
            Some((file, length)) => bears_out(&**file, *length, head)?,
            None => false,
        };
        if !borne_out || head.log_end_offset > self.bounds.limit {
            return Ok(Looked::Stale);
        }
        let mut changes = Vec::new();
        for (head, offset) in heads.iter().zip(chain.offsets.iter().rev()).filter(|(head, _)| head.parent.is_some()) {
            let mut all = Vec::new();
            let take = |_, blocks| {
                all.extend(blocks);
                ControlFlow::Continue(())
            };
            match self.page_file(*offset, head)?.read_from(0, take) {
                Ok(()) => changes.insert(0, all),
                Err(error) if error.is_corruption() => return Ok(Looked::Unreadable(*offset, error.to_string())),
                Err(error) => return Err(error),
            }
        }
        let pages = Arc::new(self.page_file(chain.offsets[0], oldest)?);
        let count = usize::try_from(head.producer_count).unwrap_or(usize::MAX);
        let table = ProducerTable::restore(count, head.digest, pages.first_hashes(), changes);
        let Some((index, aborted)) = segment_lists(&heads, self.config) else {
            return Ok(Looked::Unreadable(newest, "its lists do not follow on".into()));
        };
        chain.base_offset = head.segment.base_offset;
        chain.size_bytes = head.segment.size_bytes;
        chain.offset_entries = index.offset_entries().len();
        chain.time_entries = index.time_entries().len();
        chain.aborted = aborted.len();
        Ok(Looked::Fine(Beginning { head: head.clone(), index, aborted, table, pages, chain }))
    }

    pub(in crate::log) fn forget_checkpoints(&self) -> Result<()> {
        remove_all_but(self.device, self.dir, &[])
    }

    fn page_file(&self, offset: i64, head: &LogCheckpoint) -> Result<PageFile> {
        PageFile::open(self.device, &self.dir.join(file_name(offset)), offset, head.pages.clone())
    }

    fn read_head(&self, offset: i64) -> Result<Looked<(LogCheckpoint, u64)>> {
        let path = self.dir.join(file_name(offset));
        let Some(length) = self.device.length(&path)? else { return Ok(Looked::Stale) };
        let file = self.device.open(&path, OpenMode::Read)?;
        let mut bytes = vec![0; HEADER_BYTES.min(length as usize)];
        let got = file.read(0, &mut bytes)?;
        bytes.truncate(got);
        match LogCheckpoint::head_bytes(&bytes) {
            Ok(need) => bytes.resize(need.min(length) as usize, 0),
            Err(reason) => return Ok(Looked::Unreadable(offset, reason.to_string())),
        }
        let got = file.read(0, &mut bytes)?;
        bytes.truncate(got);
        match LogCheckpoint::decode(&bytes) {
            Ok(head) if !pages_lie_within(&head, length) => {
                Ok(Looked::Unreadable(offset, "a page lies behind its end".into()))
            }
            Ok(head) if head.log_end_offset == offset => Ok(Looked::Fine((head, length))),
            Ok(_) => Ok(Looked::Unreadable(offset, "the name of another".into())),
            Err(reason) => Ok(Looked::Unreadable(offset, reason.to_string())),
        }
    }
}

/// Whether the file can hold its pages, in their order: nothing is read or made room for that is not there.
fn pages_lie_within(head: &LogCheckpoint, length: u64) -> bool {
    let ends = |page: &PageRef| page.position.checked_add(page.length.into()).is_some_and(|end| end <= length);
    head.pages.iter().all(ends) && head.pages.is_sorted_by_key(|page| page.position)
}

/// Whether the segment still holds the batch that the checkpoint ends with.
fn bears_out(file: &dyn DeviceFile, length: u64, head: &LogCheckpoint) -> Result<bool> {
    let segment = &head.segment;
    let Some((position, crc)) = segment.last_batch else { return Ok(segment.size_bytes == 0) };
    if length < segment.size_bytes {
        return Ok(false);
    }
    let found = match Walker::new(file, segment.base_offset, length).header(position) {
        Ok(found) => found,
        Err(error) if error.is_corruption() => None,
        Err(error) => return Err(error),
    };
    Ok(found.is_some_and(|found| {
        found.header.crc == crc
            && found.header.next_offset() == head.log_end_offset
            && position + found.header.size_bytes() as u64 == segment.size_bytes
    }))
}

/// Index and aborted transactions of the segment of the newest head (`heads` begins with it), put together from all of
/// them. `None` if one begins where the one before it does not end.
fn segment_lists(heads: &[LogCheckpoint], config: &Config) -> Option<(SegmentIndex, Vec<AbortedTxn>)> {
    let newest = &heads[0];
    let (mut offsets, mut times, mut aborted) = (Vec::new(), Vec::new(), Vec::new());
    for head in heads.iter().rev().filter(|head| head.segment.base_offset == newest.segment.base_offset) {
        let before = &head.segment;
        let follows = before.offset_entries_before as usize == offsets.len()
            && before.time_entries_before as usize == times.len()
            && before.aborted_before as usize == aborted.len();
        if !follows {
            return None;
        }
        offsets.extend_from_slice(&head.offset_entries);
        times.extend_from_slice(&head.time_entries);
        aborted.extend_from_slice(&head.aborted);
    }
    let point = &newest.segment;
    let index =
        SegmentIndex::resume(point.base_offset, config, &offsets, &times, point.largest, point.bytes_since_entry)?;
    Some((index, aborted))
}

fn offsets_on_disk(device: &dyn Device, dir: &Path) -> Result<Vec<i64>> {
    let names = device.list(dir)?;
    let mut offsets: Vec<i64> = names.iter().filter_map(|entry| parse_file_name(&entry.name)).collect();
    offsets.sort_unstable();
    Ok(offsets)
}

/// Removes the checkpoints that do not belong to `chain`, for good when this returns.
pub(super) fn remove_all_but(device: &dyn Device, dir: &Path, chain: &[i64]) -> Result<()> {
    remove(device, dir, offsets_on_disk(device, dir)?, chain)
}

/// The same of those that are there.
fn remove(device: &dyn Device, dir: &Path, found: Vec<i64>, chain: &[i64]) -> Result<()> {
    let mut removed = false;
    for offset in found.into_iter().filter(|offset| !chain.contains(offset)) {
        removed |= device.remove(&dir.join(file_name(offset)))?;
    }
    if removed {
        device.sync_directory(dir)?;
    }
    Ok(())
}

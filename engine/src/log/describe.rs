//! Everything about a log but its records, for `dump`, `state` and tests.

use oncelog_formats::file_name::{Kind, Suffix, parse_file_name};
use oncelog_formats::snapshot::SnapshotFile;

use super::Shared;
use super::types::{LogState, SegmentState, SnapshotState};
use crate::error::Result;

/// The largest snapshot that is read: some 20 million producers.
pub(crate) const SNAPSHOT_LIMIT_BYTES: u64 = 4 << 30;

impl Shared {
    pub(crate) fn describe(&self) -> Result<LogState> {
        let snapshots = self.snapshots_on_disk()?;
        let state = self.state_with_all()?;
        Ok(LogState {
            clean: self.report.clean,
            log_start_offset: state.log_start,
            log_end_offset: state.log_end(),
            recovery_point: state.progress.durable_offset,
            high_watermark: state.high_watermark,
            last_stable_offset: state.last_stable(),
            first_unstable_offset: state.first_unstable,
            segments: state
                .segments
                .values()
                .map(|segment| SegmentState {
                    base_offset: segment.base_offset,
                    size_bytes: segment.size,
                    next_offset: segment.next_offset,
                    max_timestamp: segment.index.largest_timestamp(),
                    offset_index: segment.index.offset_entries().to_vec(),
                    time_index: segment.index.time_entries().to_vec(),
                    txn_index: state.aborted_in_segment(segment.base_offset).to_vec(),
                })
                .collect(),
            leader_epochs: state.epochs.entries().to_vec(),
            snapshots,
            producers: state.producers.iter().collect(),
            open_transactions: state.txns.ongoing().collect(),
            digest: state.producers.digest(),
        })
    }

    fn snapshots_on_disk(&self) -> Result<Vec<SnapshotState>> {
        let mut found = Vec::new();
        for entry in self.device.list(&self.dir)? {
            let Some(name) = parse_file_name(&entry.name) else { continue };
            if name.kind != Kind::Snapshot || name.suffix != Suffix::None {
                continue;
            }
            let bytes = self.device.read_small(&self.dir.join(&entry.name), SNAPSHOT_LIMIT_BYTES)?.unwrap_or_default();
            let entries = SnapshotFile::decode(&bytes).map(|file| file.entries).map_err(|e| e.to_string());
            found.push(SnapshotState { offset: name.base_offset, entries });
        }
        Ok(found)
    }
}

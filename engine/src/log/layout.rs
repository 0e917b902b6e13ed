//! Which files of a directory belong to the log, and Kafka's rules for those that a crash left half renamed.

use std::collections::BTreeMap;
use std::path::Path;

use oncelog_device::Device;
use oncelog_formats::file_name::{FileName, Kind, Suffix, parse_file_name, segment_file_name};

use super::spill::SPILL_FILE;
use crate::error::Result;

/// A log directory after it was tidied.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// Base offsets of the `.log` files, ascending.
    pub bases: Vec<i64>,
    /// Offsets of the `.snapshot` files, ascending.
    pub snapshots: Vec<i64>,
    /// When the `.log` files were last written, by base offset.
    pub modified_ms: BTreeMap<i64, i64>,
    /// Base offsets of index files without a `.log`: a segment once stood there.
    pub orphans: Vec<i64>,
}

/// Finishes or undoes what was under way, removes what belongs to nothing, and says what is left.
pub(super) fn tidy(device: &dyn Device, dir: &Path) -> Result<Layout> {
    let (mut files, mut modified_ms) = (Vec::new(), BTreeMap::new());
    for entry in device.list(dir)?.into_iter().filter(|e| !e.is_directory) {
        match parse_file_name(&entry.name) {
            Some(name) if name.suffix == Suffix::Deleted => drop(device.remove(&dir.join(&entry.name))?),
            Some(name) => {
                // Of a segment and what is to replace it, the latter comes later.
                if name.kind == Kind::Log {
                    modified_ms.insert(name.base_offset, entry.modified_ms);
                }
                files.push((name, entry.name));
            }
            None if is_leftover(&entry.name) => drop(device.remove(&dir.join(&entry.name))?),
            None => {}
        }
    }
    let files = finish_swaps(device, dir, files)?;
    let of_kind = |kind: Kind| files.iter().filter(move |n| n.kind == kind).map(|n| n.base_offset).collect::<Vec<_>>();
    let (bases, snapshots) = (of_kind(Kind::Log), of_kind(Kind::Snapshot));
    let mut layout = Layout { bases, snapshots, modified_ms, orphans: Vec::new() };
    layout.bases.sort_unstable();
    layout.snapshots.sort_unstable();
    for name in files.iter().filter(|n| !matches!(n.kind, Kind::Log | Kind::Snapshot)) {
        if layout.bases.binary_search(&name.base_offset).is_err() {
            layout.orphans.push(name.base_offset);
            device.remove(&dir.join(segment_file_name(name.base_offset, name.kind)))?;
        }
    }
    Ok(layout)
}

/// Offsets of the `.snapshot` files, in any order.
pub(super) fn snapshot_offsets(device: &dyn Device, dir: &Path) -> Result<Vec<i64>> {
    let names = device.list(dir)?;
    let parsed = names.iter().filter_map(|entry| parse_file_name(&entry.name));
    Ok(parsed.filter(|n| n.kind == Kind::Snapshot && n.suffix == Suffix::None).map(|n| n.base_offset).collect())
}

fn is_leftover(name: &str) -> bool {
    (name.starts_with("spare-") && name.ends_with(".oncelog")) || name.ends_with(".tmp") || name == SPILL_FILE
}

/// Compaction writes `.cleaned`, renames to `.swap` from the highest offset down, then to the final name: see
/// `kafka/storage.md` 1.12 for what each state after a crash means.
fn finish_swaps(device: &dyn Device, dir: &Path, files: Vec<(FileName, String)>) -> Result<Vec<FileName>> {
    let lowest_cleaned = files.iter().filter(|(n, _)| n.suffix == Suffix::Cleaned).map(|(n, _)| n.base_offset).min();
    let (mut swaps, mut plain) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let incomplete = name.suffix == Suffix::Swap && lowest_cleaned.is_some_and(|lowest| name.base_offset >= lowest);
        if name.suffix == Suffix::Cleaned || incomplete {
            device.remove(&dir.join(&text))?;
        } else if name.suffix == Suffix::Swap {
            swaps.push((name, text));
        } else {
            plain.push(name);
        }
    }
    if swaps.is_empty() {
        return Ok(plain);
    }
    let replaced = replaced_range(device, dir, &swaps)?;
    let mut kept = Vec::new();
    for name in plain {
        if replaced.contains(&name.base_offset) && name.kind != Kind::Snapshot {
            device.remove(&dir.join(segment_file_name(name.base_offset, name.kind)))?;
        } else {
            kept.push(name);
        }
    }
    for (name, text) in swaps {
        device.rename(&dir.join(text), &dir.join(segment_file_name(name.base_offset, name.kind)))?;
        kept.push(FileName { suffix: Suffix::None, ..name });
    }
    device.sync_directory(dir)?;
    Ok(kept)
}

/// Offsets that the complete output of a compaction stands for.
fn replaced_range(device: &dyn Device, dir: &Path, swaps: &[(FileName, String)]) -> Result<std::ops::Range<i64>> {
    let (mut lowest, mut highest) = (i64::MAX, i64::MIN);
    for (name, text) in swaps.iter().filter(|(n, _)| n.kind == Kind::Log) {
        let file = device.open(&dir.join(text), oncelog_device::OpenMode::Read)?;
        let end = crate::segment::scan::scan(&*file, 0, file.length()?, name.base_offset, |_, _| {
            Ok(std::ops::ControlFlow::Continue(()))
        })?;
        (lowest, highest) = (lowest.min(name.base_offset), highest.max(end.next_offset));
    }
    Ok(lowest..highest)
}

//! What this machine allows and what it costs, for `oncelog doctor`.

use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, DeviceFile, DeviceKind, OpenMode, Result, Sync};
use crate::host_file::{HostFile, Remarks, direct_alignment};
use crate::uring::{self, RingFeatures};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// The machine, and each directory asked about.
#[derive(Clone, Debug)]
pub struct MachineReport {
    /// The kernel's release, empty if it does not say.
    pub kernel: String,
    /// What the ring can do, or in one line why there is none.
    pub ring: std::result::Result<RingFeatures, String>,
    /// Locked memory allowed (`RLIMIT_MEMLOCK`), bytes; `None` is unlimited.
    pub memlock_bytes: Option<u64>,
    /// The device that [`DeviceKind::Auto`] takes here.
    pub auto: DeviceKind,
    /// Why that one.
    pub auto_reason: String,
    /// One for each directory asked about, in that order.
    pub directories: Vec<DirectoryReport>,
}

/// What one directory's file system allows and costs.
#[derive(Clone, Debug)]
pub struct DirectoryReport {
    /// As asked.
    pub path: PathBuf,
    /// Name of the file system's type, or its magic number in hexadecimal.
    pub file_system: String,
    /// `STATX_DIOALIGN`: alignment in memory and in the file, bytes; zeroes where direct I/O is not supported, `None`
    /// where the kernel or the file system does not say.
    pub direct_alignment: Option<(u32, u32)>,
    /// Whether segments are written past the page cache, or why not.
    pub direct: std::result::Result<(), String>,
    /// Whether the device zeroes prepared space by itself (`FALLOC_FL_WRITE_ZEROES`), or why zeroes are written.
    pub device_zeroes: std::result::Result<(), String>,
    /// What one durable write of 4 KiB costs, each way.
    pub sync_costs: Vec<SyncCost>,
    /// What could not be found out, if anything.
    pub problem: Option<String>,
}

/// The cost of one way to write durably.
#[derive(Clone, Debug)]
pub struct SyncCost {
    /// `pwritev2-dsync`, `pwrite-fdatasync` or `ring-dsync`.
    pub way: &'static str,
    /// Median of the samples, microseconds; or why it could not be measured.
    pub median_us: std::result::Result<f64, String>,
}

impl MachineReport {
    /// Looks at the machine and at each directory. Writes `samples` blocks in each of three ways into a temporary file
    /// there, which is gone afterwards.
    pub fn inspect(directories: &[PathBuf], samples: usize) -> Self {
        let ring = uring::probe().map_err(|why| why.to_string());
        let (auto, auto_reason) = match &ring {
            Ok(_) => {
                (DeviceKind::Uring, "io_uring works; what it cannot do better runs on the calling thread".to_owned())
            }
            Err(why) => (DeviceKind::Blocking, format!("no io_uring: {why}")),
        };
        Self {
            kernel: kernel_release(),
            ring,
            memlock_bytes: getrlimit(Resource::Memlock).current,
            auto,
            auto_reason,
            directories: directories.iter().map(|path| inspect_directory(path, samples)).collect(),
        }
    }
}

fn kernel_release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

fn inspect_directory(path: &Path, samples: usize) -> DirectoryReport {
    let mut report = DirectoryReport {
        path: path.to_path_buf(),
        file_system: "unknown".to_owned(),
        direct_alignment: None,
        direct: Err("not tried".to_owned()),
        device_zeroes: Err("not tried".to_owned()),
        sync_costs: Vec::new(),
        problem: None,
    };
    match rustix::fs::statfs(path) {
        Ok(stat) => report.file_system = file_system_name(stat.f_type),
        Err(errno) => report.problem = Some(format!("statfs: {errno}")),
    }
    if let Err(error) = try_files(path, samples, &mut report) {
        report.problem = Some(error.to_string());
    }
    report
}

fn try_files(directory: &Path, samples: usize, report: &mut DirectoryReport) -> Result<()> {
    let scratch = Scratch(directory.join(format!(".oncelog-probe-{}", std::process::id())));
    let remarks = Arc::new(Remarks::default());
    let file = HostFile::open(&scratch.0, OpenMode::Create, &remarks)?;
    let buffer = AlignedBuffer::new(BLOCK_BYTES);
    file.prepare(0, SCRATCH_BLOCKS * BLOCK_BYTES as u64)?;
    // Once before asking: a file system may accept O_DIRECT at open and refuse the write.
    DeviceFile::write(&file, 0, &buffer, BLOCK_BYTES, Sync::Data)?;
    report.direct = match file.direct() {
        Some(_) => Ok(()),
        None => Err(remarks.text().trim_start_matches("; ").to_owned()),
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let asked = rustix::fs::open(&scratch.0, flags, Mode::empty());
    report.direct_alignment = asked.ok().and_then(|descriptor| direct_alignment(&descriptor));
    report.device_zeroes = file.zero_by_device(0, BLOCK_BYTES as u64).map_err(|errno| errno.to_string());
    let block = buffer.as_slice();
    let mut cost = |way, write: &mut dyn FnMut(u64) -> std::result::Result<(), String>| {
        let median_us = median_us(samples, write);
        report.sync_costs.push(SyncCost { way, median_us });
    };
    cost("pwritev2-dsync", &mut |at| file.write_bytes(at, block, Sync::Data).map_err(|error| error.to_string()));
    cost("pwrite-fdatasync", &mut |at| {
        let written = file.write_bytes(at, block, Sync::None);
        written.and_then(|()| file.sync("sync")).map_err(|error| error.to_string())
    });
    match uring::OneRing::open() {
        Ok(mut ring) => cost("ring-dsync", &mut |at| ring.write_dsync(&file, at, block)),
        Err(why) => cost("ring-dsync", &mut |_| Err(why.to_string())),
    }
    Ok(())
}

/// Blocks of the scratch file, written round and round.
const SCRATCH_BLOCKS: u64 = 64;

fn median_us(
    samples: usize,
    write: &mut dyn FnMut(u64) -> std::result::Result<(), String>,
) -> std::result::Result<f64, String> {
    let mut took = Vec::with_capacity(samples);
    for sample in 0..samples.max(1) as u64 {
        let started = Instant::now();
        write(sample % SCRATCH_BLOCKS * BLOCK_BYTES as u64)?;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    Ok(took[took.len() / 2].as_secs_f64() * 1e6)
}

fn file_system_name(magic: i64) -> String {
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlayfs",
        0x2fc1_2fc1 => "zfs",
        0xf2f5_2010 => "f2fs",
        0x6969 => "nfs",
        0x6573_5546 => "fuse",
        0x0102_1997 => "9p",
        _ => return format!("{magic:#x}"),
    };
    name.to_owned()
}

/// Removed when dropped, whatever happened.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_measured_and_left_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        let report = MachineReport::inspect(&[directory.path().to_path_buf()], 3);
        let found = &report.directories[0];
        assert_eq!(found.problem, None);
        assert_eq!(found.sync_costs.len(), 3);
        assert!(found.sync_costs[..2].iter().all(|cost| cost.median_us.as_ref().is_ok_and(|&us| us > 0.0)));
        assert_eq!(found.sync_costs[2].median_us.is_ok(), report.ring.is_ok() && found.direct.is_ok());
        assert_eq!(std::fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_missing_directory_is_a_problem_not_a_panic() {
        let report = MachineReport::inspect(&[PathBuf::from("/nonexistent/oncelog")], 1);
        assert!(report.directories[0].problem.is_some());
        assert!(report.directories[0].sync_costs.is_empty());
    }
}

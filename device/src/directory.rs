//! Names: what stands in a directory, and the locks that keep others out of it.

use crate::device::{DeviceLock, DirectoryEntry, Result};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::record_lock;
use crate::removal;
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::{DirEntry, Metadata};
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// A killed process's ring may hold its files, and with them the lock, for a moment.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Sorted by name. A name that is not UTF-8 is shown with replacement characters; none of ours is.
pub(crate) fn list(directory: &Path) -> Result<Vec<DirectoryEntry>> {
    let failed = |source| DeviceError::io("list", directory, source);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        entries.extend(describe(&entry.map_err(failed)?).map_err(failed)?);
    }
    entries.sort_by(|one: &DirectoryEntry, other| one.name.cmp(&other.name));
    Ok(entries)
}

/// `None` for a name that vanished since it was read.
fn describe(entry: &DirEntry) -> io::Result<Option<DirectoryEntry>> {
    let metadata = match std::fs::metadata(entry.path()) {
        Err(error) if error.kind() == ErrorKind::NotFound => entry.metadata(),
        other => other,
    };
    match metadata {
        Ok(metadata) => Ok(Some(DirectoryEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            length_bytes: if metadata.is_dir() { 0 } else { metadata.len() },
            is_directory: metadata.is_dir(),
            modified_ms: modified_ms(&metadata),
        })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn modified_ms(metadata: &Metadata) -> i64 {
    let since_epoch = metadata.modified().ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
    since_epoch.and_then(|since| i64::try_from(since.as_millis()).ok()).unwrap_or(0)
}

pub(crate) fn length(path: &Path) -> Result<Option<u64>> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
        Ok(_) => Err(DeviceError::new(DeviceErrorKind::IsADirectory, "length", path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DeviceError::io("length", path, error)),
    }
}

pub(crate) fn create_directory(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).map_err(|source| DeviceError::io("create_directory", directory, source))
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to)
        .map_err(|source| DeviceError::io("rename", from, source).with_detail(format!("to {}", to.display())))
}

pub(crate) fn remove(path: &Path) -> Result<bool> {
    found("remove", path, removal::remove(path, || sync_directory(of(path))))
}

/// The directory that the entry of `path` is in.
pub(crate) fn of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn remove_directory(path: &Path) -> Result<bool> {
    found("remove_directory", path, std::fs::remove_dir_all(path))
}

fn found(op: &'static str, path: &Path, removed: io::Result<()>) -> Result<bool> {
    match removed {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DeviceError::io(op, path, error)),
    }
}

pub(crate) fn sync_directory(directory: &Path) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    retry_on_intr(|| rustix::fs::open(directory, flags, Mode::empty()))
        .and_then(|descriptor| retry_on_intr(|| rustix::fs::fsync(&descriptor)))
        .map_err(|errno| DeviceError::io("sync_directory", directory, errno))
}

/// Kafka's own lock on Kafka's own file, so that a broker and an engine keep each other out too.
pub(crate) fn lock(path: &Path) -> Result<DeviceLock> {
    let failed = |errno| DeviceError::io("lock", path, errno);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let descriptor = retry_on_intr(|| rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))).map_err(failed)?;
    let started = Instant::now();
    loop {
        match retry_on_intr(|| record_lock::try_exclusive(&descriptor)) {
            Ok(()) => return Ok(DeviceLock::new(descriptor)),
            Err(Errno::AGAIN | Errno::ACCESS) if started.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(Errno::AGAIN | Errno::ACCESS) => {
                return Err(DeviceError::new(DeviceErrorKind::Locked, "lock", path));
            }
            Err(errno) => return Err(failed(errno)),
        }
    }
}

//! Small files, whole: read with a limit, replaced atomically.
//!
//! Plain buffered calls on the calling thread: they are rare, and a ring hands buffered writes to workers anyway.
#![expect(unsafe_code, reason = "calls sync_file_range, which has no safe binding here")]

use crate::device::Result;
use crate::directory::{self, sync_directory};
use crate::error::{DeviceError, DeviceErrorKind};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// So much of a file is on its way to the disk at once: a small file may have a hundred megabytes, and whoever writes
/// something else meanwhile would wait behind all of them.
const STEP_BYTES: usize = 64 << 10;

pub(crate) fn read_small(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
    let failed = |source| DeviceError::io("read_small", path, source);
    // NONBLOCK: a pipe in the file's place must be refused, not waited for.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
        Ok(descriptor) => File::from(descriptor),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno.into())),
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(DeviceError::new(DeviceErrorKind::IsADirectory, "read_small", path));
    }
    let too_large = |length| DeviceError::too_large("read_small", path, length, limit_bytes);
    if metadata.len() > limit_bytes {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        grown if grown > limit_bytes => Err(too_large(grown)),
        _ => Ok(Some(bytes)),
    }
}

pub(crate) fn write_small(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |source| DeviceError::io("write_small", path, source);
    let (directory, temporary) = temporary_of(path)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let open = retry_on_intr(|| rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o644)));
    let mut file = File::from(open.map_err(|errno| failed(errno.into()))?);
    let written = bytes.chunks(STEP_BYTES).try_for_each(|step| {
        file.write_all(step)?;
        if step.len() == STEP_BYTES { write_out(&file) } else { Ok(()) }
    });
    let replaced = written.and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(source) = replaced {
        let _best_effort = std::fs::remove_file(&temporary);
        return Err(failed(source));
    }
    sync_directory(&directory)
}

/// Has what was written leave for the disk, and waits for it. Not durable: that takes the sync at the end, which finds
/// little left to do. A sync for each step would write the file's inode and flush the disk as often.
fn write_out(file: &File) -> std::io::Result<()> {
    const ALL: libc::c_uint =
        libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: takes no memory, and the descriptor is borrowed until it returns.
    if unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, ALL) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        // A file system, an emulated kernel or a sandbox without the call.
        Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EOPNOTSUPP | libc::ESPIPE) => file.sync_data(),
        // Told once: the sync at the end would not hear of it again.
        _ => Err(error),
    }
}

fn temporary_of(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(DeviceError::io("write_small", path, Errno::INVAL));
    };
    let directory = directory::of(path);
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok((directory.to_path_buf(), directory.join(temporary)))
}

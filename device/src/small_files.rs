//! Small files, whole: read with a limit, replaced atomically.
//!
//! Plain buffered calls on the calling thread: they are rare, and a ring hands buffered writes to workers anyway.
//!
//! Content of [`LARGE_BYTES`] and more, which a snapshot of many producers has, goes past the page cache in pieces, one at a
//! time. Written through it, all of it reaches the disk at once at the sync, and every durable append waits in the disk's
//! queue behind some hundred megabytes of it.

use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, Result};
use crate::directory::sync_directory;
use crate::error::{DeviceError, DeviceErrorKind};
use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, retry_on_intr};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// From this length on content is written in pieces.
const LARGE_BYTES: usize = 4 << 20;

/// What an append may have to wait behind, bytes: a fraction of a millisecond.
const PIECE_BYTES: usize = 256 << 10;

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
    let begun = if bytes.len() < LARGE_BYTES { 0 } else { write_pieces(&mut file, bytes) };
    let written = file.write_all(&bytes[begun..]);
    let replaced = written.and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temporary, path));
    if let Err(source) = replaced {
        let _best_effort = std::fs::remove_file(&temporary);
        return Err(failed(source));
    }
    sync_directory(&directory)
}

/// Writes the front of `bytes` past the page cache; how much, and so what is left for the usual way: the end that fills no
/// block, and everything where direct writes are refused.
fn write_pieces(file: &mut File, bytes: &[u8]) -> usize {
    let Ok(flags) = fcntl_getfl(&*file) else { return 0 };
    if fcntl_setfl(&*file, flags | OFlags::DIRECT).is_err() {
        return 0;
    }
    let mut piece = AlignedBuffer::new(PIECE_BYTES);
    let mut written = 0;
    let whole = &bytes[..bytes.len() / BLOCK_BYTES * BLOCK_BYTES];
    for part in whole.chunks(PIECE_BYTES) {
        piece.as_mut_slice()[..part.len()].copy_from_slice(part);
        // A short or failed write is left to the usual way, which finds out why.
        match retry_on_intr(|| rustix::io::pwrite(&*file, &piece.as_slice()[..part.len()], written as u64)) {
            Ok(count) if count == part.len() => written += count,
            _ => break,
        }
    }
    match fcntl_setfl(&*file, flags)
        .map_err(std::io::Error::from)
        .and_then(|()| file.seek(SeekFrom::Start(written as u64)))
    {
        Ok(_) => written,
        Err(_) => 0,
    }
}

fn temporary_of(path: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(DeviceError::io("write_small", path, Errno::INVAL));
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    Ok((directory.to_path_buf(), directory.join(temporary)))
}

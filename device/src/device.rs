//! The trait through which everything reaches the disk.
//!
//! What the engine trusts, in numbered sentences; every implementation and the simulator keep exactly these:
//!
//! 1. A completed [`DeviceFile::write`] with [`Sync::None`] survives the death of this process, not the loss of power.
//! 2. A completed [`DeviceFile::write`] with [`Sync::Data`] survives the loss of power, it alone: other writes of the
//!    same file that completed before without a sync may still be lost.
//! 3. A completed [`DeviceFile::sync`] makes every write of that file completed before it survive the loss of power,
//!    with the file's size.
//! 4. A name (created, renamed, removed) survives the loss of power after [`Device::sync_directory`] of its directory.
//! 5. A crash may leave any subset of what was not synced, torn at 512-byte sectors.
//! 6. After a failed write or sync nothing may be concluded about the file's contents until it is opened again.
//! 7. A failed or short read says nothing about what is stored: the next one may succeed.
//! 8. What is read may not be what was written: sectors go bad, and a completed write may never have arrived or may
//!    stand somewhere else in the file. Nothing read is believed before its checksum or its neighbours bear it out.
//! 9. Out of space is an answer, not a failure: what stood there stands.
//!
//! Calls block until done, and the kernel reads no buffer after the call has returned. That was chosen over a
//! submit/complete interface because one log has at most one group in flight: the depth comes from splitting a large
//! write inside the device, and no buffer's life ever depends on a caller that drops a future. The exception is a
//! thread that serves many logs: a [`Lane`] has one write of each on the way, and owns what the kernel reads until it
//! has landed.

use crate::buffers::{AlignedBuffer, BufferPool};
use crate::error::DeviceError;
use crate::uring::Lane;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Result of a device call.
pub type Result<T> = std::result::Result<T, DeviceError>;

/// The unit of every direct write: position, length and memory address are multiples of this many bytes.
///
/// 4 KiB satisfies every device that reports a smaller `STATX_DIOALIGN`; a device that needs more is not opened for
/// direct I/O.
pub const BLOCK_BYTES: usize = 4096;

/// How durable a write is when the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Survives the death of the process.
    None,
    /// Survives the loss of power.
    Data,
}

/// Which implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DeviceKind {
    /// The best that this machine allows, see [`crate::open_device`].
    #[default]
    Auto,
    /// io_uring.
    Uring,
    /// `pwritev2` on the calling thread.
    Blocking,
    /// In memory, with the image that a power cut would leave.
    Memory,
}

/// Something found in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Name inside the directory.
    pub name: String,
    /// Length in bytes; 0 for a directory.
    pub length_bytes: u64,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Time of the last change, ms since the epoch.
    pub modified_ms: i64,
}

/// How to open a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only; through the page cache.
    Read,
    /// Existing file, reads and direct writes.
    Write,
    /// New file, reads and direct writes; an existing one of that name is an error.
    Create,
}

/// One door to the disk: files, names and locks. Shared by all logs of an engine.
pub trait Device: Send + std::marker::Sync {
    /// Which implementation this is, never [`DeviceKind::Auto`].
    fn kind(&self) -> DeviceKind;

    /// One line for the log: what was chosen and why.
    fn describe(&self) -> String;

    /// A pool that keeps up to `keep_bytes` of idle buffers. Any buffer may be written; those from here may cost less.
    fn buffers(&self, keep_bytes: usize) -> BufferPool {
        BufferPool::new(keep_bytes)
    }

    /// For one thread that has the writes of many files on the way at once; `None` where that gains nothing.
    fn lane(&self) -> Option<Lane> {
        None
    }

    /// Opens a file for block writes and reads.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>>;

    /// Reads a small file whole; `None` where there is none. An unreadable one is an error, never `None`.
    /// A file over `limit_bytes` is an error before any of it is read.
    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>>;

    /// Replaces a small file atomically: temporary name, sync, rename, sync of the directory.
    /// After a crash at any moment the old or the new content stands whole under `path`.
    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()>;

    /// Names in a directory, sorted by name.
    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>>;

    /// Length of a file, `None` where there is none.
    fn length(&self, path: &Path) -> Result<Option<u64>>;

    /// Makes a directory and its parents; an existing one is fine.
    fn create_directory(&self, directory: &Path) -> Result<()>;

    /// Renames within one file system, replacing `to`. Survives a power cut after [`Device::sync_directory`].
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file; `false` where there was none.
    fn remove(&self, path: &Path) -> Result<bool>;

    /// Removes an empty directory or a directory with all its files; `false` where there was none.
    fn remove_directory(&self, path: &Path) -> Result<bool>;

    /// Makes names in the directory survive the loss of power.
    fn sync_directory(&self, directory: &Path) -> Result<()>;

    /// Takes the exclusive lock `path`, retried for about a second (a killed ring holds its files for a moment).
    /// Released when the value is dropped or the process dies.
    fn lock(&self, path: &Path) -> Result<DeviceLock>;
}

/// A file of a [`Device`]. All positions in bytes.
pub trait DeviceFile: Send + std::marker::Sync {
    /// Where it was opened.
    fn path(&self) -> PathBuf;

    /// Length now.
    fn length(&self) -> Result<u64>;

    /// Reads from `position`, as many bytes as come at once; 0 only at the end of the file or for an empty buffer.
    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Reads up to `buffer.len()` bytes; fewer only at the end of the file. The one place that knows of short reads.
    fn read(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_some(position + filled as u64, &mut buffer[filled..])? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    /// As [`DeviceFile::read`] with position, length and address multiples of [`BLOCK_BYTES`], for large transfers:
    /// past the page cache where that can be, unless the cache holds all of it.
    fn read_blocks(&self, position: u64, blocks: &mut [u8]) -> Result<usize> {
        let done = self.read_direct(position, blocks)?;
        Ok(done + self.read(position + done as u64, &mut blocks[done..])?)
    }

    /// The part of a read that goes past the page cache, from the front; the default is none of it.
    fn read_direct(&self, _position: u64, _blocks: &mut [u8]) -> Result<usize> {
        Ok(0)
    }

    /// Writes `buffer[..length]` at `position`, both multiples of [`BLOCK_BYTES`], inside the prepared length.
    /// On return, even with an error, nothing reads the buffer any more.
    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()>;

    /// Checks a write of `length` bytes from a buffer of `available` as [`DeviceFile::write`] does, and answers where a
    /// [`Lane`] may send it; `None`: to [`DeviceFile::write`] alone.
    fn direct_target(&self, _position: u64, _available: usize, _length: usize) -> Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }

    /// Makes everything written so far survive the loss of power, with the size.
    fn sync(&self) -> Result<()>;

    /// Makes `from..to` (multiples of [`BLOCK_BYTES`]) exist as written zeroes, extending the file; synced on return.
    /// Out of space is [`DeviceError::is_full`], leaves the file at its old length, and is no failure of the device.
    fn prepare(&self, from: u64, to: u64) -> Result<()>;

    /// As [`DeviceFile::prepare`], slower where that lets writes of others through sooner.
    fn prepare_gently(&self, from: u64, to: u64) -> Result<()> {
        self.prepare(from, to)
    }

    /// Makes `from..to` (multiples of [`BLOCK_BYTES`]) exist and read as zeroes without writing them, extending the
    /// file; synced on return: no power cut brings back what stood there. Its space is taken, so no write to it runs
    /// out of any, but the first durable write to each part costs more than one to what was
    /// [prepared](DeviceFile::prepare). `false`: not to be had here, [`DeviceFile::prepare`] is. Out of space is as
    /// there.
    fn allocate(&self, _from: u64, _to: u64) -> Result<bool> {
        Ok(false)
    }

    /// Whether another name leads to the same file: then its bytes are not ours alone to change.
    fn is_linked_elsewhere(&self) -> Result<bool>;

    /// The file was renamed: from now on [`DeviceFile::path`] and errors tell this name.
    fn renamed(&self, to: &Path);

    /// Sets the length: cuts the file, or extends it with a hole. Survives the loss of power after
    /// [`DeviceFile::sync`].
    fn set_length(&self, length: u64) -> Result<()>;
}

/// An exclusive lock; dropping it releases it.
pub struct DeviceLock {
    _held: Box<dyn std::any::Any + Send + std::marker::Sync>,
}

impl DeviceLock {
    /// Wraps whatever releases the lock when dropped.
    pub fn new(held: impl std::any::Any + Send + std::marker::Sync) -> Self {
        Self { _held: Box::new(held) }
    }
}

impl std::fmt::Debug for DeviceLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceLock")
    }
}

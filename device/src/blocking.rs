//! The reference device: every call on the calling thread, durable writes by `pwritev2(RWF_DSYNC)`.
//!
//! For one log with few writers it is as fast as a ring (`docs/performance.md`), and it works wherever files do; the
//! ring adds depth for large writes. Both keep the same promises and write the same bytes.

use crate::buffers::{AlignedBuffer, BufferPool};
use crate::device::{Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
use crate::directory;
use crate::host_file::{HostFile, Remarks};
use crate::small_files;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of the host through plain calls.
#[derive(Debug)]
pub struct BlockingDevice {
    why: String,
    remarks: Arc<Remarks>,
}

impl BlockingDevice {
    /// Chosen by the caller.
    pub fn new() -> Self {
        Self::because("as configured")
    }

    /// Chosen for the reason that [`Device::describe`] will tell.
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), remarks: Arc::default() }
    }

    pub(crate) fn open_host(&self, path: &Path, mode: OpenMode) -> Result<HostFile> {
        HostFile::open(path, mode, &self.remarks)
    }

    pub(crate) fn remarks(&self) -> &str {
        self.remarks.text()
    }
}

impl Default for BlockingDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl Device for BlockingDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Blocking
    }

    fn describe(&self) -> String {
        format!("blocking: pwritev2 on the calling thread, {}{}", self.why, self.remarks())
    }

    fn buffers(&self, keep_bytes: usize) -> BufferPool {
        BufferPool::with_arenas(keep_bytes, None)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        Ok(Arc::new(self.open_host(path, mode)?))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        small_files::read_small(path, limit_bytes)
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        small_files::write_small(path, bytes)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        directory::list(directory)
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        directory::length(path)
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        directory::create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        directory::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        directory::remove(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        directory::remove_directory(path)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        directory::sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> Result<DeviceLock> {
        directory::lock(path)
    }
}

impl DeviceFile for HostFile {
    fn path(&self) -> PathBuf {
        HostFile::path(self)
    }

    fn length(&self) -> Result<u64> {
        self.length()
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.read_some(position, buffer)
    }

    fn read_direct(&self, position: u64, blocks: &mut [u8]) -> Result<usize> {
        self.read_direct(position, blocks)
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()> {
        self.check_write(position, buffer.capacity_bytes(), length)?;
        self.write_bytes(position, &buffer.as_slice()[..length], sync)
    }

    fn sync(&self) -> Result<()> {
        self.sync("sync")
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        self.prepare(from, to)
    }

    fn prepare_gently(&self, from: u64, to: u64) -> Result<()> {
        self.prepare_gently(from, to)
    }

    fn allocate(&self, from: u64, to: u64) -> Result<bool> {
        self.allocate(from, to)
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        self.is_linked_elsewhere()
    }

    fn renamed(&self, to: &Path) {
        self.renamed(to);
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.set_length(length)
    }
}

//! Faults for a device that knows nothing of them.
//!
//! From outside a file's images cannot be touched, so this is weaker than the faults inside
//! [`crate::memory::MemoryDevice`]: a failed sync here is one that was never sent, and a later one that succeeds covers
//! what it left. It is for what an error does to the engine on a real disk.

use super::chance::{below, mix2};
use super::{FaultOp, Faults, Power};
use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
use crate::lock::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A device whose operations fail as planned. Clones share the plan.
#[derive(Clone)]
pub struct FaultDevice {
    base: Arc<dyn Device>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultDevice {
    /// Nothing fails until something is planted.
    pub fn new(base: Arc<dyn Device>) -> Self {
        Self { base, faults: Arc::default() }
    }

    /// The matching operation number `after` (from 0, counted from now) and the next `times - 1` fail:
    /// [`FaultOp::Space`] as full, the others as injected. A failed write may leave its first blocks.
    pub fn plant(&self, op: FaultOp, after: u64, times: u64) {
        self.faults.lock().plant(op, after, times);
    }

    /// After `operations` more operations every one fails with "power is out", until [`FaultDevice::clear_faults`].
    pub fn crash_after(&self, operations: u64) {
        self.faults.lock().crash_after(operations);
    }

    /// Forgets everything planted, and the power is back.
    pub fn clear_faults(&self) {
        self.faults.lock().clear();
    }

    /// Operations so far, failed ones too.
    pub fn operations(&self) -> u64 {
        self.faults.lock().operations()
    }

    fn step(&self, kinds: &[FaultOp], op: &'static str, path: &Path) -> Result<()> {
        step(&self.faults, kinds, op, path)
    }
}

/// Counts an operation. One that is under way when the power goes is not sent at all: the base may be a real disk.
fn step(faults: &Mutex<Faults>, kinds: &[FaultOp], op: &'static str, path: &Path) -> Result<()> {
    let mut faults = faults.lock();
    let power = faults.step(op, path)?;
    if power == Power::Failing {
        return power.answer(op, path);
    }
    kinds.iter().try_for_each(|&kind| faults.check(kind, op, path))
}

impl Device for FaultDevice {
    fn kind(&self) -> DeviceKind {
        self.base.kind()
    }

    fn describe(&self) -> String {
        format!("planted faults over {}", self.base.describe())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        self.step(&[], "open", path)?;
        Ok(Arc::new(FaultFile { base: self.base.open(path, mode)?, faults: self.faults.clone() }))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        self.step(&[FaultOp::Read], "read_small", path)?;
        self.base.read_small(path, limit_bytes)
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let before = [FaultOp::Space, FaultOp::Write, FaultOp::Sync];
        self.step(&before, "write_small", path)?;
        self.base.write_small(path, bytes)?;
        self.faults.lock().check(FaultOp::Sync, "write_small", path)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.step(&[], "list", directory)?;
        self.base.list(directory)
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        self.step(&[], "length", path)?;
        self.base.length(path)
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        self.step(&[], "create_directory", directory)?;
        self.base.create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.step(&[], "rename", from)?;
        self.base.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        self.step(&[], "remove", path)?;
        self.base.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        self.step(&[], "remove_directory", path)?;
        self.base.remove_directory(path)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.step(&[FaultOp::Sync], "sync_directory", directory)?;
        self.base.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> Result<DeviceLock> {
        self.step(&[], "lock", path)?;
        self.base.lock(path)
    }
}

struct FaultFile {
    base: Arc<dyn DeviceFile>,
    faults: Arc<Mutex<Faults>>,
}

impl FaultFile {
    fn step(&self, kinds: &[FaultOp], op: &'static str) -> Result<()> {
        step(&self.faults, kinds, op, &self.base.path())
    }

    /// Where a write goes: to its place, or, where it is misdirected, by its own length before or behind it.
    fn aim(&self, position: u64, length: usize) -> Result<u64> {
        if !self.faults.lock().strikes(FaultOp::MisdirectedWrite) {
            return Ok(position);
        }
        let length = length as u64;
        let behind = position + length;
        let fits = behind + length <= self.base.length()?;
        Ok(if fits { behind } else { position.saturating_sub(length) })
    }

    /// Leaves the first blocks of a write that fails, as many as its number says.
    fn write_prefix(&self, position: u64, buffer: &AlignedBuffer, length: usize) {
        let hits = self.faults.lock().hits();
        let blocks = u64::try_from(length / BLOCK_BYTES).unwrap_or(0);
        let keep = usize::try_from(below(mix2(hits, position), blocks + 1)).unwrap_or(0);
        if keep > 0 {
            // The call fails anyway: what became of the part is not known to the caller either.
            let _ = self.base.write(position, buffer, keep * BLOCK_BYTES, Sync::None);
        }
    }
}

impl DeviceFile for FaultFile {
    fn path(&self) -> PathBuf {
        self.base.path()
    }

    fn length(&self) -> Result<u64> {
        self.step(&[], "length")?;
        self.base.length()
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.step(&[FaultOp::Read], "read")?;
        let short = buffer.len() > 1 && self.faults.lock().strikes(FaultOp::ShortRead);
        let wanted = if short { buffer.len() / 2 } else { buffer.len() };
        self.base.read_some(position, &mut buffer[..wanted])
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()> {
        self.step(&[], "write")?;
        let path = self.base.path();
        let write_fails = self.faults.lock().check(FaultOp::Write, "write", &path);
        if write_fails.is_err() {
            self.write_prefix(position, buffer, length);
            return write_fails;
        }
        if self.faults.lock().strikes(FaultOp::LostWrite) {
            return Ok(());
        }
        let position = self.aim(position, length)?;
        if sync == Sync::Data {
            let sync_fails = self.faults.lock().check(FaultOp::Sync, "write", &path);
            if sync_fails.is_err() {
                self.base.write(position, buffer, length, Sync::None)?;
                return sync_fails;
            }
        }
        self.base.write(position, buffer, length, sync)
    }

    fn sync(&self) -> Result<()> {
        self.step(&[FaultOp::Sync], "sync")?;
        self.base.sync()
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        self.step(&[FaultOp::Space], "prepare")?;
        self.base.prepare(from, to)
    }

    fn allocate(&self, from: u64, to: u64) -> Result<bool> {
        self.step(&[FaultOp::Space], "allocate")?;
        self.base.allocate(from, to)
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        self.step(&[], "is_linked_elsewhere")?;
        self.base.is_linked_elsewhere()
    }

    fn renamed(&self, to: &Path) {
        self.base.renamed(to);
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.step(&[], "set_length")?;
        self.base.set_length(length)
    }
}

//! What the device does, step by step; the caller holds the lock.

use super::blocks::{BLOCK, Blocks};
use super::file::{FileImages, Promise, SECTOR_BYTES};
use super::names::{FileNode, Tree};
use super::trace::Trace;
use super::whole_blocks;
use crate::clock::Clock;
use crate::device::{BLOCK_BYTES, Result, Sync};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::fault::chance::{below, mix2};
use crate::fault::{FaultOp, Faults, Power};
use crate::planted::{Bug, planted};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Default)]
pub(crate) struct State {
    pub(crate) tree: Tree,
    pub(crate) faults: Faults,
    pub(crate) trace: Trace,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) capacity_bytes: Option<u64>,
    /// Holder by path; a holder is known by its number.
    pub(crate) locks: BTreeMap<Vec<String>, u64>,
    /// Power cuts so far: files opened before the last one are stale.
    pub(crate) power_cuts: u64,
    /// Ranges of files where a write was lost, or was misdirected from or to.
    pub(crate) misplaced: Vec<(u64, std::ops::Range<u64>)>,
    next_change: u64,
}

impl State {
    /// A number for something that happens now, never given twice.
    pub(crate) fn take_change(&mut self) -> u64 {
        self.next_change += 1;
        self.next_change
    }

    /// Without a clock a file counts as changed just now, whenever that is asked: a time in the past would say that
    /// what lies in it is old.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.as_ref().map_or(i64::MAX, |clock| clock.now_ms())
    }

    pub(crate) fn power_cut(&mut self, seed: u64) {
        self.tree.power_cut(seed);
        self.power_cuts += 1;
        self.locks.clear();
        self.faults.restore_power();
        self.trace.note("power_cut", Path::new(""), &[seed], &[], &Ok(0));
    }

    pub(crate) fn kill(&mut self) {
        self.locks.clear();
        self.faults.restore_power();
        self.trace.note("kill", Path::new(""), &[], &[], &Ok(0));
    }

    /// An operation that changes nothing.
    pub(crate) fn look(&mut self, op: &'static str, path: &Path) -> Result<()> {
        self.faults.step(op, path)?.answer(op, path)
    }

    /// An operation on names.
    pub(crate) fn rename_step<T>(
        &mut self,
        op: &'static str,
        path: &Path,
        change: impl FnOnce(&mut Tree) -> Result<T>,
    ) -> Result<T> {
        let power = self.faults.step(op, path)?;
        let answer = change(&mut self.tree)?;
        power.answer(op, path)?;
        Ok(answer)
    }

    pub(crate) fn create_file(&mut self, op: &'static str, path: &Path) -> Result<Arc<FileNode>> {
        let images = FileImages::durable(Blocks::default(), self.now_ms());
        self.rename_step(op, path, |tree| tree.create_file(op, path, images))
    }

    pub(crate) fn read(&mut self, path: &Path, node: &FileNode, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.look("read", path)?;
        self.faults.check(FaultOp::Read, "read", path)?;
        let short = buffer.len() > 1 && self.faults.strikes(FaultOp::ShortRead);
        let drawn = below(mix2(self.faults.hits(), position), buffer.len() as u64 - u64::from(short)) as usize;
        let wanted = if short { drawn + 1 } else { buffer.len() };
        let images = node.images.lock();
        if images.is_bad(position, position + wanted as u64) {
            return Err(bad_sector("read", path));
        }
        Ok(images.written().read(position, &mut buffer[..wanted]))
    }

    pub(crate) fn write(
        &mut self,
        path: &Path,
        node: &FileNode,
        position: u64,
        bytes: &[u8],
        sync: Sync,
    ) -> Result<()> {
        let power = self.faults.step("write", path)?;
        if self.faults.strikes(FaultOp::LostWrite) {
            self.misplaced.push((node.number(), position..position + bytes.len() as u64));
            return power.answer("write", path);
        }
        let position = self.aim(node, position, bytes.len() as u64);
        self.write_or_tear("write", path, node, position, bytes, |state| match (power, sync) {
            (Power::Failing, _) | (_, Sync::None) => (Promise::None, Ok(())),
            (Power::On, Sync::Data) => match state.faults.check(FaultOp::Sync, "write", path) {
                Ok(()) => (Promise::Durable, Ok(())),
                failed => (Promise::Failed, failed),
            },
        })?;
        power.answer("write", path)
    }

    /// Where a write goes: to its place, or, where it is misdirected, to other blocks of the file.
    fn aim(&mut self, node: &FileNode, position: u64, length: u64) -> u64 {
        if !self.faults.strikes(FaultOp::MisdirectedWrite) {
            return position;
        }
        let places = (node.images.lock().written().length().saturating_sub(length)) / BLOCK + 1;
        let aimed = below(mix2(self.faults.hits(), position), places) * BLOCK;
        self.misplaced.push((node.number(), position..position + length));
        self.misplaced.push((node.number(), aimed..aimed + length));
        aimed
    }

    /// Writes with the promise that `promise` gives, or, where a fault is planted, the first sectors.
    fn write_or_tear(
        &mut self,
        op: &'static str,
        path: &Path,
        node: &FileNode,
        position: u64,
        bytes: &[u8],
        promise: impl FnOnce(&mut Self) -> (Promise, Result<()>),
    ) -> Result<()> {
        let change = self.take_change();
        let struck = self.faults.check(FaultOp::Write, op, path);
        let mut images = node.images.lock();
        images.modified_ms = self.now_ms();
        if struck.is_err() {
            let sectors = bytes.len().div_ceil(SECTOR_BYTES) as u64;
            let keep = below(mix2(self.faults.hits(), position), sectors + 1) as usize * SECTOR_BYTES;
            let keep = keep.min(bytes.len());
            let mut torn = vec![0; bytes.len().min(keep.next_multiple_of(BLOCK_BYTES))];
            images.written().read(position, &mut torn);
            torn[..keep].copy_from_slice(&bytes[..keep]);
            images.write(change, position, &torn, Promise::Failed);
            return struck;
        }
        let (promise, answer) = promise(self);
        images.write(change, position, bytes, promise);
        answer
    }

    pub(crate) fn sync(&mut self, op: &'static str, path: &Path, node: &FileNode) -> Result<()> {
        self.look(op, path)?;
        let struck = self.faults.check(FaultOp::Sync, op, path);
        let mut images = node.images.lock();
        match struck {
            Ok(()) => images.sync(),
            Err(_) => images.fail_sync(),
        }
        struck
    }

    pub(crate) fn sync_directory(&mut self, op: &'static str, path: &Path) -> Result<()> {
        self.look(op, path)?;
        let struck = self.faults.check(FaultOp::Sync, op, path);
        match struck {
            Ok(()) => self.tree.sync_directory(op, path)?,
            Err(_) => self.tree.fail_sync(op, path)?,
        }
        struck
    }

    pub(crate) fn prepare(&mut self, path: &Path, node: &FileNode, from: u64, to: u64) -> Result<()> {
        let power = self.faults.step("prepare", path)?;
        self.faults.check(FaultOp::Space, "prepare", path)?;
        let old = node.images.lock().written().length();
        self.check_space("prepare", path, whole_blocks(to).saturating_sub(whole_blocks(old)))?;
        let promise = match power {
            Power::On => Promise::Durable,
            Power::Failing => Promise::None,
        };
        let change = self.take_change();
        let mut images = node.images.lock();
        images.prepare(change, from, to, promise);
        images.modified_ms = self.now_ms();
        power.answer("prepare", path)
    }

    pub(crate) fn set_length(&mut self, path: &Path, node: &FileNode, length: u64) -> Result<()> {
        let power = self.faults.step("set_length", path)?;
        let change = self.take_change();
        let mut images = node.images.lock();
        images.set_length(change, length, Promise::None);
        images.modified_ms = self.now_ms();
        power.answer("set_length", path)
    }

    /// Five steps, each of which the power may cut: temporary file, its bytes, their sync, the rename, its sync.
    pub(crate) fn write_small(&mut self, path: &Path, bytes: &[u8]) -> Result<()> {
        let op = "write_small";
        self.tree.file(op, path)?;
        let (directory, temporary) = temporary_of(op, path)?;
        let node = self.create_file(op, &temporary)?;
        let power = self.faults.step(op, &temporary)?;
        let filled = self.fill(op, path, &node, bytes);
        power.answer(op, path)?;
        if let Err(error) = filled {
            self.tree.remove(op, &temporary)?;
            return Err(error);
        }
        // Without power nobody is left to clean up.
        let hits = self.faults.hits();
        if !planted(Bug::SmallFileNotSynced)
            && let Err(error) = self.sync(op, path, &node)
        {
            if self.faults.hits() > hits {
                self.tree.remove(op, &temporary)?;
            }
            return Err(error);
        }
        self.rename_step(op, path, |tree| tree.rename(op, &temporary, path))?;
        if planted(Bug::SmallFileNameNotSynced) {
            return Ok(());
        }
        self.sync_directory(op, &directory)
    }

    fn fill(&mut self, op: &'static str, path: &Path, node: &FileNode, bytes: &[u8]) -> Result<()> {
        self.faults.check(FaultOp::Space, op, path)?;
        let length = bytes.len() as u64;
        self.check_space(op, path, whole_blocks(length))?;
        let change = self.take_change();
        node.images.lock().set_length(change, length, Promise::None);
        self.write_or_tear(op, path, node, 0, bytes, |_| (Promise::None, Ok(())))
    }

    fn check_space(&self, op: &'static str, path: &Path, more_bytes: u64) -> Result<()> {
        match self.capacity_bytes {
            Some(capacity) if more_bytes > 0 && self.tree.used_bytes().saturating_add(more_bytes) > capacity => {
                Err(DeviceError::full(op, path))
            }
            _ => Ok(()),
        }
    }

    /// See [`super::MemoryDevice::put`].
    pub(crate) fn put(&mut self, path: &Path, bytes: Blocks) -> Result<()> {
        let directory = path.parent().unwrap_or(Path::new(""));
        self.put_directory(directory)?;
        let images = FileImages::durable(bytes, self.now_ms());
        self.tree.create_file("put", path, images)?;
        self.tree.sync_directory("put", directory)
    }

    /// Makes a directory that survives the loss of power.
    pub(crate) fn put_directory(&mut self, directory: &Path) -> Result<()> {
        self.tree.create_directory("put", directory)?;
        let mut above: Vec<&Path> = directory.ancestors().collect();
        above.reverse();
        above.into_iter().try_for_each(|directory| self.tree.sync_directory("put", directory))
    }
}

/// What a read of a sector that went bad answers.
pub(crate) fn bad_sector(op: &'static str, path: &Path) -> DeviceError {
    DeviceError::io(op, path, rustix::io::Errno::IO)
}

fn temporary_of(op: &'static str, path: &Path) -> Result<(PathBuf, PathBuf)> {
    let Some(name) = path.file_name() else {
        return Err(DeviceError::new(DeviceErrorKind::IsADirectory, op, path));
    };
    let mut temporary = name.to_os_string();
    temporary.push(".tmp");
    let directory = path.parent().unwrap_or(Path::new(""));
    Ok((directory.to_path_buf(), directory.join(temporary)))
}

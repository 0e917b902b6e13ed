//! The trait: checks of arguments, stale files, locks, and the note of every call in the trace.

use super::MemoryDevice;
use super::blocks::BLOCK;
use super::names::{Entry, FileNode, names_of};
use super::state::{State, bad_sector};
use super::trace::digest;
use crate::buffers::AlignedBuffer;
use crate::device::{Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::fault::FaultOp;
use crate::lock::{Mutex, RwLock};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl MemoryDevice {
    /// Runs one call and notes it; `number` says its answer as a number.
    fn call<T>(
        &self,
        (op, path, arguments, payload): (&'static str, &Path, &[u64], &[u8]),
        body: impl FnOnce(&mut State) -> Result<T>,
        number: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let mut state = self.state.lock();
        let answer = body(&mut state);
        let noted = answer.as_ref().map(number).map_err(Clone::clone);
        state.trace.note(op, path, arguments, payload, &noted);
        answer
    }
}

impl Device for MemoryDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Memory
    }

    fn describe(&self) -> String {
        "memory: nothing reaches a disk, power cuts and faults by seed".to_owned()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        let body = |state: &mut State| {
            let (node, power_cuts) = (open_node(state, path, mode)?, state.power_cuts);
            Ok(MemoryFile {
                device: self.clone(),
                node,
                path: RwLock::new(path.to_path_buf()),
                writable: mode != OpenMode::Read,
                power_cuts,
            })
        };
        let file = self.call(("open", path, &[mode as u64], &[]), body, |_| 0)?;
        Ok(Arc::new(file))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        let op = "read_small";
        let body = |state: &mut State| {
            state.look(op, path)?;
            state.faults.check(FaultOp::Read, op, path)?;
            let Some(node) = state.tree.file(op, path)? else {
                return Ok(None);
            };
            let images = node.images.lock();
            match images.written().length() {
                length if length > limit_bytes => Err(DeviceError::too_large(op, path, length, limit_bytes)),
                length if images.is_bad(0, length) => Err(bad_sector(op, path)),
                _ => Ok(Some(images.written().to_vec())),
            }
        };
        self.call((op, path, &[limit_bytes], &[]), body, |bytes| bytes.as_ref().map_or(0, |bytes| digest(bytes)))
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let body = |state: &mut State| state.write_small(path, bytes);
        self.call(("write_small", path, &[], bytes), body, |()| 0)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        let body = |state: &mut State| {
            state.look("list", directory)?;
            let entries = state.tree.list("list", directory)?;
            Ok(entries.into_iter().map(describe).collect::<Vec<_>>())
        };
        self.call(("list", directory, &[], &[]), body, |entries| {
            let word = |entry: &DirectoryEntry| digest(entry.name.as_bytes()) ^ entry.length_bytes;
            entries.iter().fold(0, |sum: u64, entry| sum.rotate_left(7) ^ word(entry))
        })
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        let body = |state: &mut State| {
            state.look("length", path)?;
            let node = state.tree.file("length", path)?;
            Ok(node.map(|node| node.images.lock().written().length()))
        };
        self.call(("length", path, &[], &[]), body, |length| length.map_or(u64::MAX, |length| length))
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        let op = "create_directory";
        let body = |state: &mut State| state.rename_step(op, directory, |tree| tree.create_directory(op, directory));
        self.call((op, directory, &[], &[]), body, |()| 0)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let body = |state: &mut State| state.rename_step("rename", from, |tree| tree.rename("rename", from, to));
        self.call(("rename", from, &[], to.as_os_str().as_encoded_bytes()), body, |()| 0)
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        let body = |state: &mut State| state.rename_step("remove", path, |tree| tree.remove("remove", path));
        self.call(("remove", path, &[], &[]), body, |&found| u64::from(found))
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        let op = "remove_directory";
        let body = |state: &mut State| state.rename_step(op, path, |tree| tree.remove_directory(op, path));
        self.call((op, path, &[], &[]), body, |&found| u64::from(found))
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        let body = |state: &mut State| state.sync_directory("sync_directory", directory);
        self.call(("sync_directory", directory, &[], &[]), body, |()| 0)
    }

    fn lock(&self, path: &Path) -> Result<DeviceLock> {
        let body = |state: &mut State| {
            state.look("lock", path)?;
            let key = names_of("lock", path)?;
            if state.locks.contains_key(&key) {
                return Err(DeviceError::new(DeviceErrorKind::Locked, "lock", path));
            }
            if state.tree.file("lock", path)?.is_none() {
                state.tree.create_file("lock", path, Default::default())?;
            }
            let holder = state.take_change();
            state.locks.insert(key.clone(), holder);
            Ok(HeldLock { state: self.state.clone(), key, holder })
        };
        let held = self.call(("lock", path, &[], &[]), body, |_| 0)?;
        Ok(DeviceLock::new(held))
    }
}

fn open_node(state: &mut State, path: &Path, mode: OpenMode) -> Result<Arc<FileNode>> {
    let error = |kind| DeviceError::new(kind, "open", path);
    if mode == OpenMode::Create {
        if state.tree.find("open", path)?.is_some() {
            state.look("open", path)?;
            return Err(error(DeviceErrorKind::AlreadyExists));
        }
        return state.create_file("open", path);
    }
    state.look("open", path)?;
    let node = state.tree.file("open", path)?;
    node.ok_or_else(|| error(DeviceErrorKind::NotFound))
}

fn describe((name, entry): (String, Entry)) -> DirectoryEntry {
    let (length_bytes, is_directory, modified_ms) = match entry {
        Entry::File(node) => {
            let images = node.images.lock();
            (images.written().length(), false, images.modified_ms)
        }
        Entry::Directory(_) => (0, true, 0),
    };
    DirectoryEntry { name, length_bytes, is_directory, modified_ms }
}

struct HeldLock {
    state: Arc<Mutex<State>>,
    key: Vec<String>,
    holder: u64,
}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        // After a power cut the lock may be somebody else's.
        if state.locks.get(&self.key) == Some(&self.holder) {
            state.locks.remove(&self.key);
        }
    }
}

struct MemoryFile {
    device: MemoryDevice,
    node: Arc<FileNode>,
    path: RwLock<PathBuf>,
    writable: bool,
    /// How many power cuts there had been when it was opened.
    power_cuts: u64,
}

impl MemoryFile {
    fn call<T>(
        &self,
        op: &'static str,
        arguments: &[u64],
        payload: &[u8],
        body: impl FnOnce(&mut State) -> Result<T>,
        number: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let fresh = |state: &mut State| {
            if state.power_cuts != self.power_cuts {
                let stale = DeviceError::new(DeviceErrorKind::Latched, op, &self.path());
                return Err(stale.with_detail("the power was cut since it was opened"));
            }
            body(state)
        };
        self.device.call((op, &self.path(), arguments, payload), fresh, number)
    }

    fn check_writable(&self, op: &'static str) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(DeviceError::new(DeviceErrorKind::PermissionDenied, op, &self.path()).with_detail("opened for reads"))
    }

    fn invalid(&self, op: &'static str, detail: String) -> DeviceError {
        DeviceError::new(DeviceErrorKind::InvalidRange, op, &self.path()).with_detail(detail)
    }

    fn check_write(&self, position: u64, available: usize, length: usize) -> Result<()> {
        self.check_writable("write")?;
        let prepared = self.node.images.lock().written().length();
        let aligned = position.is_multiple_of(BLOCK) && (length as u64).is_multiple_of(BLOCK);
        let inside = position.checked_add(length as u64).is_some_and(|end| end <= prepared);
        if aligned && inside && length <= available {
            return Ok(());
        }
        let detail = format!("{length} bytes at {position} of a buffer of {available}, prepared up to {prepared}");
        Err(self.invalid("write", detail))
    }
}

impl DeviceFile for MemoryFile {
    fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    fn length(&self) -> Result<u64> {
        let body = |state: &mut State| {
            state.look("length", &self.path())?;
            Ok(self.node.images.lock().written().length())
        };
        self.call("length", &[], &[], body, |&length| length)
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let wanted = buffer.len() as u64;
        let body = |state: &mut State| {
            let count = state.read(&self.path(), &self.node, position, buffer)?;
            Ok((count, digest(&buffer[..count])))
        };
        let answer = self.call("read", &[position, wanted], &[], body, |&(_, digest)| digest);
        answer.map(|(count, _)| count)
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()> {
        let body = |state: &mut State| {
            self.check_write(position, buffer.capacity_bytes(), length)?;
            let bytes = &buffer.as_slice()[..length];
            state.write(&self.path(), &self.node, position, bytes, sync)
        };
        let payload = &buffer.as_slice()[..length.min(buffer.capacity_bytes())];
        self.call("write", &[position, sync as u64], payload, body, |()| 0)
    }

    fn sync(&self) -> Result<()> {
        let body = |state: &mut State| state.sync("sync", &self.path(), &self.node);
        self.call("sync", &[], &[], body, |()| 0)
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        let body = |state: &mut State| {
            self.check_writable("prepare")?;
            if from > to || !from.is_multiple_of(BLOCK) || !to.is_multiple_of(BLOCK) {
                return Err(self.invalid("prepare", format!("{from}..{to}")));
            }
            state.prepare(&self.path(), &self.node, from, to)
        };
        self.call("prepare", &[from, to], &[], body, |()| 0)
    }

    /// The same here: zeroes take no memory, and no write is dearer than another.
    fn allocate(&self, from: u64, to: u64) -> Result<bool> {
        self.prepare(from, to).map(|()| true)
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        Ok(false)
    }

    fn renamed(&self, to: &Path) {
        *self.path.write() = to.to_path_buf();
    }

    fn set_length(&self, length: u64) -> Result<()> {
        let body = |state: &mut State| {
            self.check_writable("set_length")?;
            state.set_length(&self.path(), &self.node, length)
        };
        self.call("set_length", &[length], &[], body, |()| 0)
    }
}

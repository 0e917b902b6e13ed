//! The device that writes down.

use super::content::Change;
use super::history::{History, Name, Node, Op};
use crate::buffers::AlignedBuffer;
use crate::device::{Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
use crate::lock::Mutex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A device that writes down every change. Clones share the history.
///
/// It starts with an empty directory: files that were there before it are not known to it, and opening one is an error
/// of its user, who panics.
#[derive(Clone)]
pub struct RecordDevice {
    base: Arc<dyn Device>,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    history: History,
    /// The file that each name stands for now.
    names: BTreeMap<Arc<Path>, Node>,
    next_node: Node,
}

impl Notes {
    fn take_node(&mut self) -> Node {
        self.next_node += 1;
        self.next_node
    }
}

impl RecordDevice {
    /// Records what goes through to `base`.
    pub fn new(base: Arc<dyn Device>) -> Self {
        Self { base, notes: Arc::default() }
    }

    /// Notes that the user of the device knows something from this moment on.
    pub fn mark(&self, mark: u64) {
        self.notes.lock().history.mark(mark);
    }

    /// Everything so far.
    pub fn history(&self) -> History {
        self.notes.lock().history.clone()
    }

    /// Notes begin and end of a change of names around the call.
    fn name<T>(&self, name: Name, call: impl FnOnce(&dyn Device) -> Result<T>) -> Result<T> {
        self.noted(Op::Name(name.clone()), call, |notes| match name {
            Name::File { node, path } => {
                notes.names.insert(path, node);
            }
            Name::Rename { node, from, to } => {
                notes.names.remove(&from);
                notes.names.insert(to, node);
            }
            Name::Remove { path, .. } => {
                notes.names.remove(&path);
            }
            Name::RemoveDirectory { path } => notes.names.retain(|file, _| !file.starts_with(&path)),
            Name::Directory { .. } => {}
        })
    }

    fn noted<T>(
        &self,
        op: Op,
        call: impl FnOnce(&dyn Device) -> Result<T>,
        then: impl FnOnce(&mut Notes),
    ) -> Result<T> {
        let begun = self.notes.lock().history.begin(op);
        let answer = call(&*self.base)?;
        let mut notes = self.notes.lock();
        then(&mut notes);
        notes.history.end(begun);
        Ok(answer)
    }

    fn node_of(&self, path: &Path) -> Option<Node> {
        self.notes.lock().names.get(path).copied()
    }
}

impl Device for RecordDevice {
    fn kind(&self) -> DeviceKind {
        self.base.kind()
    }

    fn describe(&self) -> String {
        format!("recorded: {}", self.base.describe())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        if mode != OpenMode::Create {
            let base = self.base.open(path, mode)?;
            let node = self.node_of(path).expect("the file was there before the recording");
            return Ok(Arc::new(RecordFile { base, node, device: self.clone() }));
        }
        let node = self.notes.lock().take_node();
        let base = self.name(Name::File { node, path: path.into() }, |device| device.open(path, mode))?;
        Ok(Arc::new(RecordFile { base, node, device: self.clone() }))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        self.base.read_small(path, limit_bytes)
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let node = self.notes.lock().take_node();
        let op = Op::Small { node, path: path.into(), bytes: bytes.into() };
        self.noted(
            op,
            |device| device.write_small(path, bytes),
            |notes| {
                notes.names.insert(path.into(), node);
            },
        )
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.base.list(directory)
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        self.base.length(path)
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        if self.base.list(directory).is_ok() {
            return self.base.create_directory(directory);
        }
        self.name(Name::Directory { path: directory.into() }, |device| device.create_directory(directory))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        match self.node_of(from) {
            Some(node) => {
                self.name(Name::Rename { node, from: from.into(), to: to.into() }, |device| device.rename(from, to))
            }
            None => self.base.rename(from, to),
        }
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        match self.node_of(path) {
            Some(node) => self.name(Name::Remove { node, path: path.into() }, |device| device.remove(path)),
            None => self.base.remove(path),
        }
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        self.name(Name::RemoveDirectory { path: path.into() }, |device| device.remove_directory(path))
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        let op = Op::SyncDirectory { directory: directory.into() };
        self.noted(op, |device| device.sync_directory(directory), |_| {})
    }

    fn lock(&self, path: &Path) -> Result<DeviceLock> {
        self.base.lock(path)
    }
}

struct RecordFile {
    base: Arc<dyn DeviceFile>,
    node: Node,
    device: RecordDevice,
}

impl RecordFile {
    fn noted(&self, op: Op, call: impl FnOnce(&dyn DeviceFile) -> Result<()>) -> Result<()> {
        self.device.noted(op, |_| call(&*self.base), |_| {})
    }

    fn change(&self, change: Change, synced: bool, call: impl FnOnce(&dyn DeviceFile) -> Result<()>) -> Result<()> {
        self.noted(Op::Change { node: self.node, change, synced }, call)
    }
}

impl DeviceFile for RecordFile {
    fn path(&self) -> PathBuf {
        self.base.path()
    }

    fn length(&self) -> Result<u64> {
        self.base.length()
    }

    fn read(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.base.read(position, buffer)
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.base.read_some(position, buffer)
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()> {
        let bytes = buffer.as_slice()[..length].into();
        let write = |file: &dyn DeviceFile| file.write(position, buffer, length, sync);
        self.change(Change::Write { position, bytes }, sync == Sync::Data, write)
    }

    fn sync(&self) -> Result<()> {
        self.noted(Op::Sync { node: self.node }, |file| file.sync())
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        self.change(Change::Zero { from, to }, true, |file| file.prepare(from, to))
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        self.base.is_linked_elsewhere()
    }

    fn renamed(&self, to: &Path) {
        self.base.renamed(to);
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.change(Change::Length(length), false, |file| file.set_length(length))
    }
}

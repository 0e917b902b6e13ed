//! A device whose changes nobody else sees: what the base has shows through, everything written stays in memory.
//!
//! For commands that must run the real recovery and change nothing, perhaps beside a living engine: no lock is taken on
//! the base, and of its files only the changed blocks and the lengths are held here. A file's length is the base's at
//! the moment when it was first opened; bytes that the base has lost since read as zeroes.

mod file;
#[cfg(test)]
mod tests;

use crate::device::{Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::lock::Mutex;
use file::{OverlayFile, OverlayNode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What stands at a path instead of what the base has there and below.
#[derive(Clone)]
enum Change {
    /// Nothing.
    Removed,
    /// A directory that has only what other changes put there.
    Directory,
    /// A file, perhaps with bytes of a base file under it.
    File(Arc<OverlayNode>),
}

type Changes = BTreeMap<PathBuf, Change>;

/// A copy-on-write view of another device.
pub struct OverlayDevice {
    base: Arc<dyn Device>,
    changes: Mutex<Changes>,
}

impl OverlayDevice {
    /// A view of `base` without changes yet.
    pub fn new(base: Arc<dyn Device>) -> Self {
        Self { base, changes: Mutex::default() }
    }

    /// What was decided here about the path; `None` leaves it to the base.
    fn decided(changes: &Changes, path: &Path) -> Option<Change> {
        if let Some(change) = changes.get(path) {
            return Some(change.clone());
        }
        let above = path.ancestors().skip(1).find_map(|path| changes.get(path));
        above.map(|_| Change::Removed)
    }

    /// The file at the path as one that may be changed; one of the base is entered as a change without any.
    fn node(&self, changes: &mut Changes, op: &'static str, path: &Path) -> Result<Option<Arc<OverlayNode>>> {
        match Self::decided(changes, path) {
            Some(Change::File(node)) => Ok(Some(node)),
            Some(Change::Directory) => Err(error(DeviceErrorKind::IsADirectory, op, path)),
            Some(Change::Removed) => Ok(None),
            None if self.base.length(path)?.is_none() => Ok(None),
            None => {
                let node = Arc::new(OverlayNode::over(self.base.open(path, OpenMode::Read)?)?);
                changes.insert(path.to_path_buf(), Change::File(node.clone()));
                Ok(Some(node))
            }
        }
    }

    fn is_directory(&self, changes: &Changes, path: &Path) -> Result<bool> {
        match Self::decided(changes, path) {
            Some(change) => Ok(matches!(change, Change::Directory)),
            None => self.base_is_directory(path),
        }
    }

    fn base_is_directory(&self, path: &Path) -> Result<bool> {
        match self.base.length(path) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == DeviceErrorKind::IsADirectory => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn check_parent(&self, changes: &Changes, op: &'static str, path: &Path) -> Result<()> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() && !self.is_directory(changes, parent)? => {
                Err(error(DeviceErrorKind::NotFound, op, parent))
            }
            _ => Ok(()),
        }
    }

    fn list_merged(&self, changes: &Changes, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        let decided = Self::decided(changes, directory);
        let base = match decided {
            None => self.base.list(directory)?,
            Some(Change::Directory) => Vec::new(),
            Some(_) => return Err(error(DeviceErrorKind::NotFound, "list", directory)),
        };
        let mut entries: BTreeMap<String, DirectoryEntry> =
            base.into_iter().map(|entry| (entry.name.clone(), entry)).collect();
        let below = changes.range(directory.to_path_buf()..);
        for (path, change) in below.take_while(|(path, _)| path.starts_with(directory)) {
            let Some(name) = child_of(path, directory) else {
                continue;
            };
            let (length_bytes, is_directory, modified_ms) = match change {
                Change::Removed => {
                    entries.remove(&name);
                    continue;
                }
                Change::Directory => (0, true, 0),
                // The base's time stays on a file that it has under this name.
                Change::File(node) => {
                    (node.length(), false, entries.get(&name).map_or(i64::MAX, |entry| entry.modified_ms))
                }
            };
            let entry = DirectoryEntry { name: name.clone(), length_bytes, is_directory, modified_ms };
            entries.insert(name, entry);
        }
        Ok(entries.into_values().collect())
    }

    /// Enters every file of a directory under its new name.
    fn move_directory(&self, changes: &mut Changes, from: &Path, to: &Path) -> Result<()> {
        let entries = self.list_merged(changes, from)?;
        changes.insert(to.to_path_buf(), Change::Directory);
        for entry in entries {
            let (from, to) = (from.join(&entry.name), to.join(&entry.name));
            if entry.is_directory {
                self.move_directory(changes, &from, &to)?;
            } else if let Some(node) = self.node(changes, "rename", &from)? {
                changes.insert(to, Change::File(node));
            }
        }
        remove_below(changes, from);
        changes.insert(from.to_path_buf(), Change::Removed);
        Ok(())
    }
}

impl Device for OverlayDevice {
    fn kind(&self) -> DeviceKind {
        self.base.kind()
    }

    fn describe(&self) -> String {
        format!("changes in memory over {}", self.base.describe())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        let path = &clean(path);
        let mut changes = self.changes.lock();
        let node = if mode == OpenMode::Create {
            self.check_parent(&changes, "open", path)?;
            if self.is_directory(&changes, path)? || self.node(&mut changes, "open", path)?.is_some() {
                return Err(error(DeviceErrorKind::AlreadyExists, "open", path));
            }
            let node = Arc::new(OverlayNode::default());
            changes.insert(path.to_path_buf(), Change::File(node.clone()));
            node
        } else {
            let node = self.node(&mut changes, "open", path)?;
            node.ok_or_else(|| error(DeviceErrorKind::NotFound, "open", path))?
        };
        Ok(Arc::new(OverlayFile::new(path, node, mode != OpenMode::Read)))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        let path = &clean(path);
        match Self::decided(&self.changes.lock(), path) {
            None => self.base.read_small(path, limit_bytes),
            Some(Change::Removed) => Ok(None),
            Some(Change::Directory) => Err(error(DeviceErrorKind::IsADirectory, "read_small", path)),
            Some(Change::File(node)) => match node.length() {
                length if length > limit_bytes => Err(DeviceError::too_large("read_small", path, length, limit_bytes)),
                _ => node.to_vec().map(Some),
            },
        }
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let path = &clean(path);
        let mut changes = self.changes.lock();
        self.check_parent(&changes, "write_small", path)?;
        if self.is_directory(&changes, path)? {
            return Err(error(DeviceErrorKind::IsADirectory, "write_small", path));
        }
        changes.insert(path.to_path_buf(), Change::File(Arc::new(OverlayNode::of(bytes))));
        Ok(())
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.list_merged(&self.changes.lock(), &clean(directory))
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        let path = &clean(path);
        match Self::decided(&self.changes.lock(), path) {
            None => self.base.length(path),
            Some(Change::Removed) => Ok(None),
            Some(Change::Directory) => Err(error(DeviceErrorKind::IsADirectory, "length", path)),
            Some(Change::File(node)) => Ok(Some(node.length())),
        }
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        let directory = &clean(directory);
        let mut changes = self.changes.lock();
        let mut above: Vec<&Path> = directory.ancestors().collect();
        above.reverse();
        for path in above.into_iter().filter(|path| !path.as_os_str().is_empty()) {
            if self.is_directory(&changes, path)? {
                continue;
            }
            let is_file = match Self::decided(&changes, path) {
                Some(change) => matches!(change, Change::File(_)),
                None => self.base.length(path)?.is_some(),
            };
            if is_file {
                return Err(error(DeviceErrorKind::AlreadyExists, "create_directory", path));
            }
            changes.insert(path.to_path_buf(), Change::Directory);
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (&clean(from), &clean(to));
        let mut changes = self.changes.lock();
        if from == to {
            return Ok(());
        }
        self.check_parent(&changes, "rename", to)?;
        let to_directory = self.is_directory(&changes, to)?;
        if self.is_directory(&changes, from)? {
            let taken = match to_directory {
                true => !self.list_merged(&changes, to)?.is_empty(),
                false => self.node(&mut changes, "rename", to)?.is_some(),
            };
            if taken {
                return Err(error(DeviceErrorKind::AlreadyExists, "rename", to));
            }
            if to.starts_with(from) {
                return Err(error(DeviceErrorKind::InvalidRange, "rename", to).with_detail("inside itself"));
            }
            return self.move_directory(&mut changes, from, to);
        }
        if to_directory {
            return Err(error(DeviceErrorKind::IsADirectory, "rename", to));
        }
        let node = self.node(&mut changes, "rename", from)?;
        let node = node.ok_or_else(|| error(DeviceErrorKind::NotFound, "rename", from))?;
        changes.insert(from.to_path_buf(), Change::Removed);
        changes.insert(to.to_path_buf(), Change::File(node));
        Ok(())
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        let path = &clean(path);
        let mut changes = self.changes.lock();
        let there = match Self::decided(&changes, path) {
            None => self.base.length(path)?.is_some(),
            Some(Change::Removed) => false,
            Some(Change::Directory) => {
                return Err(error(DeviceErrorKind::IsADirectory, "remove", path));
            }
            Some(Change::File(_)) => true,
        };
        if there {
            changes.insert(path.to_path_buf(), Change::Removed);
        }
        Ok(there)
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        let path = &clean(path);
        let mut changes = self.changes.lock();
        if !self.is_directory(&changes, path)? {
            let file = self.node(&mut changes, "remove_directory", path)?;
            return match file {
                Some(_) => Err(error(DeviceErrorKind::AlreadyExists, "remove_directory", path)),
                None => Ok(false),
            };
        }
        remove_below(&mut changes, path);
        changes.insert(path.to_path_buf(), Change::Removed);
        Ok(true)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        let directory = &clean(directory);
        match directory.as_os_str().is_empty() || self.is_directory(&self.changes.lock(), directory)? {
            true => Ok(()),
            false => Err(error(DeviceErrorKind::NotFound, "sync_directory", directory)),
        }
    }

    /// Always free: there is nobody to keep out of this process's memory.
    fn lock(&self, _path: &Path) -> Result<DeviceLock> {
        Ok(DeviceLock::new(()))
    }
}

/// The path without `.` and trailing separators, so that equal paths compare equal.
fn clean(path: &Path) -> PathBuf {
    path.components().collect()
}

fn child_of(path: &Path, directory: &Path) -> Option<String> {
    let direct = path.parent() == Some(directory);
    let name = path.file_name().filter(|_| direct)?;
    Some(name.to_string_lossy().into_owned())
}

fn remove_below(changes: &mut Changes, directory: &Path) {
    changes.retain(|path, _| !path.starts_with(directory));
}

fn error(kind: DeviceErrorKind, op: &'static str, path: &Path) -> DeviceError {
    DeviceError::new(kind, op, path)
}

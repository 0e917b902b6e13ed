//! The names of all files, twice: what a living process sees, and what a power cut would leave.
//!
//! A name that is not synced is an operation in one list, in order. Syncing a directory carries out those that put a
//! name into it; a name that left it for a directory not yet synced is then in neither, as promise 4 allows.
//! A rename is never half done otherwise.

use super::file::FileImages;
use crate::device::Result;
use crate::error::{DeviceError, DeviceErrorKind};
use crate::fault::chance::{below, mix2};
use crate::lock::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// A file, whatever its name.
#[derive(Debug)]
pub(crate) struct FileNode {
    number: u64,
    pub(crate) images: Mutex<FileImages>,
}

impl FileNode {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub(crate) enum Entry {
    File(Arc<FileNode>),
    Directory(u64),
}

impl Entry {
    fn number(&self) -> u64 {
        match self {
            Self::File(node) => node.number,
            Self::Directory(number) => *number,
        }
    }
}

type Names = BTreeMap<String, Entry>;

/// A name in the directory of that number.
type Place = (u64, String);

#[derive(Debug, Default)]
struct Directory {
    written: Names,
    durable: Names,
}

/// Created (`to` alone), renamed (both) or removed (`from` alone), not durable yet.
#[derive(Debug)]
struct NameChange {
    entry: Entry,
    from: Option<Place>,
    to: Option<Place>,
    /// The sync of the directory that it left, or came into, has failed.
    failed: (bool, bool),
}

const ROOT: u64 = 0;

/// All directories, and what of their names is not durable.
#[derive(Debug)]
pub(crate) struct Tree {
    directories: BTreeMap<u64, Directory>,
    changes: Vec<NameChange>,
    next_number: u64,
}

impl Default for Tree {
    fn default() -> Self {
        Self { directories: BTreeMap::from([(ROOT, Directory::default())]), changes: Vec::new(), next_number: ROOT + 1 }
    }
}

impl Tree {
    /// What stands at the path now.
    pub(crate) fn find(&self, op: &'static str, path: &Path) -> Result<Option<Entry>> {
        let mut here = Entry::Directory(ROOT);
        for name in names_of(op, path)? {
            let Entry::Directory(number) = here else {
                return Ok(None);
            };
            match self.directories[&number].written.get(&name) {
                Some(entry) => here = entry.clone(),
                None => return Ok(None),
            }
        }
        Ok(Some(here))
    }

    /// Where the file of this number stands now.
    pub(crate) fn path_of(&self, wanted: u64) -> Option<PathBuf> {
        let mut open = vec![(ROOT, PathBuf::from("/"))];
        while let Some((directory, path)) = open.pop() {
            for (name, entry) in &self.directories[&directory].written {
                match entry {
                    Entry::File(node) if node.number == wanted => return Some(path.join(name)),
                    Entry::File(_) => {}
                    Entry::Directory(number) => open.push((*number, path.join(name))),
                }
            }
        }
        None
    }

    /// The file at the path; a directory there is an error.
    pub(crate) fn file(&self, op: &'static str, path: &Path) -> Result<Option<Arc<FileNode>>> {
        match self.find(op, path)? {
            Some(Entry::File(node)) => Ok(Some(node)),
            Some(Entry::Directory(_)) => Err(error(DeviceErrorKind::IsADirectory, op, path)),
            None => Ok(None),
        }
    }

    /// Names and entries of a directory, sorted.
    pub(crate) fn list(&self, op: &'static str, path: &Path) -> Result<Vec<(String, Entry)>> {
        let number = self.directory(op, path)?;
        let names = &self.directories[&number].written;
        Ok(names.iter().map(|(name, entry)| (name.clone(), entry.clone())).collect())
    }

    /// A new empty file under a free name or instead of the file there.
    pub(crate) fn create_file(&mut self, op: &'static str, path: &Path, images: FileImages) -> Result<Arc<FileNode>> {
        self.file(op, path)?;
        let place = self.place(op, path)?;
        let node = Arc::new(FileNode { number: self.take_number(), images: Mutex::new(images) });
        self.change(Entry::File(node.clone()), None, Some(place));
        Ok(node)
    }

    /// A directory and its parents.
    pub(crate) fn create_directory(&mut self, op: &'static str, path: &Path) -> Result<()> {
        let mut here = ROOT;
        for name in names_of(op, path)? {
            here = match self.directories[&here].written.get(&name) {
                Some(Entry::Directory(number)) => *number,
                Some(Entry::File(_)) => {
                    return Err(error(DeviceErrorKind::AlreadyExists, op, path));
                }
                None => {
                    let number = self.take_number();
                    self.directories.insert(number, Directory::default());
                    self.change(Entry::Directory(number), None, Some((here, name)));
                    number
                }
            };
        }
        Ok(())
    }

    /// Moves a file or directory over a file, an empty directory or a free name.
    pub(crate) fn rename(&mut self, op: &'static str, from: &Path, to: &Path) -> Result<()> {
        let missing = || error(DeviceErrorKind::NotFound, op, from);
        let entry = self.find(op, from)?.ok_or_else(missing)?;
        let places = (self.place(op, from)?, self.place(op, to)?);
        if places.0 == places.1 {
            return Ok(());
        }
        match (&entry, self.find(op, to)?) {
            (_, None) | (Entry::File(_), Some(Entry::File(_))) => {}
            (Entry::Directory(_), Some(Entry::Directory(number))) if self.directories[&number].written.is_empty() => {}
            (_, Some(Entry::Directory(_))) => {
                return Err(error(DeviceErrorKind::IsADirectory, op, to));
            }
            (_, Some(Entry::File(_))) => return Err(error(DeviceErrorKind::AlreadyExists, op, to)),
        }
        if names_of(op, to)?.starts_with(&names_of(op, from)?) {
            return Err(error(DeviceErrorKind::InvalidRange, op, to).with_detail("inside itself"));
        }
        self.change(entry, Some(places.0), Some(places.1));
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn remove(&mut self, op: &'static str, path: &Path) -> Result<bool> {
        let Some(node) = self.file(op, path)? else {
            return Ok(false);
        };
        let place = self.place(op, path)?;
        self.change(Entry::File(node), Some(place), None);
        Ok(true)
    }

    /// Removes a directory with all that is in it.
    pub(crate) fn remove_directory(&mut self, op: &'static str, path: &Path) -> Result<bool> {
        match self.find(op, path)? {
            None => return Ok(false),
            Some(Entry::File(_)) => return Err(error(DeviceErrorKind::AlreadyExists, op, path)),
            Some(Entry::Directory(ROOT)) => {
                return Err(error(DeviceErrorKind::PermissionDenied, op, path));
            }
            Some(Entry::Directory(_)) => {}
        }
        for (name, entry) in self.list(op, path)? {
            match entry {
                Entry::File(_) => self.remove(op, &path.join(name))?,
                Entry::Directory(_) => self.remove_directory(op, &path.join(name))?,
            };
        }
        let entry = Entry::Directory(self.directory(op, path)?);
        let place = self.place(op, path)?;
        self.change(entry, Some(place), None);
        Ok(true)
    }

    /// Makes the directory's names survive the loss of power, except those that an earlier failed sync left behind.
    pub(crate) fn sync_directory(&mut self, op: &'static str, path: &Path) -> Result<()> {
        let synced = self.directory(op, path)?;
        let mut open: Vec<NameChange> = Vec::new();
        for mut change in std::mem::take(&mut self.changes) {
            let into = is_in(change.to.as_ref(), synced) && !change.failed.1;
            if !into && (change.failed.0 || !is_in(change.from.as_ref(), synced)) {
                open.push(change);
                continue;
            }
            // What the same thing was called before has been overtaken.
            let number = change.entry.number();
            let earlier = open.extract_if(.., |other| other.entry.number() == number);
            let left: Vec<Place> = earlier.filter_map(|other| other.from).chain(change.from.take()).collect();
            for place in left {
                self.forget(&place, number);
            }
            match change.to.take() {
                Some(place) if into => {
                    // Nor does what a failed sync left behind come back under this name (promise 4).
                    open.iter_mut().filter(|other| other.to.as_ref() == Some(&place)).for_each(|other| other.to = None);
                    self.bind(place, change.entry);
                }
                Some(place) => open.push(NameChange { to: Some(place), ..change }),
                None => {}
            }
        }
        self.changes = open;
        Ok(())
    }

    /// A sync of the directory failed: no later one speaks for what was open.
    pub(crate) fn fail_sync(&mut self, op: &'static str, path: &Path) -> Result<()> {
        let failed = self.directory(op, path)?;
        for change in &mut self.changes {
            change.failed.0 |= is_in(change.from.as_ref(), failed);
            change.failed.1 |= is_in(change.to.as_ref(), failed);
        }
        Ok(())
    }

    /// Loses the power: `seed` says which open changes survive; every surviving file loses its own part.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        let changes = std::mem::take(&mut self.changes);
        let keep = kept_names(seed, changes.len());
        for (change, _) in changes.into_iter().zip(keep).filter(|(_, keep)| *keep) {
            let number = change.entry.number();
            if let Some(place) = &change.from
                && !self.forget(place, number)
            {
                continue;
            }
            if let Some(place) = change.to {
                self.bind(place, change.entry);
            }
        }
        let mut reached = BTreeSet::new();
        let mut next = vec![ROOT];
        while let Some(number) = next.pop() {
            if !reached.insert(number) {
                continue;
            }
            for entry in self.directories[&number].durable.values() {
                match entry {
                    Entry::File(node) => node.images.lock().power_cut(seed),
                    Entry::Directory(number) => next.push(*number),
                }
            }
        }
        self.directories.retain(|number, _| reached.contains(number));
        for directory in self.directories.values_mut() {
            directory.written = directory.durable.clone();
        }
    }

    /// Sum of the lengths of all files, in whole blocks.
    pub(crate) fn used_bytes(&self) -> u64 {
        let names = self.directories.values().flat_map(|directory| directory.written.values());
        names
            .map(|entry| match entry {
                Entry::File(node) => super::whole_blocks(node.images.lock().written().length()),
                Entry::Directory(_) => 0,
            })
            .sum()
    }

    /// Carries out a change for the living and remembers it as open.
    fn change(&mut self, entry: Entry, from: Option<Place>, to: Option<Place>) {
        if let Some((number, name)) = &from
            && let Some(directory) = self.directories.get_mut(number)
        {
            directory.written.remove(name);
        }
        if let Some((number, name)) = &to
            && let Some(directory) = self.directories.get_mut(number)
        {
            directory.written.insert(name.clone(), entry.clone());
        }
        self.changes.push(NameChange { entry, from, to, failed: (false, false) });
    }

    fn bind(&mut self, (number, name): Place, entry: Entry) {
        if let Some(directory) = self.directories.get_mut(&number) {
            directory.durable.insert(name, entry);
        }
    }

    /// Whether the durable name stood for that thing and is gone now.
    fn forget(&mut self, (number, name): &Place, thing: u64) -> bool {
        let Some(directory) = self.directories.get_mut(number) else {
            return false;
        };
        let stands = directory.durable.get(name).is_some_and(|entry| entry.number() == thing);
        if stands {
            directory.durable.remove(name);
        }
        stands
    }

    fn directory(&self, op: &'static str, path: &Path) -> Result<u64> {
        match self.find(op, path)? {
            Some(Entry::Directory(number)) => Ok(number),
            _ => Err(error(DeviceErrorKind::NotFound, op, path)),
        }
    }

    fn place(&self, op: &'static str, path: &Path) -> Result<Place> {
        let mut names = names_of(op, path)?;
        let name = names.pop().ok_or_else(|| error(DeviceErrorKind::IsADirectory, op, path))?;
        let parent: std::path::PathBuf = names.iter().collect();
        Ok((self.directory(op, &parent)?, name))
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number - 1
    }
}

fn is_in(place: Option<&Place>, directory: u64) -> bool {
    place.is_some_and(|(number, _)| *number == directory)
}

/// Which of `count` open changes survive: none, all, the first ones (a journal), or any (promise 5).
fn kept_names(seed: u64, count: usize) -> Vec<bool> {
    let draw = |index: usize| mix2(mix2(seed, 0x6e61_6d65), index as u64);
    let first = below(draw(usize::MAX - 1), count as u64 + 1) as usize;
    let mode = below(draw(usize::MAX), 6);
    let keep = |index: usize| match mode {
        0 => false,
        1 => true,
        2 | 3 => index < first,
        _ => draw(index) & 1 == 1,
    };
    (0..count).map(keep).collect()
}

/// The names from the root to the path; relative paths start at the root too.
pub(crate) fn names_of(op: &'static str, path: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => {
                let name = name.to_str().ok_or_else(|| {
                    error(DeviceErrorKind::Unsupported, op, path).with_detail("a name that is not UTF-8")
                })?;
                names.push(name.to_owned());
            }
            Component::ParentDir => {
                names.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(names)
}

fn error(kind: DeviceErrorKind, op: &'static str, path: &Path) -> DeviceError {
    DeviceError::new(kind, op, path)
}

//! A disk as a power cut left it.

use super::content::Content;
use crate::device::{Device, Result};
use crate::memory::MemoryDevice;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All directories and files that are left, by the paths of the recorded device.
#[derive(Clone, Debug)]
pub struct Disk {
    pub(super) directories: Arc<BTreeSet<PathBuf>>,
    pub(super) files: BTreeMap<Arc<Path>, Arc<Content>>,
}

impl Disk {
    /// Equal for equal disks.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.directories.hash(&mut hasher);
        self.files.iter().for_each(|(path, content)| (path, content.hash()).hash(&mut hasher));
        hasher.finish()
    }

    /// A disk in memory that holds this.
    pub fn in_memory(&self) -> Result<MemoryDevice> {
        let device = MemoryDevice::new();
        self.directories.iter().try_for_each(|directory| device.create_directory(directory))?;
        self.files.iter().try_for_each(|(path, content)| device.put(path, &content.to_vec()))?;
        Ok(device)
    }

    /// Writes what lay below `from` into the directory `to` of this machine.
    pub fn write_below(&self, from: &Path, to: &Path) -> io::Result<()> {
        let place = |path: &Path| path.strip_prefix(from).map(|inside| to.join(inside)).ok();
        for directory in self.directories.iter().filter_map(|directory| place(directory)) {
            std::fs::create_dir_all(directory)?;
        }
        for (path, content) in &self.files {
            let Some(path) = place(path) else { continue };
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, content.to_vec())?;
        }
        Ok(())
    }

    /// Names and lengths of the files, for a report.
    pub fn names(&self) -> Vec<String> {
        self.files.iter().map(|(path, content)| format!("{} {}", path.display(), content.to_vec().len())).collect()
    }
}

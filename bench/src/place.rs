//! Where the measured files live: on a disk, in a folder that goes away again.

use rustix::fs::{StatVfs, fstatvfs, statfs};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

use crate::Failure;

const PREFIX: &str = "oncelog-bench-";

/// Kept free besides what a run needs.
const SPARE_BYTES: u64 = 1 << 30;

/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A folder of this process under the folder asked for.
pub(crate) struct Place {
    root: TempDir,
}

/// A folder for one run; removed when dropped.
pub(crate) struct Folder {
    dir: TempDir,
}

impl Place {
    /// `dir`: as asked for, else the current folder, which then must be on a disk.
    pub(crate) fn new(dir: Option<&Path>) -> Result<Self, Failure> {
        let parent = dir.unwrap_or(Path::new("."));
        let named = |error: std::io::Error| format!("{}: {error}", parent.display());
        let parent = parent.canonicalize().map_err(named)?;
        if in_memory(&parent) {
            let what = format!("{} is in memory: nothing there reaches a disk", parent.display());
            match dir {
                None => return Err(format!("{what}; name a folder on a disk with --dir").into()),
                Some(_) => eprintln!("oncelog-bench: {what}; the figures say nothing about durability"),
            }
        }
        remove_abandoned(&parent);
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let root = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent).map_err(named)?;
        let doomed = root.path().to_owned();
        ctrlc::set_handler(move || {
            let _best_effort = fs::remove_dir_all(&doomed);
            std::process::exit(130);
        })?;
        Ok(Self { root })
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn folder(&self, need_bytes: u64) -> Result<Folder, Failure> {
        let free = free_bytes(self.path())?;
        if free < need_bytes + SPARE_BYTES {
            let (need, free) = ((need_bytes + SPARE_BYTES) >> 20, free >> 20);
            return Err(format!("{} has {free} MiB free, this needs {need} MiB", self.path().display()).into());
        }
        Ok(Folder { dir: tempfile::Builder::new().prefix("run-").tempdir_in(self.path())? })
    }
}

impl Folder {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Waits until nothing of what was written before is left for the disk to do.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        Ok(rustix::fs::syncfs(fs::File::open(self.path())?)?)
    }
}

fn free_bytes(path: &Path) -> Result<u64, Failure> {
    let StatVfs { f_bavail, f_frsize, .. } = fstatvfs(fs::File::open(path)?)?;
    Ok(f_bavail.saturating_mul(f_frsize))
}

fn in_memory(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type.cast_unsigned() == TMPFS_MAGIC)
}

/// Folders of runs that were killed: their process is gone.
fn remove_abandoned(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let process = path.file_name().and_then(|name| name.to_str()).and_then(process_of);
        if process.is_some_and(|id| !PathBuf::from(format!("/proc/{id}")).exists()) {
            let _best_effort = fs::remove_dir_all(&path);
        }
    }
}

fn process_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_folders_of_processes_that_are_gone_are_removed() {
        let parent = tempfile::tempdir().unwrap();
        let names = [format!("{PREFIX}{}-x", std::process::id()), format!("{PREFIX}4294967294-x"), "other-1-x".into()];
        for name in &names {
            fs::create_dir(parent.path().join(name)).unwrap();
        }
        remove_abandoned(parent.path());
        let there: Vec<_> = names.iter().map(|name| parent.path().join(name).exists()).collect();
        assert_eq!(there, [true, false, true]);
    }
}

//! Whole directories from the host into memory and back, for stories about files that somebody else wrote.

use super::MemoryDevice;
use super::blocks::{BLOCK, Blocks, shared_block};
use super::names::Entry;
use crate::device::{BLOCK_BYTES, Result};
use crate::error::DeviceError;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

impl MemoryDevice {
    /// Copies a directory of the host with all below it to the same path in here, as something that survives the loss
    /// of power. Links are followed; what is neither file nor directory is left out.
    pub fn load_directory(&self, path: &Path) -> Result<()> {
        self.load_directory_as(path, path)
    }

    /// As [`MemoryDevice::load_directory`], to another path.
    pub fn load_directory_as(&self, host: &Path, inside: &Path) -> Result<()> {
        let failed = |source| DeviceError::io("load_directory", host, source);
        self.state.lock().put_directory(inside)?;
        let mut entries = std::fs::read_dir(host).map_err(failed)?.collect::<io::Result<Vec<_>>>().map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let (from, to) = (entry.path(), inside.join(entry.file_name()));
            let metadata = std::fs::metadata(&from).map_err(failed)?;
            if metadata.is_dir() {
                self.load_directory_as(&from, &to)?;
            } else if metadata.is_file() {
                let blocks = load_file(&from).map_err(|source| DeviceError::io("load_directory", &from, source))?;
                self.state.lock().put(&to, blocks)?;
            }
        }
        Ok(())
    }

    /// Copies a directory in here, as a living process sees it, to the same path of the host. Files that stand there
    /// under other names stay.
    pub fn store_directory(&self, path: &Path) -> Result<()> {
        self.store_directory_as(path, path)
    }

    /// As [`MemoryDevice::store_directory`], to another path.
    pub fn store_directory_as(&self, inside: &Path, host: &Path) -> Result<()> {
        let failed = |source| DeviceError::io("store_directory", host, source);
        let entries = self.state.lock().tree.list("store_directory", inside)?;
        std::fs::create_dir_all(host).map_err(failed)?;
        for (name, entry) in entries {
            let (from, to) = (inside.join(&name), host.join(&name));
            match entry {
                Entry::Directory(_) => self.store_directory_as(&from, &to)?,
                Entry::File(node) => store_file(&to, node.images.lock().written())
                    .map_err(|source| DeviceError::io("store_directory", &to, source))?,
            }
        }
        Ok(())
    }
}

/// Block by block: a prepared segment is long and mostly zeroes.
fn load_file(path: &Path) -> io::Result<Blocks> {
    let mut file = File::open(path)?;
    let mut blocks = Blocks::default();
    let mut piece = Vec::with_capacity(BLOCK_BYTES);
    for number in 0.. {
        piece.clear();
        if Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut piece)? == 0 {
            break;
        }
        blocks.set(number, shared_block(&piece));
        blocks.set_length(number * BLOCK + piece.len() as u64);
    }
    Ok(blocks)
}

fn store_file(path: &Path, blocks: &Blocks) -> io::Result<()> {
    let file = File::create(path)?;
    let length = blocks.length();
    file.set_len(length)?;
    for number in blocks.present(0..length.div_ceil(BLOCK)) {
        let start = number * BLOCK;
        let have = usize::try_from(length - start).map_or(BLOCK_BYTES, |have| have.min(BLOCK_BYTES));
        if let Some(block) = blocks.get(number) {
            file.write_all_at(&block[..have], start)?;
        }
    }
    Ok(())
}

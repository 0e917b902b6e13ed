//! The files that a script may look at and damage: those of the log's directory and the checkpoints beside it.
//!
//! On the host through `std::fs`, past the device on purpose: damage comes from outside. The memory device has no
//! outside but its own door past the faults.

use super::answer::{Refusal, Stop};
use oncelog_device::{Device, MemoryDevice};
use std::io;
use std::path::Path;

/// Where the files are.
#[derive(Clone)]
pub enum Place {
    /// On this machine.
    Host,
    /// In the memory of a device.
    Memory(MemoryDevice),
}

impl Place {
    /// All bytes, `None` where there is no such file.
    pub fn contents(&self, path: &Path) -> Result<Option<Vec<u8>>, Stop> {
        match self {
            Self::Host => match std::fs::read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(failed(path, &error)),
            },
            Self::Memory(device) => Ok(device.contents(path)?),
        }
    }

    /// Replaces the file, or makes it.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> Result<(), Stop> {
        match self {
            Self::Host => std::fs::write(path, bytes).map_err(|error| failed(path, &error)),
            Self::Memory(device) => Ok(device.put(path, bytes)?),
        }
    }

    /// Removes the file, if there is one.
    pub fn remove(&self, path: &Path) -> Result<(), Stop> {
        match self {
            Self::Host => match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &error)),
                _ => Ok(()),
            },
            Self::Memory(device) => {
                device.remove(path)?;
                Ok(())
            }
        }
    }
}

fn failed(path: &Path, error: &io::Error) -> Stop {
    Refusal::new("KAFKA_STORAGE_ERROR", format!("{}: {error}", path.display())).into()
}

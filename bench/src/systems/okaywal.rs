//! okaywal: one entry with one chunk for each batch.
//!
//! Its default file is 1 MiB, a dozen batches of 64 KiB; here it has 64 MiB.

use okaywal::{Configuration, LogVoid, WriteAheadLog};
use std::path::Path;

use super::System;
use crate::Failure;
use crate::batches::BatchSource;

pub(super) struct OkayWal {
    log: WriteAheadLog,
}

impl OkayWal {
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let config = Configuration::default_for(dir)
            .preallocate_bytes(64 << 20)
            .checkpoint_after_bytes(48 << 20)
            .buffer_bytes(128 << 10);
        Ok(Self { log: config.open(LogVoid)? })
    }
}

impl System for OkayWal {
    fn append(&self, _writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let mut entry = self.log.begin_entry()?;
        entry.write_chunk(batch)?;
        entry.commit()?;
        Ok(())
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.append(writer, batch)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Its only way to store without a sync: one entry of many chunks.
    fn bulk(&self, source: &mut BatchSource, count: u64) -> Result<(), Failure> {
        let mut entry = self.log.begin_entry()?;
        for _ in 0..count {
            entry.write_chunk(source.next())?;
        }
        entry.commit()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.log.shutdown()?)
    }
}

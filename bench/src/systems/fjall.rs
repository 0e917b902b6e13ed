//! fjall: a key of writer and number for each batch; its journal is what is synced.

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Plan, System};
use crate::Failure;

pub(super) struct Fjall {
    database: Database,
    keyspace: Keyspace,
    next: Vec<AtomicU64>,
}

impl Fjall {
    pub(super) fn open(dir: &Path, plan: &Plan) -> Result<Self, Failure> {
        let database = Database::builder(dir).open()?;
        let keyspace = database.keyspace("log", KeyspaceCreateOptions::default)?;
        Ok(Self { database, keyspace, next: (0..plan.writers).map(|_| AtomicU64::new(0)).collect() })
    }
}

impl System for Fjall {
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.accept(writer, batch)?;
        self.sync()
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let number = self.next[writer].fetch_add(1, Ordering::Relaxed);
        let mut key = [0; 12];
        key[..4].copy_from_slice(&(writer as u32).to_be_bytes());
        key[4..].copy_from_slice(&number.to_be_bytes());
        Ok(self.keyspace.insert(key, batch)?)
    }

    fn sync(&self) -> Result<(), Failure> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

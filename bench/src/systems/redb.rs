//! redb: a key of writer and number for each batch, one transaction each; its transactions follow one another.

use redb::{Database, Durability, TableDefinition};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Plan, System};
use crate::Failure;
use crate::batches::BatchSource;

const LOG: TableDefinition<'_, (u32, u64), &[u8]> = TableDefinition::new("log");

pub(super) struct Redb {
    database: Database,
    next: Vec<AtomicU64>,
}

impl Redb {
    pub(super) fn open(dir: &Path, plan: &Plan) -> Result<Self, Failure> {
        let database = Database::create(dir.join("log.redb"))?;
        Ok(Self { database, next: (0..plan.writers).map(|_| AtomicU64::new(0)).collect() })
    }

    fn write(
        &self,
        writer: usize,
        durability: Durability,
        mut batches: impl FnMut() -> Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(durability)?;
        {
            let mut table = transaction.open_table(LOG)?;
            while let Some(batch) = batches() {
                let number = self.next[writer].fetch_add(1, Ordering::Relaxed);
                table.insert((writer as u32, number), &batch[..])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

impl System for Redb {
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let mut once = Some(batch.to_vec());
        self.write(writer, Durability::Immediate, || once.take())
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        let mut once = Some(batch.to_vec());
        self.write(writer, Durability::None, || once.take())
    }

    fn sync(&self) -> Result<(), Failure> {
        self.write(0, Durability::Immediate, || None)
    }

    /// One transaction of many batches.
    fn bulk(&self, source: &mut BatchSource, count: u64) -> Result<(), Failure> {
        let mut left = count;
        self.write(0, Durability::Immediate, || {
            left = left.checked_sub(1)?;
            Some(source.next().to_vec())
        })
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

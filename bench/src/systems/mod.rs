//! What is measured: the engine on its devices, the leanest programs that write the same bytes, and other engines.

mod engine;
mod fjall;
mod okaywal;
mod raft_engine;
pub(crate) mod raw;
mod raw_bulk;
#[cfg(feature = "redb")]
mod redb;

use std::pin::Pin;

use crate::Failure;
use crate::batches::BatchSource;
use crate::place::Folder;

/// Everything that appends, in the order of tables.
pub(crate) const APPENDING: &[&str] = &[
    "oncelog",
    "oncelog-blocking",
    "raw-uring",
    "raw-pwritev2",
    "raft-engine",
    "raft-engine-prefilled",
    "okaywal",
    "fjall",
    #[cfg(feature = "redb")]
    "redb",
];

/// What a run will do, so that space is ready before it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// At most this much is written in all.
    pub(crate) bytes: u64,
    /// So many threads write.
    pub(crate) writers: usize,
    /// So many logs take turns: writer `n` writes to log `n % logs`.
    pub(crate) logs: usize,
    /// Size of a segment, where it is not the usual one.
    pub(crate) segment_bytes: Option<u64>,
    /// How much is kept of what was written.
    pub(crate) retention_bytes: Option<u64>,
}

impl Default for Plan {
    fn default() -> Self {
        Self { bytes: 0, writers: 1, logs: 1, segment_bytes: None, retention_bytes: None }
    }
}

/// An append on the way: to be called to wait for its answer.
pub(crate) type Pending<'a> = Box<dyn FnOnce() -> Result<(), Failure> + 'a>;

/// The same for a thread that does not wait.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Something that stores batches.
pub(crate) trait System: Sync {
    /// Stores one batch; it survives the loss of power when this returns.
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure>;

    /// Begins to store one batch; waiting for what it answers is as [`System::append`].
    fn submit<'a>(&'a self, _writer: usize, _batch: &[u8]) -> Result<Pending<'a>, Failure> {
        Err("has no tickets".into())
    }

    /// The same for a thread that does not wait.
    fn submit_future<'a>(&'a self, _writer: usize, _batch: &[u8]) -> Result<Answering<'a>, Failure> {
        Err("has no futures".into())
    }

    /// Stores one batch without asking how durable it is.
    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure>;

    /// Everything stored so far survives the loss of power when this returns.
    fn sync(&self) -> Result<(), Failure>;

    /// `count` batches with one sync behind them.
    fn bulk(&self, source: &mut BatchSource, count: u64) -> Result<(), Failure> {
        for _ in 0..count {
            self.accept(0, source.next())?;
        }
        self.sync()
    }

    /// What may be removed by the plan's retention is.
    fn retain(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Ends it in its own orderly way.
    fn close(self: Box<Self>) -> Result<(), Failure>;
}

/// Opens the system called `name`, with space ready as far as it knows how.
pub(crate) fn open(name: &str, folder: &Folder, plan: &Plan) -> Result<Box<dyn System>, Failure> {
    let dir = folder.path();
    Ok(match name {
        "oncelog" => Box::new(engine::Oncelog::open(dir, oncelog::DeviceKind::Auto, plan)?),
        "oncelog-blocking" => Box::new(engine::Oncelog::open(dir, oncelog::DeviceKind::Blocking, plan)?),
        "raw-uring" => Box::new(raw::Raw::open(dir, raw::Way::Ring, plan)?),
        "raw-pwritev2" => Box::new(raw::Raw::open(dir, raw::Way::Dsync, plan)?),
        "raw-pwrite-fdatasync" => Box::new(raw::Raw::open(dir, raw::Way::WriteThenSync, plan)?),
        "raft-engine" => Box::new(raft_engine::RaftEngine::open(dir, plan, false)?),
        "raft-engine-prefilled" => Box::new(raft_engine::RaftEngine::open(dir, plan, true)?),
        "okaywal" => Box::new(okaywal::OkayWal::open(dir)?),
        "fjall" => Box::new(fjall::Fjall::open(dir, plan)?),
        #[cfg(feature = "redb")]
        "redb" => Box::new(redb::Redb::open(dir, plan)?),
        _ => return Err(format!("no system is called {name:?}").into()),
    })
}

/// Whether this machine lets programs have a ring.
pub(crate) fn ring_is_allowed() -> Result<(), Failure> {
    oncelog_device::uring::probe()?;
    Ok(())
}

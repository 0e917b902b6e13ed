//! The ring: depth for large writes, one device for all logs of an engine.
//!
//! What the ring is for here follows from the trait (calls block) and from measurement (`docs/performance.md`): a write
//! over [`CHUNK_BYTES`] is split and kept [`DEPTH`] deep in flight, which the calling thread alone cannot do. A single
//! chunk gains no depth, so a plain one goes out on the calling thread, and a durable one of any length by the way that
//! measures best now. Reads go through the page cache by `pread`: split eight deep through the ring they defeat the
//! kernel's read-ahead (cold and in order 1.4 against 2.5 GB/s, warm the same).
//!
//! Many logs at once are one thread's business: see [`Lane`].
//!
//! Rings are checked out of a pool for the length of one call, so logs do not wait for each other and nothing is ever
//! in flight on an idle ring; when all are out the call runs on its own thread. That rules out `SINGLE_ISSUER`, and
//! with it `DEFER_TASKRUN`. What lies in the memory that the device's pool lends and the first ring has registered,
//! where locked memory allows it, is written as such (512 KiB: 3.6 against 2.7 GB/s, and half the processor time);
//! everything else as it is.

mod lane;
mod pool;
mod setup;
mod sync_way;
mod transfer;

pub use lane::{Bell, LANE_DEPTH, Lane, LaneWrite};
pub use setup::{RingFeatures, RingUnavailable, probe};

use crate::arena::Arena;
use crate::blocking::BlockingDevice;
use crate::buffers::{AlignedBuffer, BufferPool};
use crate::device::{Device, DeviceFile, DeviceKind, DeviceLock, DirectoryEntry, OpenMode, Result, Sync};
use crate::error::DeviceError;
use crate::host_file::{HostFile, Stopped};
use pool::RingPool;
use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sync_way::{SyncWay, SyncWays};

/// A larger write is split into pieces of this many bytes.
pub const CHUNK_BYTES: usize = 256 << 10;

/// So many pieces are in flight at once.
pub const DEPTH: usize = 8;

/// Files of the host through io_uring; names and small files through plain calls.
#[derive(Debug)]
pub struct UringDevice {
    names: BlockingDevice,
    features: RingFeatures,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    rings: RingPool,
    /// Registered with the rings; `None` where that is refused.
    arena: Option<Arc<Arena>>,
    ways: SyncWays,
}

impl UringDevice {
    /// Sets up a first ring and tries it; the error says in one line why there is none.
    pub fn new() -> std::result::Result<Self, RingUnavailable> {
        let arena = Arena::new();
        let (first, features) = setup::open_ring(arena.as_ref())?;
        let arena = arena.filter(|_| features.registered_bytes.is_ok());
        let shared = Shared { rings: RingPool::new(first), arena, ways: SyncWays::new() };
        Ok(Self { names: BlockingDevice::new(), features, shared: Arc::new(shared) })
    }

    /// How often the way of durable writes was changed while running.
    pub fn sync_way_changes(&self) -> u64 {
        self.shared.ways.changes()
    }

    /// The way in which most durable writes that are alone go out at the moment (`ring-dsync`, `pwritev2-dsync`,
    /// `pwrite-fdatasync`); those beside others of other files go as `pwritev2-dsync`.
    pub fn sync_way(&self) -> &'static str {
        self.shared.ways.best().name()
    }
}

impl Device for UringDevice {
    fn kind(&self) -> DeviceKind {
        DeviceKind::Uring
    }

    fn describe(&self) -> String {
        let (setup, way, remarks) = (self.features.setup, self.sync_way(), self.names.remarks());
        let changes = self.sync_way_changes();
        let registered = match &self.features.registered_bytes {
            Ok(bytes) => format!("{bytes} bytes of registered buffers"),
            Err(why) => format!("no registered buffers: {why}"),
        };
        format!(
            "io_uring: {DEPTH} x {CHUNK_BYTES} bytes in flight, setup {setup}, {registered}, durable writes now by {way} ({changes} changes){remarks}"
        )
    }

    fn buffers(&self, keep_bytes: usize) -> BufferPool {
        BufferPool::with_arenas(keep_bytes, self.shared.arena.clone())
    }

    fn lane(&self) -> Option<Lane> {
        Lane::open()
    }

    fn open(&self, path: &Path, mode: OpenMode) -> Result<Arc<dyn DeviceFile>> {
        Ok(Arc::new(UringFile { host: self.names.open_host(path, mode)?, shared: Arc::clone(&self.shared) }))
    }

    fn read_small(&self, path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
        self.names.read_small(path, limit_bytes)
    }

    fn write_small(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.names.write_small(path, bytes)
    }

    fn list(&self, directory: &Path) -> Result<Vec<DirectoryEntry>> {
        self.names.list(directory)
    }

    fn length(&self, path: &Path) -> Result<Option<u64>> {
        self.names.length(path)
    }

    fn create_directory(&self, directory: &Path) -> Result<()> {
        self.names.create_directory(directory)
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.names.rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<bool> {
        self.names.remove(path)
    }

    fn remove_directory(&self, path: &Path) -> Result<bool> {
        self.names.remove_directory(path)
    }

    fn sync_directory(&self, directory: &Path) -> Result<()> {
        self.names.sync_directory(directory)
    }

    fn lock(&self, path: &Path) -> Result<DeviceLock> {
        self.names.lock(path)
    }
}

/// A ring of its own, to measure with.
pub(crate) struct OneRing(setup::Ring);

impl OneRing {
    pub(crate) fn open() -> std::result::Result<Self, RingUnavailable> {
        setup::open_ring(None).map(|(ring, _features)| Self(ring))
    }

    /// Writes whole blocks through the ring, durable on return.
    pub(crate) fn write_dsync(
        &mut self,
        file: &HostFile,
        position: u64,
        bytes: &[u8],
    ) -> std::result::Result<(), String> {
        let direct = file.direct().ok_or("no direct I/O here")?;
        transfer::write(&mut self.0, direct, position, bytes, true).map_err(|stopped| format!("{stopped:?}"))
    }
}

struct UringFile {
    host: HostFile,
    shared: Arc<Shared>,
}

impl UringFile {
    /// Runs `bytes` through a ring; `None` where there is no ring or no direct descriptor to use, or where the kernel
    /// refuses the form of the write (the caller's thread then finds out what it takes).
    fn write_by_ring(&self, position: u64, bytes: &[u8], dsync: bool) -> Option<Result<()>> {
        let direct = self.host.direct()?;
        let mut ring = self.shared.rings.take()?;
        match transfer::write(&mut ring, direct, position, bytes, dsync) {
            Ok(()) => Some(Ok(())),
            Err(Stopped::Errno(Errno::INVAL | Errno::OPNOTSUPP)) => None,
            Err(stopped) => Some(Err(self.failed("write", bytes.len(), stopped))),
        }
    }

    fn write_durably(&self, position: u64, bytes: &[u8]) -> Result<()> {
        if self.host.direct().is_none() {
            return self.host.write_bytes(position, bytes, Sync::Data);
        }
        self.shared.ways.measure(bytes.len(), |way| match way {
            SyncWay::CallerDsync => self.host.write_bytes(position, bytes, Sync::Data),
            SyncWay::RingDsync if bytes.len() > CHUNK_BYTES => self.write_deep(position, bytes, Sync::Data),
            SyncWay::RingDsync => {
                let written = self.write_by_ring(position, bytes, true);
                written.unwrap_or_else(|| self.host.write_bytes(position, bytes, Sync::Data))
            }
            SyncWay::WriteThenSync => {
                self.host.write_bytes(position, bytes, Sync::None)?;
                self.host.sync("write")
            }
        })
    }

    fn write_deep(&self, position: u64, bytes: &[u8], sync: Sync) -> Result<()> {
        let Some(written) = self.write_by_ring(position, bytes, false) else {
            return self.host.write_bytes(position, bytes, sync);
        };
        written?;
        match sync {
            Sync::None => Ok(()),
            Sync::Data => self.host.sync("write"),
        }
    }

    fn failed(&self, op: &'static str, length: usize, stopped: Stopped) -> DeviceError {
        match stopped {
            Stopped::Errno(errno) => self.host.failed(op, errno),
            Stopped::Short(done) => self.host.short(done, length),
        }
    }
}

impl DeviceFile for UringFile {
    fn path(&self) -> PathBuf {
        self.host.path()
    }

    fn length(&self) -> Result<u64> {
        self.host.length()
    }

    fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.host.read_some(position, buffer)
    }

    fn read_direct(&self, position: u64, blocks: &mut [u8]) -> Result<usize> {
        self.host.read_direct(position, blocks)
    }

    fn write(&self, position: u64, buffer: &AlignedBuffer, length: usize, sync: Sync) -> Result<()> {
        self.host.check_write(position, buffer.capacity_bytes(), length)?;
        let bytes = &buffer.as_slice()[..length];
        match sync {
            Sync::Data => self.write_durably(position, bytes),
            Sync::None if length > CHUNK_BYTES => self.write_deep(position, bytes, sync),
            Sync::None => self.host.write_bytes(position, bytes, sync),
        }
    }

    fn direct_target(&self, position: u64, available: usize, length: usize) -> Result<Option<BorrowedFd<'_>>> {
        self.host.check_write(position, available, length)?;
        Ok(self.host.direct())
    }

    fn sync(&self) -> Result<()> {
        self.host.sync("sync")
    }

    fn prepare(&self, from: u64, to: u64) -> Result<()> {
        self.host.prepare(from, to)
    }

    fn prepare_gently(&self, from: u64, to: u64) -> Result<()> {
        self.host.prepare_gently(from, to)
    }

    fn allocate(&self, from: u64, to: u64) -> Result<bool> {
        self.host.allocate(from, to)
    }

    fn is_linked_elsewhere(&self) -> Result<bool> {
        self.host.is_linked_elsewhere()
    }

    fn renamed(&self, to: &Path) {
        self.host.renamed(to);
    }

    fn set_length(&self, length: u64) -> Result<()> {
        self.host.set_length(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pool_lends_is_registered_and_nothing_else_is() {
        let Ok(device) = UringDevice::new() else {
            println!("skipped: no ring here");
            return;
        };
        if let Err(why) = &device.features.registered_bytes {
            println!("skipped: {why}");
            return;
        }
        let pool = device.buffers(0);
        let has = |buffer: &AlignedBuffer| {
            let ring = device.shared.rings.take().expect("a ring");
            ring.has_registered(buffer.as_slice())
        };
        let lent: Vec<AlignedBuffer> = (0..8).map(|_| pool.take(512 << 10)).collect();
        assert!(lent.iter().all(has));
        assert!(!has(&pool.take(512 << 10)), "all of it is lent");
        pool.give(lent.into_iter().next().expect("one"));
        assert!(has(&pool.take(64 << 10)));
        assert!(!has(&AlignedBuffer::new(64 << 10)) && !has(&pool.take(4096)) && has(&pool.take(1 << 20)));
        // Only the first ring has it, and that is taken whenever it is free.
        let buffer = pool.take(64 << 10);
        let lent: Vec<_> = (0..3).map(|_| device.shared.rings.take().expect("a ring")).collect();
        assert!(!has(&buffer));
        drop(lent);
        assert!(has(&buffer) && has(&buffer));
    }
}

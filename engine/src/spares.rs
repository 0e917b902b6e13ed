//! Files ready to become segments, in stock for all logs of an engine, and the two ways to make space ready.
//!
//! They lie in the data directory, beside the logs' directories: Kafka looks at no plain file there. A log fetches one
//! before it rolls, a segment that retention frees comes back. Spares are shared because logs roll at different times:
//! a thousand logs need a few, not a thousand. What is left of them after a crash is removed at the next opening;
//! nothing in them counts.
//!
//! What a segment held before must never come back: of a group that a power cut tears, any part may be missing, and an
//! old batch that shows through at the right place is whole and has the right checksum. So the space behind a tail
//! reads as zeroes before it is used, through any crash. Either the file system is told so, which writes nothing and
//! takes as long for a gigabyte as for a block, or zeroes are written ([`Space`]). Zeroes for the first sectors of old
//! batches alone were not chosen: a record may hold a batch, and so many small writes take the disk as long as one
//! large one.

use parking_lot::{Condvar, Mutex};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{BLOCK_BYTES, Device, DeviceFile, OpenMode};

use crate::error::Result;

/// Most that is written in one step of making a file ready, bytes: so that what is ready can be used while the rest is
/// being made.
pub(crate) const PIECE_BYTES: u64 = 2 << 20;

/// Made ready in a hurry after an append had to wait. In between the device is the appends'.
const HURRY_BYTES: u64 = 4 << 20;

/// How space is made ready. It reads as zeroes either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Space {
    /// Zeroes are written: durable writes change no metadata, and every byte goes to the disk twice.
    Written,
    /// The file system knows that nothing was written: made at once, and a sync behind a write costs about two.
    Allocated,
}

/// A file that can become a segment.
pub(crate) struct Spare {
    pub file: Arc<dyn DeviceFile>,
    pub path: PathBuf,
    /// So many bytes may be written to.
    pub prepared: u64,
    /// And so many of them are written zeroes.
    pub written: u64,
}

impl Spare {
    pub fn ready(&self, space: Space) -> u64 {
        match space {
            Space::Written => self.written,
            Space::Allocated => self.prepared,
        }
    }
}

/// See the module.
pub(crate) struct Spares {
    device: Arc<dyn Device>,
    dir: PathBuf,
    /// Most that the stock may take on the disk, bytes.
    limit_bytes: u64,
    made: AtomicU64,
    /// So many bytes more are made ready in a hurry.
    hurry_bytes: AtomicU64,
    stock: Mutex<Stock>,
    /// The stock has grown, or it will not.
    pub(crate) moved: Condvar,
}

#[derive(Default)]
struct Stock {
    ready: Vec<Spare>,
    /// To be made ready up to so many bytes before they can be used. Behind what is prepared may stand anything.
    unready: Vec<(Spare, u64, Space)>,
    /// Asked for by [`Spares::ask`]: so many spares of so many bytes.
    wanted: (usize, u64),
    /// Somebody is making one ready.
    busy: bool,
    failure: Option<crate::error::Error>,
}

fn is_spare(name: &str) -> bool {
    name.starts_with("spare-") && name.ends_with(".oncelog")
}

impl Spares {
    /// Removes what an earlier process left in `dir`.
    pub fn open(device: Arc<dyn Device>, dir: &Path, limit_bytes: u64) -> Result<Self> {
        for entry in device.list(dir)?.into_iter().filter(|e| !e.is_directory && is_spare(&e.name)) {
            device.remove(&dir.join(&entry.name))?;
        }
        Ok(Self {
            device,
            dir: dir.to_path_buf(),
            limit_bytes,
            made: AtomicU64::new(0),
            hurry_bytes: AtomicU64::new(0),
            stock: Mutex::default(),
            moved: Condvar::new(),
        })
    }

    fn next_path(&self) -> PathBuf {
        self.dir.join(format!("spare-{}.oncelog", self.made.fetch_add(1, Ordering::Relaxed)))
    }

    /// The smallest spare of which at least `least_bytes` are ready, of those the one with the fewest zeroes written.
    pub fn take(&self, least_bytes: u64, space: Space) -> Option<Spare> {
        let mut stock = self.stock.lock();
        let fits = stock.ready.iter().enumerate().filter(|(_, spare)| spare.ready(space) >= least_bytes);
        let at = fits.min_by_key(|(_, spare)| (spare.prepared, spare.written)).map(|(at, _)| at)?;
        Some(stock.ready.swap_remove(at))
    }

    /// The spare of which most is ready, however little: for who goes on with it rather than begin a new one.
    pub fn take_largest(&self) -> Option<Spare> {
        let mut stock = self.stock.lock();
        let (at, _) = stock.ready.iter().enumerate().max_by_key(|(_, spare)| spare.prepared)?;
        Some(stock.ready.swap_remove(at))
    }

    /// A new file with its first `bytes` ready, or the first piece of them.
    pub fn make(&self, bytes: u64, space: Space) -> Result<Spare> {
        let path = self.next_path();
        let file = self.device.open(&path, OpenMode::Create)?;
        let mut spare = Spare { file, path, prepared: 0, written: 0 };
        // The name it will be renamed from must survive, for the one that it gets to survive.
        let made = self.extend(&mut spare, bytes, space).and_then(|()| Ok(self.device.sync_directory(&self.dir)?));
        match made {
            Ok(()) => Ok(spare),
            Err(failure) => {
                let _best_effort = self.remove(spare);
                Err(failure)
            }
        }
    }

    /// Makes the spare ready up to `to`, or a piece of that.
    pub fn extend(&self, spare: &mut Spare, to: u64, space: Space) -> Result<()> {
        let from = spare.ready(space);
        if from < to {
            let (reached, made) = self.prepare(&*spare.file, from, to, space)?;
            if made == Space::Written && from == spare.written {
                spare.written = reached;
            }
            spare.prepared = spare.prepared.max(reached);
        }
        Ok(())
    }

    /// Somebody waits for space: what is made ready next is made in a hurry.
    pub fn hurry(&self) {
        self.hurry_bytes.store(HURRY_BYTES, Ordering::Relaxed);
    }

    /// Makes `from..to` of a file ready, or where zeroes are written a piece of it, gently unless there is a hurry.
    /// Answers how far it came and how. Where the disk is full the stock goes first.
    pub fn prepare(&self, file: &dyn DeviceFile, from: u64, to: u64, space: Space) -> Result<(u64, Space)> {
        if space == Space::Allocated && self.with_stock_for_space(|| file.allocate(from, to))? {
            return Ok((to, space));
        }
        let to = to.min(from + PIECE_BYTES);
        let left = self.hurry_bytes.load(Ordering::Relaxed);
        self.hurry_bytes.store(left.saturating_sub(to - from), Ordering::Relaxed);
        self.with_stock_for_space(|| if left > 0 { file.prepare(from, to) } else { file.prepare_gently(from, to) })?;
        Ok((to, Space::Written))
    }

    fn with_stock_for_space<T>(&self, make: impl Fn() -> oncelog_device::device::Result<T>) -> Result<T> {
        match make() {
            Err(failure) if failure.is_full() && self.clear()? => Ok(make()?),
            made => Ok(made?),
        }
    }

    /// Puts a spare that is not needed into the stock, or removes it where that is full.
    pub fn give(&self, spare: Spare) -> Result<()> {
        {
            let mut stock = self.stock.lock();
            if stock.bytes() + spare.prepared <= self.limit_bytes {
                stock.ready.push(spare);
                self.moved.notify_all();
                return Ok(());
            }
        }
        self.remove(spare)
    }

    /// Takes over a segment file that nobody can reach any more: renames it, to be made ready and used again. Removes
    /// it where the stock is full, or where another name (a backup by hard links) still leads to it.
    pub fn free(&self, path: &Path, file: Arc<dyn DeviceFile>) -> Result<()> {
        if self.device.length(path)?.is_none() {
            return Ok(());
        }
        // With its last block: what would be left of the data there looked like a torn tail to a recovery.
        let whole = file.length()?.next_multiple_of(BLOCK_BYTES as u64);
        let room = self.stock.lock().bytes() + whole <= self.limit_bytes;
        if whole == 0 || !room || file.is_linked_elsewhere()? {
            // The last who holds it, so that it can go a piece at a time.
            drop(file);
            self.device.remove(path)?;
            return Ok(());
        }
        let to = self.next_path();
        self.device.rename(path, &to)?;
        file.renamed(&to);
        self.device.sync_directory(&self.dir)?;
        let prepared = if planted(Bug::RecycledNotZeroed) { whole } else { 0 };
        let spare = Spare { file, path: to, prepared, written: 0 };
        self.stock.lock().unready.push((spare, whole, Space::Allocated));
        Ok(())
    }

    /// Asks for a stock of `count` spares of `bytes` each, whatever the limit; the background work makes them.
    pub fn ask(&self, count: usize, bytes: u64) {
        let mut stock = self.stock.lock();
        stock.wanted = (count, bytes.next_multiple_of(BLOCK_BYTES as u64));
        stock.failure = None;
    }

    /// Blocks until the stock holds what was asked for.
    pub fn wait(&self) -> Result<()> {
        let mut stock = self.stock.lock();
        loop {
            if let Some(failure) = stock.failure.take() {
                return Err(failure);
            }
            if !stock.is_short() {
                return Ok(());
            }
            self.hurry();
            self.moved.wait(&mut stock);
        }
    }

    /// One step of making spares ready; whether there was anything to do.
    pub fn step(&self) -> Result<bool> {
        let work = {
            let mut stock = self.stock.lock();
            if stock.busy {
                return Ok(false);
            }
            let unready = stock.unready.pop();
            if !stock.is_short() {
                // Asked for once: what the logs take from now on is theirs to replace, at their pace.
                stock.wanted = (0, 0);
                if unready.is_none() {
                    return Ok(false);
                }
            }
            stock.busy = true;
            unready.ok_or(stock.wanted.1)
        };
        let made = match work {
            Ok((mut spare, to, space)) => match self.extend(&mut spare, to, space) {
                Ok(()) => Ok((spare, to, space)),
                Err(failure) => self.remove(spare).and(Err(failure)),
            },
            Err(bytes) => self.make(bytes, Space::Written).map(|spare| (spare, bytes, Space::Written)),
        };
        let mut stock = self.stock.lock();
        stock.busy = false;
        let result = match made {
            Ok((spare, to, space)) if spare.ready(space) < to => {
                stock.unready.push((spare, to, space));
                Ok(true)
            }
            Ok((spare, ..)) => {
                stock.ready.push(spare);
                Ok(true)
            }
            Err(failure) => {
                stock.wanted = (0, 0);
                stock.failure = Some(failure.clone());
                Err(failure)
            }
        };
        self.moved.notify_all();
        result
    }

    /// Removes the whole stock; whether there was any.
    pub fn clear(&self) -> Result<bool> {
        let gone: Vec<Spare> = {
            let mut stock = self.stock.lock();
            let unready = std::mem::take(&mut stock.unready).into_iter().map(|(spare, ..)| spare);
            unready.chain(std::mem::take(&mut stock.ready)).collect()
        };
        let any = !gone.is_empty();
        gone.into_iter().try_for_each(|spare| self.remove(spare))?;
        Ok(any)
    }

    /// Removes a spare's file.
    pub fn remove(&self, spare: Spare) -> Result<()> {
        let Spare { file, path, .. } = spare;
        drop(file);
        self.device.remove(&path)?;
        Ok(())
    }
}

impl Stock {
    fn bytes(&self) -> u64 {
        let ready = self.ready.iter().map(|spare| spare.prepared);
        ready.chain(self.unready.iter().map(|(_, bytes, _)| *bytes)).sum()
    }

    fn is_short(&self) -> bool {
        let (count, bytes) = self.wanted;
        self.ready.iter().filter(|spare| spare.written >= bytes).count() < count
    }
}

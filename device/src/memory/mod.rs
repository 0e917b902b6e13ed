//! A disk in memory that keeps the promises of [`crate::device`] and nothing beyond them.
//!
//! Each file and each directory stands here twice: as a living process sees it, and as a power cut would leave it
//! (before chance has its say). Whatever is only in the first is the caller's mistake to rely on, and
//! [`MemoryDevice::power_cut`] shows it. An honest disk is kinder; a test on one proves little.
//!
//! Everything happens under one lock in the order of the calls, and chance is a function of the seed: the same calls
//! give the same bytes, the same answers and the same [`MemoryDevice::trace_hash`].

pub(crate) mod blocks;
mod copy;
mod door;
mod file;
mod names;
mod state;
#[cfg(test)]
mod tests;
mod trace;

use crate::clock::Clock;
use crate::device::Result;
use crate::fault::FaultOp;
use crate::lock::Mutex;
use blocks::BLOCK;
pub use file::SectorDamage;
use state::State;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The disk; clones are doors to the same one.
///
/// Relative paths start at its root. Locks are exclusive within it and refused at once, not retried: nobody can wait
/// for time that does not pass.
#[derive(Clone, Default)]
pub struct MemoryDevice {
    state: Arc<Mutex<State>>,
}

impl MemoryDevice {
    /// Empty, of unlimited size; all times are 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time of changes comes from `clock`.
    #[must_use]
    pub fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        self.state.lock().clock = Some(clock);
        self
    }

    /// Holds files of `capacity_bytes` in all, counted in whole blocks; beyond it `prepare` and `write_small` answer
    /// full.
    #[must_use]
    pub fn with_capacity_bytes(self, capacity_bytes: u64) -> Self {
        self.set_capacity_bytes(Some(capacity_bytes));
        self
    }

    /// Changes the size of the disk; `None` is unlimited. What is on it stays.
    pub fn set_capacity_bytes(&self, capacity_bytes: Option<u64>) {
        self.state.lock().capacity_bytes = capacity_bytes;
    }

    /// Length of all files, each in whole blocks.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.used_bytes()
    }

    /// Plants a fault: the matching operation number `after` (from 0, counted from now) and the next `times - 1` fail,
    /// [`FaultOp::Space`] as full, the others as injected.
    ///
    /// A failed write may leave its first sectors. What was not durable when a sync failed stays so whatever later
    /// syncs say, also after the file is opened again: only writing it again helps.
    pub fn plant(&self, op: FaultOp, after: u64, times: u64) {
        self.state.lock().faults.plant(op, after, times);
    }

    /// Lets `operations` more operations through; the next one is cut off half way (its effect is there, unsynced), and
    /// from then on every one fails with "power is out" until [`MemoryDevice::power_cut`] or [`MemoryDevice::kill`]
    /// says what that was. `write_small` counts as its five steps.
    pub fn crash_after(&self, operations: u64) {
        self.state.lock().faults.crash_after(operations);
    }

    /// Whether some planted fault has not struck yet.
    pub fn has_planted(&self) -> bool {
        self.state.lock().faults.pending()
    }

    /// Planted faults that struck so far.
    pub fn faults_struck(&self) -> u64 {
        self.state.lock().faults.hits()
    }

    /// Files, by their names now, and the ranges in them where a write was lost, or was misdirected from or to, in the
    /// order of the writes. What stands in no directory any more is left out.
    pub fn misplaced_writes(&self) -> Vec<(PathBuf, Range<u64>)> {
        let state = self.state.lock();
        let named = |(number, range): &(u64, Range<u64>)| Some((state.tree.path_of(*number)?, range.clone()));
        state.misplaced.iter().filter_map(named).collect()
    }

    /// Whether some write was lost or misdirected.
    pub fn has_misplaced_writes(&self) -> bool {
        !self.state.lock().misplaced.is_empty()
    }

    /// Damages the sector of a file that holds `position`, as it goes bad at rest: no sync and no power cut mends it,
    /// writing it again does. `false` where there is no such byte.
    pub fn damage_sector(&self, path: &Path, position: u64, kind: SectorDamage) -> Result<bool> {
        let Some(node) = self.state.lock().tree.file("damage_sector", path)? else { return Ok(false) };
        let mut images = node.images.lock();
        let inside = position < images.written().length();
        if inside {
            images.damage(position, kind);
        }
        Ok(inside)
    }

    /// Forgets everything planted, and the power is back.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Loses the power and gives it back: what was not synced survives, in part, as `seed` says. Files open now answer
    /// errors from here on, and locks are free. Planted faults stay.
    pub fn power_cut(&self, seed: u64) {
        self.state.lock().power_cut(seed);
    }

    /// The death of the process: every completed write stays as it is, and as unsynced as it is. Locks are free and the
    /// power is back.
    pub fn kill(&self) {
        self.state.lock().kill();
    }

    /// A hash of every operation so far with its arguments and its answer.
    pub fn trace_hash(&self) -> u64 {
        self.state.lock().trace.hash()
    }

    /// Operations so far, failed ones too; `write_small` counts as up to five.
    pub fn operations(&self) -> u64 {
        self.state.lock().faults.operations()
    }

    /// All bytes of a file as a living process sees them, past all faults and uncounted; `None` where there is none.
    pub fn contents(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let node = self.state.lock().tree.file("contents", path)?;
        Ok(node.map(|node| node.images.lock().written().to_vec()))
    }

    /// Puts a file there that survives the loss of power, with its directories and all names in them, past all faults
    /// and uncounted.
    pub fn put(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.state.lock().put(path, blocks::Blocks::of(bytes))
    }
}

impl std::fmt::Debug for MemoryDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDevice({} operations)", self.operations())
    }
}

fn whole_blocks(bytes: u64) -> u64 {
    bytes.div_ceil(BLOCK).saturating_mul(BLOCK)
}

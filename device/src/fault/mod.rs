//! Planted faults: which operation fails, counted, so that a script or a seed can point at exactly one.
//!
//! Counting instead of drawing: "the third sync fails" can be written in a bug report, and "the power goes after `n`
//! operations" can be run for every `n`. The plan is one value, used by two doors: [`crate::memory::MemoryDevice`] asks
//! it at every inner step, so that a failed sync is remembered as the kernel would; [`FaultDevice`] wraps any other
//! device from outside.

pub(crate) mod chance;
#[cfg(test)]
mod tests;
mod wrapper;

pub use wrapper::FaultDevice;

use crate::device::Result;
use crate::error::{DeviceError, DeviceErrorKind};
use std::path::Path;

/// What a planted fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultOp {
    /// `DeviceFile::write` and the writing step of `write_small`.
    Write,
    /// `DeviceFile::sync`, `sync_directory`, the sync of a `write` with `Sync::Data`, and both syncs of `write_small`
    /// (first the file's, then the directory's).
    Sync,
    /// `DeviceFile::read` and `read_small`.
    Read,
    /// `prepare`, `allocate` and `write_small`: out of space.
    Space,
    /// `DeviceFile::read_some` gives fewer bytes than there are.
    ShortRead,
    /// `DeviceFile::write` answers that all is well and stores nothing.
    LostWrite,
    /// `DeviceFile::write` answers that all is well and stores its blocks elsewhere in the file.
    MisdirectedWrite,
}

#[derive(Clone, Debug)]
struct Plant {
    op: FaultOp,
    after: u64,
    times: u64,
}

/// Which operations fail, and how many there were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    plants: Vec<Plant>,
    operations: u64,
    crash_at: Option<u64>,
    hits: u64,
}

/// Whether the power stays on during an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Power {
    /// It does.
    On,
    /// It goes while this operation is under way: its effect is there, unsynced, and it answers an error.
    Failing,
}

impl Power {
    /// The answer of an operation whose effect is in place.
    pub(crate) fn answer(self, op: &'static str, path: &Path) -> Result<()> {
        match self {
            Self::On => Ok(()),
            Self::Failing => Err(power_is_out(op, path)),
        }
    }
}

impl Faults {
    /// The matching operation number `after` (from 0, counted from now) and the next `times - 1` fail.
    pub(crate) fn plant(&mut self, op: FaultOp, after: u64, times: u64) {
        self.plants.push(Plant { op, after, times });
    }

    /// After `operations` more operations every one fails. The first of them is cut off half way.
    pub(crate) fn crash_after(&mut self, operations: u64) {
        self.crash_at = Some(self.operations.saturating_add(operations));
    }

    /// The power is back.
    pub(crate) fn restore_power(&mut self) {
        self.crash_at = None;
    }

    /// Forgets every plan; the count of operations stays.
    pub(crate) fn clear(&mut self) {
        self.plants.clear();
        self.crash_at = None;
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Planted faults that struck so far: a number to draw from, different for each.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// Counts one operation.
    pub(crate) fn step(&mut self, op: &'static str, path: &Path) -> Result<Power> {
        let number = self.operations;
        self.operations += 1;
        match self.crash_at {
            Some(crash_at) if number > crash_at => Err(power_is_out(op, path)),
            Some(crash_at) if number == crash_at => Ok(Power::Failing),
            _ => Ok(Power::On),
        }
    }

    /// Whether something planted has not struck yet.
    pub(crate) fn pending(&self) -> bool {
        !self.plants.is_empty()
    }

    /// As [`Faults::strikes`]; an error where it does.
    pub(crate) fn check(&mut self, kind: FaultOp, op: &'static str, path: &Path) -> Result<()> {
        match (self.strikes(kind), kind) {
            (false, _) => Ok(()),
            (true, FaultOp::Space) => Err(DeviceError::full(op, path)),
            (true, _) => Err(DeviceError::new(DeviceErrorKind::Injected, op, path)),
        }
    }

    /// Counts one operation matching `kind` in every plan; whether one of them strikes.
    pub(crate) fn strikes(&mut self, kind: FaultOp) -> bool {
        let mut strikes = false;
        for plant in self.plants.iter_mut().filter(|plant| plant.op == kind) {
            if plant.after > 0 {
                plant.after -= 1;
            } else if plant.times > 0 {
                plant.times -= 1;
                strikes = true;
            }
        }
        self.plants.retain(|plant| plant.times > 0);
        self.hits += u64::from(strikes);
        strikes
    }
}

fn power_is_out(op: &'static str, path: &Path) -> DeviceError {
    DeviceError::new(DeviceErrorKind::Injected, op, path).with_detail("power is out")
}

//! A file's bytes by sectors. Sectors are shared between the many versions of a file that a cut may leave.

use crate::fault::chance::{below, mix2};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The unit that a power cut leaves whole.
pub(super) const SECTOR_BYTES: usize = 512;

#[derive(Debug)]
struct Sector {
    hash: u64,
    bytes: [u8; SECTOR_BYTES],
}

/// What is in a file; sectors that are left out are zero.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    sectors: BTreeMap<u64, Arc<Sector>>,
}

/// A change of a file's bytes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// Bytes from a sector boundary on.
    Write { position: u64, bytes: Arc<[u8]> },
    /// Zeroes from..to, extending.
    Zero { from: u64, to: u64 },
    /// A new length; what is gained is zero.
    Length(u64),
}

impl Change {
    /// Sectors that a cut may leave apart; 1 for a change that is whole or not there.
    fn parts(&self) -> u64 {
        match self {
            Self::Write { bytes, .. } => bytes.len().div_ceil(SECTOR_BYTES) as u64,
            Self::Zero { .. } | Self::Length(_) => 1,
        }
    }
}

impl Content {
    /// A file of these bytes.
    pub fn of(bytes: &Arc<[u8]>) -> Self {
        let mut content = Self::default();
        content.apply(&Change::Write { position: 0, bytes: bytes.clone() }, |_| true);
        content.length = bytes.len() as u64;
        content
    }

    /// Carries out the parts of a change that are kept.
    pub fn apply(&mut self, change: &Change, keep: impl Fn(u64) -> bool) {
        match change {
            Change::Write { position, bytes } => {
                let first = position / SECTOR_BYTES as u64;
                for (part, chunk) in (0..).zip(bytes.chunks(SECTOR_BYTES)).filter(|(part, _)| keep(*part)) {
                    self.set(first + part, chunk);
                }
                self.length = self.length.max(position + bytes.len() as u64);
            }
            Change::Zero { from, to } => {
                let gone: Vec<u64> = self.sectors.range(sectors(*from, *to)).map(|(number, _)| *number).collect();
                gone.iter().for_each(|number| drop(self.sectors.remove(number)));
                self.length = self.length.max(*to);
            }
            Change::Length(length) => {
                let kept = length.div_ceil(SECTOR_BYTES as u64);
                self.sectors.split_off(&kept);
                let inside = (length % SECTOR_BYTES as u64) as usize;
                if inside > 0
                    && let Some(last) = self.sectors.get(&(kept - 1)).cloned()
                {
                    self.set(kept - 1, &last.bytes[..inside]);
                }
                self.length = *length;
            }
        }
    }

    /// Carries out what chance keeps of a change: all, the first part, or any.
    pub fn apply_torn(&mut self, change: &Change, seed: u64) {
        let parts = change.parts();
        match below(mix2(seed, 1), 4) {
            0 | 1 => self.apply(change, |_| true),
            2 => {
                let first = below(mix2(seed, 2), parts + 1);
                self.apply(change, |part| part < first);
            }
            _ => self.apply(change, |part| mix2(seed, part + 3) & 1 == 1),
        }
    }

    /// Every way to leave a write in two: its first sectors alone, or its last.
    pub fn tears(&self, change: &Change) -> Vec<Self> {
        let torn = |keep: &dyn Fn(u64) -> bool| {
            let mut content = self.clone();
            content.apply(change, keep);
            content
        };
        (1..change.parts()).flat_map(|at| [torn(&|part| part < at), torn(&|part| part >= at)]).collect()
    }

    /// Equal for equal bytes.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.length.hash(&mut hasher);
        self.sectors.iter().for_each(|(number, sector)| (number, sector.hash).hash(&mut hasher));
        hasher.finish()
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length as usize];
        for (number, sector) in &self.sectors {
            let at = *number as usize * SECTOR_BYTES;
            let Some(room) = bytes.get_mut(at..) else { continue };
            let count = room.len().min(SECTOR_BYTES);
            room[..count].copy_from_slice(&sector.bytes[..count]);
        }
        bytes
    }

    fn set(&mut self, number: u64, chunk: &[u8]) {
        if chunk.iter().all(|&byte| byte == 0) {
            self.sectors.remove(&number);
            return;
        }
        let mut bytes = [0; SECTOR_BYTES];
        bytes[..chunk.len()].copy_from_slice(chunk);
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        self.sectors.insert(number, Arc::new(Sector { hash: hasher.finish(), bytes }));
    }
}

fn sectors(from: u64, to: u64) -> std::ops::Range<u64> {
    from / SECTOR_BYTES as u64..to.div_ceil(SECTOR_BYTES as u64)
}

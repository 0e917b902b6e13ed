//! One file, twice: what a living process sees, and what a power cut would leave.
//!
//! What is not synced is kept per block as the versions that the block went through, oldest first. That is all that
//! "any subset of the writes, torn at sectors" needs, and it makes the other promises one step each: a durable write
//! settles its own blocks and no others, a sync settles them all.

use super::blocks::{BLOCK, Block, Blocks, SharedBlock, cut_block, shared_block};
use crate::device::BLOCK_BYTES;
use crate::fault::chance::{below, mix2};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

/// The unit that a power cut leaves whole.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What becomes of a sector at rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectorDamage {
    /// One bit of the byte at the position is another one.
    Flipped,
    /// All of the sector's bytes are zero.
    Zeroed,
    /// Reading the sector fails, until it is written again.
    Unreadable,
}

/// What the completed call promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing about power.
    None,
    /// This write survives the loss of power.
    Durable,
    /// The call failed: the bytes may be there, and no later sync speaks for them.
    Failed,
}

/// A block's content after an operation that is not durable.
#[derive(Clone, Debug)]
struct Version {
    change: u64,
    /// First sector of the write and its count; none for a cut, which is not torn.
    sectors: Option<(u64, u64)>,
    block: SharedBlock,
    failed: bool,
}

/// A length after an operation that is not durable.
#[derive(Clone, Debug)]
struct Length {
    change: u64,
    length: u64,
    failed: bool,
}

/// Both images of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileImages {
    written: Blocks,
    durable: Blocks,
    versions: BTreeMap<u64, Vec<Version>>,
    lengths: Vec<Length>,
    /// Sectors that cannot be read until they are written again.
    bad: BTreeSet<u64>,
    /// Time of the last change.
    pub(crate) modified_ms: i64,
}

impl FileImages {
    /// A file whose bytes survive the loss of power.
    pub(crate) fn durable(written: Blocks, modified_ms: i64) -> Self {
        Self { durable: written.clone(), written, modified_ms, ..Self::default() }
    }

    /// What a living process sees.
    pub(crate) fn written(&self) -> &Blocks {
        &self.written
    }

    /// Whether some sector in the range cannot be read.
    pub(crate) fn is_bad(&self, from: u64, to: u64) -> bool {
        let sector = SECTOR_BYTES as u64;
        !self.bad.is_empty() && self.bad.range(from / sector..to.div_ceil(sector)).next().is_some()
    }

    /// Damages the sector that holds `position`, in both images: neither a sync nor a power cut mends it.
    pub(crate) fn damage(&mut self, position: u64, kind: SectorDamage) {
        let sector = SECTOR_BYTES as u64;
        let start = (position % BLOCK / sector * sector) as usize;
        let spoil = |block: SharedBlock| {
            let mut bytes = block.map_or([0; BLOCK_BYTES], |block| *block);
            match kind {
                SectorDamage::Unreadable => {}
                SectorDamage::Zeroed => bytes[start..start + SECTOR_BYTES].fill(0),
                SectorDamage::Flipped => bytes[(position % BLOCK) as usize] ^= 0x10,
            }
            shared_block(&bytes)
        };
        let number = position / BLOCK;
        for blocks in [&mut self.written, &mut self.durable] {
            let spoilt = spoil(blocks.get(number));
            if position < blocks.length() {
                blocks.set(number, spoilt);
            }
        }
        for version in self.versions.get_mut(&number).into_iter().flatten() {
            version.block = spoil(version.block.take());
        }
        if kind == SectorDamage::Unreadable {
            self.bad.insert(position / sector);
        }
    }

    fn heal(&mut self, bytes: Range<u64>) {
        let sector = SECTOR_BYTES as u64;
        self.bad.retain(|bad| !(bytes.start / sector..bytes.end.div_ceil(sector)).contains(bad));
    }

    /// Replaces the bytes from block boundary `position` on; a last part of a block counts as followed by zeroes.
    /// `change` numbers the write.
    pub(crate) fn write(&mut self, change: u64, position: u64, bytes: &[u8], promise: Promise) {
        let sector = SECTOR_BYTES as u64;
        let sectors = (position / sector, (bytes.len().div_ceil(BLOCK_BYTES) * BLOCK_BYTES) as u64 / sector);
        self.heal(position..position + bytes.len() as u64);
        for (number, chunk) in (position / BLOCK..).zip(bytes.chunks(BLOCK_BYTES)) {
            let block = shared_block(chunk);
            self.written.set(number, block.clone());
            if promise == Promise::Durable {
                self.durable.set(number, block);
                self.versions.remove(&number);
            } else {
                self.push(number, change, Some(sectors), block, promise == Promise::Failed);
            }
        }
        if promise == Promise::Durable {
            self.survives_up_to(position + bytes.len() as u64);
        }
    }

    /// Zeroes `from..to` (block boundaries) and grows to `to`.
    pub(crate) fn prepare(&mut self, change: u64, from: u64, to: u64, promise: Promise) {
        let length = self.written.length().max(to);
        self.heal(from..to);
        if promise == Promise::Durable {
            for number in self.written.present(from / BLOCK..to / BLOCK) {
                self.written.set(number, None);
            }
            for number in self.durable.present(from / BLOCK..to / BLOCK) {
                self.durable.set(number, None);
            }
            self.versions.retain(|&number, _| !(from / BLOCK..to / BLOCK).contains(&number));
            self.written.set_length(length);
            self.survives_up_to(to);
        } else {
            for number in self.written.present(from / BLOCK..to / BLOCK) {
                self.written.set(number, None);
                self.push(number, change, None, None, promise == Promise::Failed);
            }
            self.set_length(change, length, promise);
        }
    }

    /// Cuts, or extends with a hole; not durable until a sync.
    pub(crate) fn set_length(&mut self, change: u64, length: u64, promise: Promise) {
        let failed = promise == Promise::Failed;
        let old = self.written.length();
        if length < old {
            for number in self.written.present(length / BLOCK..old.div_ceil(BLOCK)) {
                let keep = length.saturating_sub(number * BLOCK).min(BLOCK);
                let block = cut_block(&self.written.get(number), keep as usize);
                self.push(number, change, None, block, failed);
            }
        }
        self.written.set_length(length);
        self.lengths.push(Length { change, length, failed });
    }

    /// Everything that completed before survives the loss of power, except what a failed call left.
    pub(crate) fn sync(&mut self) {
        if let Some(last) = self.lengths.last().filter(|last| !last.failed) {
            self.durable.set_length(last.length);
            self.lengths.clear();
        }
        let mut reach = 0;
        let durable = &mut self.durable;
        self.versions.retain(|&number, versions| {
            let Some(last) = versions.last().filter(|last| !last.failed) else {
                return true;
            };
            durable.set(number, last.block.clone());
            reach = (number + 1) * BLOCK;
            false
        });
        self.survives_up_to(reach.min(self.written.length()));
    }

    /// A sync failed: what was not durable may be lost, and no later sync speaks for it.
    pub(crate) fn fail_sync(&mut self) {
        self.lengths.iter_mut().for_each(|length| length.failed = true);
        let versions = self.versions.values_mut().flatten();
        versions.for_each(|version| version.failed = true);
    }

    /// Loses the power: `seed` says what of the unsynced survives. Both images are equal afterwards.
    pub(crate) fn power_cut(&mut self, seed: u64) {
        for (number, versions) in std::mem::take(&mut self.versions) {
            let mut block = self.durable.get(number);
            for version in versions {
                block = version.survive(seed, number, block);
            }
            self.durable.set(number, block);
        }
        let length = self
            .lengths
            .iter()
            .rev()
            .find(|change| Fate::of(seed, change.change) != Fate::Lost)
            .map_or(self.durable.length(), |change| change.length);
        self.lengths.clear();
        // A block may have survived beyond the length that did.
        let reach = self.durable.present(0..u64::MAX).last().map_or(0, |last| (last + 1) * BLOCK);
        self.durable.set_length(reach.max(length));
        self.durable.set_length(length);
        self.written = self.durable.clone();
    }

    fn push(&mut self, number: u64, change: u64, sectors: Option<(u64, u64)>, block: SharedBlock, failed: bool) {
        self.versions.entry(number).or_default().push(Version { change, sectors, block, failed });
    }

    /// Whatever length survives, it reaches `end`.
    fn survives_up_to(&mut self, end: u64) {
        for change in &mut self.lengths {
            change.length = change.length.max(end);
        }
        if self.durable.length() < end {
            self.durable.set_length(end);
        }
    }
}

impl Version {
    /// The block after the power cut, if it was `before` without this change.
    fn survive(&self, seed: u64, number: u64, before: SharedBlock) -> SharedBlock {
        let Some((first, count)) = self.sectors else {
            return match Fate::of(seed, self.change) {
                Fate::Lost => before,
                _ => self.block.clone(),
            };
        };
        let kept = |sector: u64| match Fate::of(seed, self.change) {
            Fate::Lost => false,
            Fate::Whole => true,
            Fate::Prefix => sector - first < below(mix2(seed, !self.change), count + 1),
            Fate::Sectors => mix2(mix2(seed, self.change), sector) & 1 == 1,
        };
        let zeroes: Arc<Block> = Arc::new([0; BLOCK_BYTES]);
        let mut bytes = *before.unwrap_or_else(|| zeroes.clone());
        let ours = self.block.as_ref().unwrap_or(&zeroes);
        for (index, sector) in (number * BLOCK / SECTOR_BYTES as u64..).enumerate().take(BLOCK_BYTES / SECTOR_BYTES) {
            if kept(sector) {
                let range = index * SECTOR_BYTES..(index + 1) * SECTOR_BYTES;
                bytes[range.clone()].copy_from_slice(&ours[range]);
            }
        }
        shared_block(&bytes)
    }
}

/// What becomes of an unsynced change at a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As if it had never been.
    Lost,
    /// All of it is there.
    Whole,
    /// Its first sectors are there.
    Prefix,
    /// Any of its sectors are there.
    Sectors,
}

impl Fate {
    /// A sixth of all seeds lose everything and a sixth keep everything; the others decide for each change.
    pub(crate) fn of(seed: u64, change: u64) -> Self {
        match below(mix2(seed, u64::MAX), 6) {
            0 => Self::Lost,
            1 => Self::Whole,
            _ => match below(mix2(seed, change), 4) {
                0 => Self::Lost,
                1 => Self::Whole,
                2 => Self::Prefix,
                _ => Self::Sectors,
            },
        }
    }
}

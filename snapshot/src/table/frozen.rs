//! Views of the table as it was, read step by step while it goes on changing.
//!
//! A freeze takes a number. A block carries the number of the newest freeze when it last changed; one with a smaller
//! number is still what the view shows. The first change of a block behind a freeze keeps a copy of the block as it was,
//! if a view still wants it. So freezing costs a constant, an append at most the copy of one block, and a reader needs the
//! table for a few blocks at a time. Any number of views may be open; each is read in the order of the blocks' hashes,
//! which does not depend on what happens meanwhile.

use std::collections::BTreeMap;

use super::block::{Slot, bits, id_at};
use super::directory::{Directory, hash};
use super::{Odd, whole};
use crate::producer::ProducerEntry;

/// A view being read. Belongs to the table that began it.
#[derive(Debug)]
pub struct Frozen {
    generation: u32,
    left: Left,
    /// Number of producers then.
    pub len: usize,
    /// The table's digest then.
    pub digest: u64,
}

/// What of a view has not been read.
#[derive(Debug)]
enum Left {
    /// Every block from this hash on.
    All(Option<u64>),
    /// The changed lines of these blocks.
    Changed(std::vec::IntoIter<i64>),
}

/// A block of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenBlock {
    /// Its ids are `block * 64` and the 63 behind.
    pub block: i64,
    /// Which of them there were, as bits; of others, everything is forgotten.
    pub present: u64,
    /// Those asked for, by id, ascending.
    pub entries: Vec<(i64, ProducerEntry)>,
}

/// A block as it was before it was changed.
#[derive(Debug, Clone)]
struct Saved {
    slot: Slot,
    odd: Vec<(i64, ProducerEntry)>,
    /// Views up to this freeze show it.
    replaced_at: u32,
}

#[derive(Debug, Clone)]
struct Open {
    generation: u32,
    /// Blocks with smaller hashes have been read.
    passed: u64,
}

/// The freezes of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions {
    generation: u32,
    open: Vec<Open>,
    /// By hash, block and generation.
    saved: BTreeMap<(u64, i64, u32), Saved>,
    /// Number of the newest freeze of changes; 0 before the first.
    checkpointed: u32,
    /// Blocks changed since then; some may stand twice.
    changed: Vec<i64>,
}

impl Versions {
    #[inline]
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Before a slot is changed.
    #[inline]
    pub fn touch(&mut self, slot: &mut Slot, odd: &Odd) {
        if slot.generation != self.generation {
            self.touch_first(slot, odd);
        }
    }

    #[cold]
    fn touch_first(&mut self, slot: &mut Slot, odd: &Odd) {
        let hash = hash(slot.block);
        if self.open.iter().any(|view| slot.generation < view.generation && view.passed <= hash) {
            let ids = id_at(slot.block, 0)..=id_at(slot.block, 63);
            let odd = odd.range(ids).map(|(id, entry)| (*id, *entry)).collect();
            let saved = Saved { slot: slot.clone(), odd, replaced_at: self.generation };
            self.saved.insert((hash, slot.block, slot.generation), saved);
        }
        if slot.generation < self.checkpointed {
            slot.clean();
            self.changed.push(slot.block);
        }
        slot.generation = self.generation;
    }

    /// A slot for a new block is made.
    pub fn note_new(&mut self, block: i64) {
        if self.checkpointed > 0 {
            self.changed.push(block);
        }
    }

    pub fn freeze(&mut self, len: usize, digest: u64) -> Frozen {
        self.generation += 1;
        self.open.push(Open { generation: self.generation, passed: 0 });
        Frozen { generation: self.generation, left: Left::All(Some(0)), len, digest }
    }

    pub fn freeze_changes(&mut self, len: usize, digest: u64) -> Frozen {
        let mut frozen = self.freeze(len, digest);
        if self.checkpointed > 0 {
            let changed = std::mem::take(&mut self.changed);
            frozen.left = Left::Changed(changed.into_iter());
        }
        self.checkpointed = self.generation;
        frozen
    }

    pub fn read(&mut self, frozen: &mut Frozen, directory: &Directory, odd: &Odd, limit: usize) -> Vec<FrozenBlock> {
        let generation = frozen.generation;
        let mut blocks = Vec::new();
        let mut count = 0;
        match &mut frozen.left {
            Left::Changed(left) => {
                while count < limit
                    && let Some(block) = left.next()
                {
                    let found = self.block_then(generation, block, directory, odd);
                    count += found.entries.len() + 1;
                    blocks.push(found);
                }
            }
            Left::All(from) => {
                while count < limit
                    && let Some(at) = *from
                {
                    let next = self.read_segment(generation, at, directory, odd, limit - count, &mut blocks);
                    count = blocks.iter().map(|block: &FrozenBlock| block.entries.len()).sum();
                    *from = next;
                    if let Some(open) = self.open.iter_mut().find(|open| open.generation == generation) {
                        open.passed = next.unwrap_or(u64::MAX);
                    }
                }
            }
        }
        blocks
    }

    /// Blocks from hash `at` on, all of one segment; where to go on.
    fn read_segment(
        &self,
        generation: u32,
        at: u64,
        directory: &Directory,
        odd: &Odd,
        limit: usize,
        out: &mut Vec<FrozenBlock>,
    ) -> Option<u64> {
        let (live, next) = directory.segment_from(at);
        let saved = self.saved.range((at, i64::MIN, 0)..);
        let saved = saved.take_while(|((hash, ..), _)| next.is_none_or(|next| *hash < next));
        let mut then: Vec<(u64, FrozenBlock)> = Vec::new();
        let mut shown: Vec<(u64, Version<'_>)> = live
            .into_iter()
            .filter(|(_, slot)| slot.generation < generation)
            .map(|(hash, slot)| (hash, Version::Live(slot)))
            .chain(
                saved.filter(|(key, saved)| saved.shown_at(key.2, generation)).map(|(k, s)| (k.0, Version::Saved(s))),
            )
            .collect();
        shown.sort_unstable_by_key(|(hash, version)| (*hash, version.slot().block));
        let mut count = 0;
        for (hash, version) in shown {
            if count >= limit && then.last().is_some_and(|(last, _)| *last != hash) {
                out.extend(then.into_iter().map(|(_, block)| block));
                return Some(hash);
            }
            let block = version.read(u64::MAX, odd);
            count += block.entries.len();
            then.push((hash, block));
        }
        out.extend(then.into_iter().map(|(_, block)| block));
        next
    }

    /// The changed lines of one block as it was then.
    fn block_then(&self, generation: u32, block: i64, directory: &Directory, odd: &Odd) -> FrozenBlock {
        let live = directory.find(block).map(|(_, slot)| slot).filter(|slot| slot.generation < generation);
        let hash = hash(block);
        let saved = || {
            let mut all = self.saved.range((hash, block, 0)..=(hash, block, u32::MAX));
            all.find(|(key, saved)| saved.shown_at(key.2, generation)).map(|(_, saved)| Version::Saved(saved))
        };
        match live.map(Version::Live).or_else(saved) {
            Some(version) => version.read(version.slot().dirty(), odd),
            None => FrozenBlock { block, present: 0, entries: Vec::new() },
        }
    }

    pub fn thaw(&mut self, frozen: &Frozen) {
        self.open.retain(|open| open.generation != frozen.generation);
        let open = &self.open;
        self.saved.retain(|key, saved| open.iter().any(|view| saved.shown_at(key.2, view.generation)));
    }

    /// Memory held for views and for the next checkpoint.
    pub fn bytes(&self) -> usize {
        let of = |saved: &Saved| size_of::<Saved>() + saved.slot.heap_bytes();
        self.saved.values().map(of).sum::<usize>() + self.changed.capacity() * size_of::<i64>()
    }
}

impl Saved {
    fn shown_at(&self, generation: u32, view: u32) -> bool {
        generation < view && view <= self.replaced_at
    }
}

enum Version<'a> {
    Live(&'a Slot),
    Saved(&'a Saved),
}

impl Version<'_> {
    fn slot(&self) -> &Slot {
        match self {
            Self::Live(slot) => slot,
            Self::Saved(saved) => &saved.slot,
        }
    }

    /// The block with the entries of these bits.
    fn read(&self, wanted: u64, live_odd: &Odd) -> FrozenBlock {
        let slot = self.slot();
        let wanted: Vec<i64> = bits(wanted & slot.present()).map(|number| id_at(slot.block, number)).collect();
        let lines = slot.lines().filter(|(id, _)| wanted.binary_search(id).is_ok());
        let entries = match self {
            Self::Live(_) => lines.map(|(id, line)| (id, whole(id, line, live_odd))).collect(),
            Self::Saved(saved) => {
                let odd: Odd = saved.odd.iter().copied().collect();
                lines.map(|(id, line)| (id, whole(id, line, &odd))).collect()
            }
        };
        FrozenBlock { block: slot.block, present: slot.present(), entries }
    }
}

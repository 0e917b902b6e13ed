//! Views of the table as it was, read step by step while it goes on changing.
//!
//! A freeze takes a number. A block carries the number of the newest freeze when it last changed; one with a smaller
//! number is still what the view shows. The first change of a block behind a freeze keeps a copy of the block as it
//! was, if a view still wants it. So freezing costs a constant, an append at most the copy of one block, and a reader
//! needs the table for a few blocks at a time. Any number of views may be open; each is read in the order of the
//! blocks' hashes, which does not depend on what happens meanwhile.

use std::collections::BTreeMap;

use super::block::{Slot, SpillPlace, bits, id_at, place_of};
use super::directory::{Directory, hash};
use super::{Odd, line};
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

impl Frozen {
    /// Puts the blocks of a view of changes in order, each once. To be called without a lock, before the first read.
    pub fn prepare(&mut self) {
        if let Left::Changed(blocks) = &mut self.left {
            let mut sorted = blocks.as_slice().to_vec();
            sorted.sort_unstable_by_key(|block| (hash(*block), *block));
            sorted.dedup();
            *blocks = sorted.into_iter();
        }
    }

    /// Whether the view is of changes only.
    pub fn is_partial(&self) -> bool {
        matches!(self.left, Left::Changed(_))
    }
}

/// A block of a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenBlock {
    /// Its ids are `block * 64` and the 63 behind.
    pub block: i64,
    /// Which of them there were, as bits; of others, everything is forgotten.
    pub present: u64,
    /// Which of those are given here.
    pub given: u64,
    /// Words of each line: 5 or 11.
    pub width: usize,
    /// The lines of those given, by id, ascending. What a line says is the table's business.
    pub lines: Vec<u64>,
    /// Of those given, the ones that fit no line: number in the block, and the entry.
    pub odd: Vec<(u8, ProducerEntry)>,
    /// The lines are to be got from here first, with [`Self::fill`]: none stands in `lines`.
    pub spilled: Option<SpillPlace>,
}

impl FrozenBlock {
    /// The producers given, by id, ascending.
    pub fn entries(&self) -> impl Iterator<Item = (i64, ProducerEntry)> {
        let lines = self.lines.chunks_exact(self.width);
        bits(self.given).zip(lines).map(|(number, line)| (id_at(self.block, number), self.entry(number, line)))
    }

    /// The ids of the block that there were not.
    pub fn absent_ids(&self) -> impl Iterator<Item = i64> {
        bits(!self.present).map(|number| id_at(self.block, number))
    }

    fn entry(&self, number: u8, line: &[u64]) -> ProducerEntry {
        let odd = || self.odd.iter().find(|(odd, _)| *odd == number).map(|(_, entry)| *entry);
        if line::is_odd(line) { odd().unwrap_or_default() } else { line::decode(line) }
    }

    /// The widths that a block may have.
    pub(crate) const WIDTHS: [usize; 2] = [line::NARROW, line::WIDE];

    /// Whether it may be put into a table: what was read from a disk may say anything.
    pub(crate) fn is_sound(&self) -> bool {
        let has_ids = place_of(id_at(self.block, 0)).0 == self.block;
        has_ids
            && self.lines.chunks_exact(self.width).zip(bits(self.given)).all(|(line, number)| {
                let elsewhere = self.odd.iter().any(|(odd, _)| *odd == number);
                line::is_odd(line) == elsewhere && (line::is_odd(line) || line::width(line) <= self.width)
            })
    }

    /// Words of the lines of all that there were.
    pub fn words(&self) -> usize {
        self.present.count_ones() as usize * self.width
    }

    /// Puts in the lines of all that there were, as they were spilled.
    pub fn fill(&mut self, lines: &[u64]) {
        let given = self.given;
        let wanted = bits(self.present).zip(lines.chunks_exact(self.width));
        let wanted = wanted.filter(|(number, _)| given >> number & 1 == 1);
        self.lines = wanted.flat_map(|(_, line)| line.iter().copied()).collect();
        self.spilled = None;
    }

    /// How many producers are given.
    pub fn count(&self) -> usize {
        self.given.count_ones() as usize
    }
}

/// A block as it was before it was changed.
#[derive(Debug, Clone)]
struct Saved {
    slot: Slot,
    odd: Vec<(u8, ProducerEntry)>,
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
            let odd = odd_of(slot.block, odd);
            let saved = Saved { slot: slot.clone(), odd, replaced_at: self.generation };
            self.saved.insert((hash, slot.block, slot.generation), saved);
        }
        if slot.generation < self.checkpointed {
            slot.clean();
            self.changed.push(slot.block);
        }
        slot.generation = self.generation;
    }

    /// The slot was as it is now before any view was begun; what changed in it did so behind the checkpoint that the
    /// table was restored from.
    pub fn backdate(&mut self, slot: &mut Slot) {
        slot.generation = u32::from(slot.dirty() != 0);
        if slot.dirty() != 0 {
            self.changed.push(slot.block);
        }
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

    pub fn freeze_changes(&mut self, len: usize, digest: u64, all: bool) -> Frozen {
        let mut frozen = self.freeze(len, digest);
        let changed = std::mem::take(&mut self.changed);
        if self.checkpointed > 0 && !all {
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
                    count += found.count() + 1;
                    blocks.push(found);
                }
            }
            Left::All(from) => {
                while count < limit
                    && let Some(at) = *from
                {
                    let next = self.read_segment(generation, at, directory, odd, limit - count, &mut blocks);
                    count = blocks.iter().map(FrozenBlock::count).sum();
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
            count += block.count();
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
            None => FrozenBlock {
                block,
                present: 0,
                given: 0,
                width: line::WIDE,
                lines: Vec::new(),
                odd: Vec::new(),
                spilled: None,
            },
        }
    }

    pub fn thaw(&mut self, frozen: &Frozen) {
        self.open.retain(|open| open.generation != frozen.generation);
        let open = &self.open;
        self.saved.retain(|key, saved| open.iter().any(|view| saved.shown_at(key.2, view.generation)));
    }

    /// Everything there is counts as written to a checkpoint; for a table read from one.
    pub fn begin_behind_checkpoint(&mut self) {
        (self.generation, self.checkpointed) = (1, 1);
    }

    /// Whether some view is being read.
    pub fn has_views(&self) -> bool {
        !self.open.is_empty()
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

/// The entries of a block that fit no line.
fn odd_of(block: i64, odd: &Odd) -> Vec<(u8, ProducerEntry)> {
    if odd.is_empty() {
        return Vec::new();
    }
    let ids = id_at(block, 0)..=id_at(block, 63);
    odd.range(ids).map(|(id, entry)| (place_of(*id).1, *entry)).collect()
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
        let given = wanted & slot.present();
        let width = slot.width();
        let mut lines = Vec::with_capacity(given.count_ones() as usize * width);
        for (id, line) in slot.lines() {
            if given >> place_of(id).1 & 1 == 1 {
                lines.extend_from_slice(&line[..width]);
            }
        }
        let mut odd = match self {
            Self::Live(slot) => odd_of(slot.block, live_odd),
            Self::Saved(saved) => saved.odd.clone(),
        };
        odd.retain(|(number, _)| given >> number & 1 == 1);
        let (present, spilled) = (slot.present(), slot.spilled());
        FrozenBlock { block: slot.block, present, given, width, lines, odd, spilled }
    }
}

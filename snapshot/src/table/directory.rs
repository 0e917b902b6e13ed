//! From a block to its slot.
//!
//! Extendible hashing: an index over the top bits of the hash names segments of at most 255 slots, and a segment that
//! is full becomes two. So no insertion moves more than one segment, however many blocks there are: one large table was
//! not chosen because its growth stops everyone. A segment's slots stand packed; small places with a piece of the hash
//! lead to them. The hash is fixed: the same ids take the same course everywhere.
//!
//! Ids are handed out from 0 on, so most blocks have small numbers. As far as those are dense, a list by number says
//! where each slot is: the way over the hash is four reads that wait for each other, and this is two. It need not be
//! right, since a place is looked at before it is believed.
//!
//! Order is by hash. It depends on the blocks alone and not on how they came in, and a segment that splits keeps it, so
//! that a walk may go on after any change.

use super::block::Slot;
use super::digest::{KEYS, fold};

/// Slots of a segment before it becomes two.
const SEGMENT_SLOTS: usize = 255;
/// Slots are added in steps of this many.
const STEP: usize = 16;
/// So many index entries for each block at most, whatever the hashes: beyond that segments grow instead of splitting.
const INDEX_PER_BLOCK: usize = 2;
/// Numbers of the list for each block at most.
const NEAR_PER_BLOCK: usize = 4;

/// All slots.
#[derive(Clone, Debug)]
pub(super) struct Directory {
    /// Segment numbers by the top `depth` bits of the hash.
    index: Vec<u32>,
    depth: u32,
    segments: Vec<Segment>,
    /// By block number, as far as blocks are dense.
    near: Vec<Hint>,
    blocks: usize,
}

#[derive(Clone, Debug, Default)]
struct Segment {
    /// Top bits of the hash that all its blocks share.
    depth: u32,
    /// Open addressing, a power of two long: 0, or number of the slot + 1 and above it eight bits of the hash.
    places: Vec<u32>,
    slots: Vec<Slot>,
}

const TAG_SHIFT: u32 = 24;

/// Where a slot was, to find it again at once if nothing has moved.
///
/// In one word: two that are stored one by one and read together have the reader wait until both are in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Hint(u32);

impl Hint {
    const SLOT_BITS: u32 = 9;
    /// The list did not know.
    const UNLISTED: u32 = 1 << 31;

    /// What does not fit leads elsewhere, where it is not believed.
    #[inline]
    fn of(segment: usize, slot: usize) -> Self {
        let slot = slot as u32 & ((1 << Self::SLOT_BITS) - 1);
        Self(((segment as u32) << Self::SLOT_BITS | slot) & !Self::UNLISTED)
    }

    #[inline]
    fn segment(self) -> usize {
        ((self.0 & !Self::UNLISTED) >> Self::SLOT_BITS) as usize
    }

    #[inline]
    fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }
}

const _: () = assert!(SEGMENT_SLOTS < 1 << Hint::SLOT_BITS, "every slot of a usual segment can be hinted at");

#[inline]
pub(super) fn hash(block: i64) -> u64 {
    fold(block as u64 ^ KEYS[0], KEYS[3])
}

impl Directory {
    pub fn new() -> Self {
        Self { index: vec![0], depth: 0, segments: vec![Segment::default()], near: Vec::new(), blocks: 0 }
    }

    /// The slot of a block, and where it is.
    #[inline(always)]
    pub fn find(&self, block: i64) -> Option<(Hint, &Slot)> {
        if let Some(&hint) = self.near.get(block as usize)
            && let Some(slot) = self.segments.get(hint.segment()).and_then(|s| s.slots.get(hint.slot()))
            && slot.block == block
        {
            return Some((hint, slot));
        }
        let (segment, slot) = self.find_far(block)?;
        Some((Hint(Hint::of(segment, slot).0 | Hint::UNLISTED), &self.segments[segment].slots[slot]))
    }

    /// As [`Self::find`], to be changed; `hint` is looked at first.
    #[inline]
    pub fn find_mut(&mut self, block: i64, hint: Hint) -> Option<&mut Slot> {
        let known = self.segments.get(hint.segment()).and_then(|s| s.slots.get(hint.slot()));
        let (segment, slot) = match known {
            Some(known) if known.block == block && hint.0 & Hint::UNLISTED == 0 => (hint.segment(), hint.slot()),
            _ => self.find_and_list(block)?,
        };
        self.segments[segment].slots.get_mut(slot)
    }

    /// As [`Self::find_far`], and puts the list right: slots move when a segment becomes two.
    #[cold]
    fn find_and_list(&mut self, block: i64) -> Option<(usize, usize)> {
        let (segment, slot) = self.find_far(block)?;
        if let Some(near) = self.near.get_mut(block as usize) {
            *near = Hint::of(segment, slot);
        }
        Some((segment, slot))
    }

    /// Segment and number of the slot of a block, over its hash.
    #[inline(never)]
    fn find_far(&self, block: i64) -> Option<(usize, usize)> {
        let hash = hash(block);
        let number = self.segment_of(hash);
        Some((number, self.segments[number].find(hash, block)?))
    }

    /// Adds a slot; its block must not be there.
    pub fn insert(&mut self, slot: Slot) {
        let hash = hash(slot.block);
        self.blocks += 1;
        let mut number = self.segment_of(hash);
        while self.segments[number].slots.len() >= SEGMENT_SLOTS && self.split(number) {
            number = self.segment_of(hash);
        }
        let number_of_block = slot.block as usize;
        self.segments[number].insert(hash, slot);
        if number_of_block >= self.near.len() && number_of_block < self.blocks * NEAR_PER_BLOCK {
            self.near.resize(number_of_block + 1, Hint::default());
        }
    }

    /// Takes a block out.
    pub fn remove(&mut self, block: i64) {
        let hash = hash(block);
        let number = self.segment_of(hash);
        let segment = &mut self.segments[number];
        if let Some(slot) = segment.find(hash, block) {
            segment.slots.swap_remove(slot);
            segment.place_anew();
            self.blocks -= 1;
        }
    }

    /// All slots, in no order worth a name.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.segments.iter().flat_map(|segment| &segment.slots)
    }

    /// The slots at or behind `from` in the order of their hashes, as far as one segment goes, with the hash that
    /// begins the next segment; none at the end.
    pub fn segment_from(&self, from: u64) -> (Vec<(u64, &Slot)>, Option<u64>) {
        let segment = &self.segments[self.segment_of(from)];
        let hashed = segment.slots.iter().map(|slot| (hash(slot.block), slot));
        let mut found: Vec<_> = hashed.filter(|(hash, _)| *hash >= from).collect();
        found.sort_unstable_by_key(|(hash, slot)| (*hash, slot.block));
        (found, segment.end_from(from))
    }

    /// Slots of one segment, to be looked through, and where the next one begins.
    pub fn segment_mut(&mut self, from: u64) -> (&mut [Slot], Option<u64>) {
        let number = self.segment_of(from);
        let segment = &mut self.segments[number];
        let end = segment.end_from(from);
        (&mut segment.slots, end)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.blocks
    }

    /// Memory of the directory and what its slots hold.
    pub fn bytes(&self) -> usize {
        let of = |segment: &Segment| {
            segment.places.capacity() * size_of::<u32>() + segment.slots.capacity() * size_of::<Slot>()
        };
        let near = self.near.capacity() * size_of::<Hint>();
        let fixed = near + self.index.capacity() * size_of::<u32>() + self.segments.capacity() * size_of::<Segment>();
        fixed + self.segments.iter().map(of).sum::<usize>() + self.slots().map(Slot::heap_bytes).sum::<usize>()
    }

    #[inline]
    fn segment_of(&self, hash: u64) -> usize {
        // Two shifts: one by 64 is none.
        let at = (hash >> 1 >> (63 - self.depth)) as usize;
        self.index[at] as usize
    }

    /// Makes two of a segment; false if the index would grow too large for it.
    fn split(&mut self, number: usize) -> bool {
        let depth = self.segments[number].depth;
        if depth == self.depth {
            if self.index.len() * 2 > self.blocks * INDEX_PER_BLOCK {
                return false;
            }
            self.index = self.index.iter().flat_map(|&segment| [segment, segment]).collect();
            self.depth += 1;
        }
        let all = std::mem::take(&mut self.segments[number]).slots;
        let bit = 1 << (63 - depth);
        let first = all.iter().map(|slot| hash(slot.block)).next().unwrap_or(0);
        let (mut low, mut high) = (Segment::with_depth(depth + 1), Segment::with_depth(depth + 1));
        for slot in all {
            let side = if hash(slot.block) & bit == 0 { &mut low } else { &mut high };
            side.push(slot);
        }
        low.place_anew();
        high.place_anew();
        self.segments[number] = low;
        let upper = self.segments.len() as u32;
        self.segments.push(high);
        // Of the index entries that named the segment, the upper half.
        let from = (((first >> 1 >> (63 - depth)) << 1 | 1) << (self.depth - depth - 1)) as usize;
        self.index[from..from + (1 << (self.depth - depth - 1))].fill(upper);
        true
    }
}

impl Segment {
    fn with_depth(depth: u32) -> Self {
        Self { depth, ..Self::default() }
    }

    #[inline]
    fn find(&self, hash: u64, block: i64) -> Option<usize> {
        let mask = self.places.len().wrapping_sub(1);
        let tag = tag_of(hash);
        let mut at = hash as usize;
        loop {
            let place = *self.places.get(at & mask)?;
            if place == 0 {
                return None;
            }
            if place & !((1 << TAG_SHIFT) - 1) == tag {
                let slot = (place & ((1 << TAG_SHIFT) - 1)) as usize - 1;
                if self.slots[slot].block == block {
                    return Some(slot);
                }
            }
            at = at.wrapping_add(1);
        }
    }

    fn insert(&mut self, hash: u64, slot: Slot) {
        self.push(slot);
        if self.slots.len() * 3 > self.places.len() * 2 {
            self.place_anew();
        } else {
            self.place(hash, self.slots.len() - 1);
        }
    }

    fn push(&mut self, slot: Slot) {
        if self.slots.len() == self.slots.capacity() {
            self.slots.reserve_exact(self.slots.len().clamp(1, STEP));
        }
        self.slots.push(slot);
    }

    fn place(&mut self, hash: u64, slot: usize) {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        while self.places[at] != 0 {
            at = (at + 1) & mask;
        }
        self.places[at] = tag_of(hash) | (slot as u32 + 1);
    }

    fn place_anew(&mut self) {
        self.places = vec![0; (self.slots.len() * 3 / 2 + 1).next_power_of_two()];
        for slot in 0..self.slots.len() {
            self.place(hash(self.slots[slot].block), slot);
        }
    }

    /// Where the hashes behind this segment begin; `within` is a hash of its own.
    fn end_from(&self, within: u64) -> Option<u64> {
        if self.depth == 0 {
            return None;
        }
        let size = 1 << (64 - self.depth);
        (within & !(size - 1)).checked_add(size)
    }
}

#[inline]
fn tag_of(hash: u64) -> u32 {
    // Bits that choose neither the segment nor the place.
    (hash >> 16) as u32 & 0xff << TAG_SHIFT
}

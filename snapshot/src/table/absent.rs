//! Producers that are on disk and not in memory yet.
//!
//! A page holds the blocks of a range of hashes, so that the page of a block is found without reading anything, and a
//! range is in memory whole or not at all. What later checkpoints changed of a page waits beside it and is put on when
//! the page comes: opening a log costs what changed, not what there is.

use std::collections::BTreeMap;

use super::block::{Slot, bits, id_at};
use super::directory::hash;
use super::frozen::FrozenBlock;
use super::line::WIDE;
use crate::producer::ProducerEntry;

/// A slot, and the entries of it that fit no line.
type Assembled = (Slot, Vec<(i64, ProducerEntry)>);

#[derive(Debug, Clone)]
pub(super) struct Absent {
    /// Where the hashes of each page begin; the first one's range begins at 0.
    first_hashes: Vec<u64>,
    supplied: Vec<bool>,
    /// No page before this one is missing.
    first: usize,
    /// By hash and block, oldest first.
    changes: BTreeMap<(u64, i64), Vec<FrozenBlock>>,
}

impl Absent {
    pub fn new(first_hashes: Vec<u64>, all: Vec<Vec<FrozenBlock>>) -> Option<Self> {
        let mut changes: BTreeMap<(u64, i64), Vec<FrozenBlock>> = BTreeMap::new();
        for block in all.into_iter().flatten() {
            changes.entry((hash(block.block), block.block)).or_default().push(block);
        }
        let supplied = vec![false; first_hashes.len()];
        (!first_hashes.is_empty()).then_some(Self { first_hashes, supplied, first: 0, changes })
    }

    pub fn page_of(&self, block: i64) -> Option<usize> {
        let hash = hash(block);
        let page = self.first_hashes.partition_point(|first| *first <= hash).saturating_sub(1);
        (!self.supplied[page]).then_some(page)
    }

    pub fn first(&self) -> Option<usize> {
        (self.first < self.supplied.len()).then_some(self.first)
    }

    /// The slots of a page with everything put on that changed since it was written; `None` if it was supplied before.
    pub fn supply(&mut self, page: usize, blocks: Vec<FrozenBlock>) -> Option<Vec<Assembled>> {
        if self.supplied.get(page) != Some(&false) {
            return None;
        }
        self.supplied[page] = true;
        while self.supplied.get(self.first) == Some(&true) {
            self.first += 1;
        }
        let mut versions: BTreeMap<(u64, i64), Vec<FrozenBlock>> = BTreeMap::new();
        for block in blocks {
            versions.insert((hash(block.block), block.block), vec![block]);
        }
        let from = if page == 0 { 0 } else { self.first_hashes[page] };
        let mut changes = self.changes.split_off(&(from, i64::MIN));
        if let Some(next) = self.first_hashes.get(page + 1) {
            self.changes.append(&mut changes.split_off(&(*next, i64::MIN)));
        }
        for (key, changed) in changes {
            versions.entry(key).or_default().extend(changed);
        }
        Some(versions.into_iter().filter_map(|((_, block), versions)| assemble(block, &versions)).collect())
    }
}

/// A slot from versions of its block, oldest first; none if nobody is left in it.
fn assemble(block: i64, versions: &[FrozenBlock]) -> Option<Assembled> {
    let mut slot: Option<Slot> = None;
    let mut odd: BTreeMap<i64, ProducerEntry> = BTreeMap::new();
    for version in versions {
        for number in bits(slot.as_ref().map_or(0, Slot::present) & !version.present) {
            odd.remove(&id_at(block, number));
            if slot.as_mut().is_some_and(|slot| slot.remove(number)) {
                slot = None;
            }
        }
        for number in bits(version.given) {
            odd.remove(&id_at(block, number));
        }
        odd.extend(version.odd.iter().map(|(number, entry)| (id_at(block, *number), *entry)));
        match &mut slot {
            None => slot = Slot::of_lines(block, version.given, version.width, &version.lines),
            Some(slot) => {
                for (number, words) in bits(version.given).zip(version.lines.chunks_exact(version.width)) {
                    let mut line = [0; WIDE];
                    line[..words.len()].copy_from_slice(words);
                    slot.store(number, &line, version.width);
                }
            }
        }
    }
    slot.map(|slot| (slot, odd.into_iter().collect()))
}

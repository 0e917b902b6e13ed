//! Blocks whose lines are kept elsewhere, and the walks that go round all blocks a few at a time.
//!
//! Who owns a table with too many producers takes cold blocks out of it and puts their lines somewhere, word for word.
//! The slot stays: it says which ids there are, which of them changed and where the lines are, so that nobody is
//! forgotten and no frozen view or checkpoint needs to know what is in memory. A block is one read; a larger unit was
//! not chosen because a producer that returns brings his neighbours along. Lone ids have no lines besides their slot,
//! and stay.

use super::block::{Slot, SpillPlace, place_of};
use super::directory::Hint;
use super::{ProducerTable, last_append};
use crate::producer::ProducerEntry;

/// A block whose lines are to be taken elsewhere, or got from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spilled {
    /// Its ids are `block * 64` and the 63 behind.
    pub block: i64,
    /// Where its lines are.
    pub place: SpillPlace,
    /// How many words they have.
    pub words: usize,
}

impl Spilled {
    fn of(slot: &Slot) -> Option<Self> {
        slot.spilled().map(|place| Self { block: slot.block, place, words: slot.words() })
    }
}

/// One step of a sweep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Swept {
    /// Who was dropped.
    pub expired: Vec<(i64, ProducerEntry)>,
    /// Some blocks that may hold expired ones and must be brought back before the next step can tell.
    pub spilled: Vec<Spilled>,
    /// Where the next step begins; none: the sweep is over.
    pub next: Option<u64>,
}

/// Spilled blocks that a step of a sweep asks for.
const STEP_SPILLED: usize = 16;

impl ProducerTable {
    /// The lines of this producer's block must be brought back before anything is asked of it.
    #[inline]
    pub fn missing_block(&self, producer_id: i64) -> Option<Spilled> {
        if self.spilled == 0 {
            return None;
        }
        self.directory.find(place_of(producer_id).0).and_then(|(_, slot)| Spilled::of(slot))
    }

    /// Nothing may be asked of this producer before his page was supplied, or his block brought back.
    #[inline]
    pub fn is_away(&self, producer_id: i64) -> bool {
        self.missing_page(producer_id).is_some() || self.missing_block(producer_id).is_some()
    }

    /// Blocks that are elsewhere.
    pub fn spilled(&self) -> usize {
        self.spilled
    }

    /// Some of the blocks that are elsewhere, from `from` on, and where to go on: from 0 until it answers `None`.
    pub fn spilled_from(&mut self, from: u64) -> (Vec<Spilled>, Option<u64>) {
        let (slots, next) = self.directory.segment_mut(from);
        (slots.iter().filter_map(Spilled::of).collect(), next)
    }

    /// Memory of the table, nearly, without counting.
    pub fn bytes_now(&self) -> usize {
        self.line_bytes + self.directory.len() * (size_of::<Slot>() + size_of::<u64>())
    }

    /// At most `most` blocks that nobody changed since this walk last came by, with copies of their lines, and where to
    /// go on: from 0, round and round.
    pub fn cold(&mut self, from: u64, most: usize) -> (Vec<(i64, Vec<u64>)>, Option<u64>) {
        let (slots, next) = self.directory.segment_mut(from);
        let mut found = Vec::new();
        for slot in slots {
            if found.len() == most {
                return (found, Some(from));
            }
            let block = slot.block;
            found.extend(slot.cold_lines().map(|lines| (block, lines.to_vec())));
        }
        (found, next)
    }

    /// The lines of a block that [`Self::cold`] gave stand at `place` now, and need not be here. False, and nothing
    /// happens, if the block has changed since.
    pub fn let_go(&mut self, block: i64, place: SpillPlace) -> bool {
        let Some(slot) = self.directory.find_mut(block, Hint::default()) else { return false };
        let bytes = slot.heap_bytes();
        let gone = slot.let_go(place);
        if gone {
            self.spilled += 1;
            self.line_bytes -= bytes;
        }
        gone
    }

    /// Brings the lines of a block back from `place`. False, and nothing happens, if that is not where they are.
    pub fn take_back(&mut self, block: i64, place: SpillPlace, lines: Vec<u64>) -> bool {
        let Some(slot) = self.directory.find_mut(block, Hint::default()) else { return false };
        let back = slot.take_back(place, lines);
        if back {
            self.spilled -= 1;
            self.line_bytes += slot.heap_bytes();
        }
        back
    }

    /// Whether a frozen view is being read: it may still ask for what was spilled, wherever that stood.
    pub fn has_views(&self) -> bool {
        self.versions.has_views()
    }

    /// One step of [`Self::expire`], over at most 255 blocks and with about `most` producers dropped: from 0, then from
    /// where the step before ended, until it answers `None`.
    pub fn sweep(&mut self, from: u64, now_ms: i64, expiration_ms: i64, most: usize) -> Swept {
        let limit_ms = now_ms.saturating_sub(expiration_ms);
        let (mut expired, mut spilled) = (Vec::new(), Vec::new());
        let (slots, mut next) = self.directory.segment_mut(from);
        for slot in slots.iter_mut().filter(|slot| !slot.is_newer_than(limit_ms)) {
            if expired.len() >= most || spilled.len() == STEP_SPILLED {
                // What is dropped now is gone by then, and who stays in a block is not looked at twice.
                next = Some(from);
                break;
            }
            if let Some(elsewhere) = Spilled::of(slot) {
                spilled.push(elsewhere);
                next = Some(from);
                continue;
            }
            let mut oldest_ms = i64::MAX;
            for (id, line) in slot.lines() {
                let (append_ms, has_txn) = last_append(id, line, &self.odd);
                if append_ms <= limit_ms && !has_txn {
                    expired.push(id);
                } else {
                    oldest_ms = oldest_ms.min(append_ms);
                }
            }
            slot.set_oldest_append_ms(oldest_ms);
        }
        let expired = expired.into_iter().filter_map(|id| Some((id, self.remove(id)?))).collect();
        Swept { expired, spilled, next }
    }
}

//! Where recent reads ended: the next read of the same reader begins there and needs no lookup.

use parking_lot::Mutex;

/// So many readers of one log are remembered; one more costs somebody a lookup.
const CURSORS: usize = 16;

/// Offset `offset` begins at byte `position` of the segment `base_offset`, as long as nothing was truncated.
#[derive(Clone, Copy)]
struct Cursor {
    generation: u64,
    base_offset: i64,
    offset: i64,
    position: u64,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Cursors {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    cursors: Vec<Cursor>,
    oldest: usize,
}

impl Cursors {
    /// Where the batch behind `offset` begins, if a read ended there.
    pub fn position(&self, generation: u64, base_offset: i64, offset: i64) -> Option<u64> {
        let kept = self.kept.lock();
        let found =
            kept.cursors.iter().find(|c| (c.generation, c.base_offset, c.offset) == (generation, base_offset, offset));
        found.map(|cursor| cursor.position)
    }

    /// A reader that began at `from` has come to `offset`, which begins at `position`.
    pub fn advance(&self, generation: u64, base_offset: i64, from: i64, offset: i64, position: u64) {
        let cursor = Cursor { generation, base_offset, offset, position };
        let mut kept = self.kept.lock();
        let mine = kept.cursors.iter().position(|c| c.offset == from || c.offset == offset);
        match mine {
            Some(at) => kept.cursors[at] = cursor,
            None if kept.cursors.len() < CURSORS => kept.cursors.push(cursor),
            None => {
                let oldest = kept.oldest;
                kept.cursors[oldest] = cursor;
                kept.oldest = (oldest + 1) % CURSORS;
            }
        }
    }
}

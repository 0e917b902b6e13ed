//! Sixty-four neighbouring ids: what one slot of the directory holds.
//!
//! Ids are handed out in runs, so neighbours share a block: a bitmap says which are there, and their lines stand one
//! behind the other, in the order of their ids, all five words wide or all eleven. A lone id needs no lines elsewhere:
//! it stands in the slot itself. So memory follows what is there, whether ids are dense, scattered or anything between.

use super::line::{self, NARROW, WIDE};

/// Ids of a block.
pub(super) const BLOCK_IDS: usize = 64;

/// The block of an id and its number therein.
#[inline]
pub(super) fn place_of(producer_id: i64) -> (i64, u8) {
    (producer_id >> BLOCK_IDS.trailing_zeros(), producer_id as u8 % BLOCK_IDS as u8)
}

/// The id at a place.
pub(super) fn id_at(block: i64, number: u8) -> i64 {
    block << BLOCK_IDS.trailing_zeros() | i64::from(number)
}

/// A slot of the directory.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// Which ids: `block * 64` and following.
    pub block: i64,
    /// Number of the newest freeze when the block last changed.
    pub generation: u32,
    /// Of a lone id: its number.
    lone: u8,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Lone { line: [u64; WIDE], dirty: bool },
    Many(Many),
}

#[derive(Clone, Debug)]
struct Many {
    present: u64,
    /// Which changed since the checkpoint that the generation lies behind.
    dirty: u64,
    /// No line's last append is older.
    oldest_append_ms: i64,
    /// The lines are of the wide kind.
    wide: bool,
    /// Changed since it was last passed over by who looks for blocks to spill.
    used: bool,
    /// Where the lines are while they are not here.
    spilled: Option<SpillPlace>,
    lines: Vec<u64>,
}

/// Where the owner of a table has put the lines of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpillPlace(pub std::num::NonZeroU64);

const _: () = assert!(size_of::<Slot>() <= 112, "the size of a slot is what a scattered id costs");

impl Slot {
    /// A block with one id.
    pub fn new(block: i64, number: u8, generation: u32, line: &[u64; WIDE]) -> Self {
        Self { block, generation, lone: number, body: Body::Lone { line: *line, dirty: false } }
    }

    /// A block of these lines, one for each bit of `present`, all of one width; unchanged since any freeze. None
    /// without a line.
    pub fn of_lines(block: i64, present: u64, width: usize, lines: &[u64]) -> Option<Self> {
        let (count, wide) = (present.count_ones() as usize, width == WIDE);
        match count {
            _ if lines.len() < count * width || count == 0 => None,
            1 => {
                let mut line = [0; WIDE];
                line[..width].copy_from_slice(&lines[..width]);
                Some(Self::new(block, present.trailing_zeros() as u8, 0, &line))
            }
            _ => {
                let lines = lines.to_vec();
                let many =
                    Many { present, dirty: 0, oldest_append_ms: i64::MIN, wide, used: true, spilled: None, lines };
                Some(Self { block, generation: 0, lone: 0, body: Body::Many(many) })
            }
        }
    }

    /// The line of an id.
    #[inline]
    pub fn line(&self, number: u8) -> Option<&[u64]> {
        match &self.body {
            Body::Many(many) => {
                let at = many.at(number)?;
                many.lines.get(at..at + many.width())
            }
            Body::Lone { line, .. } => (self.lone == number).then_some(line),
        }
    }

    /// The line of an id, to be changed.
    #[inline]
    pub fn line_mut(&mut self, number: u8) -> Option<&mut [u64]> {
        match &mut self.body {
            Body::Many(many) => {
                let (at, width) = (many.at(number)?, many.width());
                many.lines.get_mut(at..at + width)
            }
            Body::Lone { line, .. } => (self.lone == number).then_some(line),
        }
    }

    /// Words of each line that count.
    pub fn width(&self) -> usize {
        match &self.body {
            Body::Lone { line, .. } => line::width(line),
            Body::Many(many) => many.width(),
        }
    }

    /// Which ids are there, as bits.
    pub fn present(&self) -> u64 {
        match &self.body {
            Body::Lone { .. } => 1 << self.lone,
            Body::Many(many) => many.present,
        }
    }

    /// Which ids changed, as bits.
    pub fn dirty(&self) -> u64 {
        match &self.body {
            Body::Lone { dirty, .. } => u64::from(*dirty) << self.lone,
            Body::Many(many) => many.dirty,
        }
    }

    /// Nothing counts as changed any more.
    pub fn clean(&mut self) {
        match &mut self.body {
            Body::Lone { dirty, .. } => *dirty = false,
            Body::Many(many) => many.dirty = 0,
        }
    }

    /// The id changed, by an append at this time of our clock, which may have gone back.
    #[inline]
    pub fn soil(&mut self, number: u8, time_ms: i64) {
        match &mut self.body {
            Body::Lone { dirty, .. } => *dirty = true,
            Body::Many(many) => {
                many.dirty |= 1 << number;
                many.used = true;
                many.oldest_append_ms = many.oldest_append_ms.min(time_ms);
            }
        }
    }

    /// Where the lines are, if they are not here: then nothing may be asked of any.
    #[inline]
    pub fn spilled(&self) -> Option<SpillPlace> {
        match &self.body {
            Body::Many(many) => many.spilled,
            Body::Lone { .. } => None,
        }
    }

    /// The lines, if they may go: nothing in here changed since the last time this was asked, and no transaction is
    /// open, whose producers are looked at without being asked for.
    pub fn cold_lines(&mut self) -> Option<&[u64]> {
        let Body::Many(many) = &mut self.body else { return None };
        let was_used = std::mem::replace(&mut many.used, false);
        let stays = |line: &[u64]| line::is_odd(line) || line::has_txn(line);
        let goes = !was_used && many.spilled.is_none() && !many.lines.chunks_exact(many.width()).any(stays);
        goes.then_some(&many.lines)
    }

    /// Lets go of lines that stand elsewhere now; false, and nothing happens, if the block has changed meanwhile.
    pub fn let_go(&mut self, place: SpillPlace) -> bool {
        match &mut self.body {
            Body::Many(many) if !many.used && many.spilled.is_none() => {
                (many.lines, many.spilled) = (Vec::new(), Some(place));
                true
            }
            _ => false,
        }
    }

    /// Takes lines back that stood at `place`; false, and nothing happens, if that is not where they are.
    pub fn take_back(&mut self, place: SpillPlace, lines: Vec<u64>) -> bool {
        match &mut self.body {
            Body::Many(many) if many.spilled == Some(place) && lines.len() == many.words() => {
                (many.lines, many.spilled, many.used) = (lines, None, true);
                true
            }
            _ => false,
        }
    }

    /// Words of all lines.
    pub fn words(&self) -> usize {
        match &self.body {
            Body::Lone { .. } => WIDE,
            Body::Many(many) => many.words(),
        }
    }

    /// All ids with their lines, ascending.
    pub fn lines(&self) -> impl Iterator<Item = (i64, &[u64])> {
        let (lone, many) = match &self.body {
            Body::Lone { line, .. } => (Some((id_at(self.block, self.lone), &line[..])), None),
            Body::Many(many) => (None, Some(many)),
        };
        let many = many.into_iter().flat_map(|many| {
            let ids = bits(many.present).map(|number| id_at(self.block, number));
            ids.zip(many.lines.chunks_exact(many.width()))
        });
        lone.into_iter().chain(many)
    }

    /// Stores a line of which the first `width` words count; the id may be there or not.
    pub fn store(&mut self, number: u8, line: &[u64; WIDE], width: usize) {
        match &mut self.body {
            Body::Lone { line: only, .. } if self.lone == number => *only = *line,
            Body::Lone { line: only, dirty } => {
                let mut many = Many {
                    present: 0,
                    dirty: u64::from(*dirty) << self.lone,
                    oldest_append_ms: i64::MIN,
                    wide: false,
                    used: true,
                    spilled: None,
                    lines: Vec::new(),
                };
                many.store(self.lone, only, line::width(only));
                many.store(number, line, width);
                self.body = Body::Many(many);
            }
            Body::Many(many) => many.store(number, line, width),
        }
    }

    /// Takes an id out; answers whether the block is empty now. The id must be there.
    pub fn remove(&mut self, number: u8) -> bool {
        let Body::Many(many) = &mut self.body else { return true };
        many.remove(number);
        if many.present.count_ones() == 1 {
            let mut line = [0; WIDE];
            line[..many.width()].copy_from_slice(&many.lines[..many.width()]);
            self.lone = many.present.trailing_zeros() as u8;
            self.body = Body::Lone { line, dirty: many.dirty >> self.lone & 1 == 1 };
        }
        false
    }

    /// Whether no producer in here can have appended before `time_ms`, as far as is known without a look.
    pub fn is_newer_than(&self, time_ms: i64) -> bool {
        match &self.body {
            Body::Lone { line, .. } => !line::is_odd(line) && line::last_append_ms(line) > time_ms,
            Body::Many(many) => many.oldest_append_ms > time_ms,
        }
    }

    /// Notes that a look found nothing older.
    pub fn set_oldest_append_ms(&mut self, time_ms: i64) {
        if let Body::Many(many) = &mut self.body {
            many.oldest_append_ms = time_ms;
        }
    }

    /// Memory besides the slot itself.
    pub fn heap_bytes(&self) -> usize {
        match &self.body {
            Body::Lone { .. } => 0,
            Body::Many(many) => many.lines.capacity() * size_of::<u64>(),
        }
    }
}

impl Many {
    /// Words of each line.
    #[inline]
    fn width(&self) -> usize {
        if self.wide { WIDE } else { NARROW }
    }

    /// Words of all lines.
    fn words(&self) -> usize {
        self.present.count_ones() as usize * self.width()
    }

    /// Where the line of an id begins.
    #[inline]
    fn at(&self, number: u8) -> Option<usize> {
        let bit = 1 << number;
        (self.present & bit != 0).then(|| self.rank(number) * self.width())
    }

    /// How many ids before this one are there. Most blocks are full, and counting bits is slow where the processor may
    /// not be asked to.
    #[inline]
    fn rank(&self, number: u8) -> usize {
        let below = self.present & ((1 << number) - 1);
        if self.present == u64::MAX { usize::from(number) } else { below.count_ones() as usize }
    }

    fn store(&mut self, number: u8, line: &[u64; WIDE], width: usize) {
        debug_assert!(self.spilled.is_none(), "the lines are elsewhere");
        if width > self.width() {
            self.widen();
        }
        if let Some(at) = self.at(number) {
            let width = self.width();
            self.lines[at..at + width].copy_from_slice(&line[..width]);
            return;
        }
        let width = self.width();
        let at = self.rank(number) * width;
        let count = self.present.count_ones() as usize;
        if self.lines.len() + width > self.lines.capacity() {
            // A block fills up with time: room for a half more at a time, and never for more than there can be.
            let room = (count + 1 + count / 2).min(BLOCK_IDS);
            self.lines.reserve_exact(room * width - self.lines.len());
        }
        self.lines.splice(at..at, line[..width].iter().copied());
        self.present |= 1 << number;
    }

    fn widen(&mut self) {
        let count = self.present.count_ones() as usize;
        let mut wide = Vec::with_capacity(self.lines.capacity() / NARROW * WIDE);
        for line in self.lines.chunks_exact(NARROW) {
            wide.extend_from_slice(line);
            wide.extend_from_slice(&[0; WIDE - NARROW]);
        }
        debug_assert_eq!(wide.len(), count * WIDE);
        (self.lines, self.wide) = (wide, true);
    }

    fn remove(&mut self, number: u8) {
        debug_assert!(self.spilled.is_none(), "the lines are elsewhere");
        let (Some(at), width) = (self.at(number), self.width()) else { return };
        self.lines.drain(at..at + width);
        self.present &= !(1 << number);
        self.dirty &= !(1 << number);
        self.used = true;
        if self.lines.len() * 2 < self.lines.capacity() {
            self.lines.shrink_to_fit();
        }
    }
}

/// Numbers of the bits set, ascending.
pub(super) fn bits(mut set: u64) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let lowest = (set != 0).then(|| set.trailing_zeros() as u8)?;
        set &= set - 1;
        Some(lowest)
    })
}

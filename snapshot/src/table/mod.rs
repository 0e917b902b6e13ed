//! The entries of all producers of one log, at a fixed price each.
//!
//! An entry is kept as a `line` of 40 or 88 bytes in a `block` of sixty-four neighbouring ids, found through a
//! `directory`. An append looks a line up and changes it in place. What must not grow with the number of producers goes
//! by blocks: a frozen view copies a block when it is changed (`frozen`), a sweep passes over blocks that are young
//! enough, a checkpoint takes the lines that changed. A tree was not chosen because it is slower by far to look up, one
//! large hash map because its growth and its copy stop everyone, and pages behind reference counts because asking for
//! the count costs more than the whole verdict.
//!
//! No chance is involved, and every order that can be seen is defined: by id, or by a fixed hash of the ids.

mod absent;
mod block;
mod digest;
mod directory;
mod frozen;
mod line;
mod spill;

use std::collections::BTreeMap;

use absent::Absent;
use block::{Slot, place_of};
use directory::Directory;
use frozen::Versions;

use crate::admit::{Incoming, absorb};
use crate::producer::{Forgotten, Known, ProducerEntry, Standing, Update};

pub use block::SpillPlace;
pub use directory::Hint;
pub use frozen::{Frozen, FrozenBlock};
pub use spill::{Spilled, Swept};

/// What a producer adds to the digest.
pub(crate) fn entry_term(producer_id: i64, entry: &ProducerEntry) -> u64 {
    digest::entry_term(producer_id, entry)
}

/// Where a block stands in the order of frozen views and pages.
pub(crate) fn block_hash(block: i64) -> u64 {
    directory::hash(block)
}

/// Producers whose values fit no line.
type Odd = BTreeMap<i64, ProducerEntry>;

/// Producer entries by producer id.
#[derive(Debug, Clone)]
pub struct ProducerTable {
    directory: Directory,
    odd: Odd,
    versions: Versions,
    absent: Option<Absent>,
    /// Blocks whose lines are elsewhere.
    spilled: usize,
    /// Memory of the lines that are here.
    line_bytes: usize,
    len: usize,
    digest: u64,
    replayed_from: i64,
}

impl Default for ProducerTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for ProducerTable {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
            && self.len == other.len
            && self.iter().all(|(id, entry)| other.get(id).as_ref() == Some(&entry))
    }
}

impl Eq for ProducerTable {}

impl ProducerTable {
    /// No producer.
    pub fn new() -> Self {
        Self {
            directory: Directory::new(),
            odd: Odd::new(),
            versions: Versions::default(),
            absent: None,
            spilled: 0,
            line_bytes: 0,
            len: 0,
            digest: 0,
            replayed_from: 0,
        }
    }

    /// The log was just loaded, or cut: Kafka has begun with a snapshot, which tells it the newest batch of each
    /// producer, and has read every batch from this offset on.
    pub fn note_load(&mut self, replayed_from: i64) {
        self.replayed_from = replayed_from;
    }

    /// The memory that [`Self::look`] and [`Self::apply`] will read: to be asked for ahead of them.
    #[inline]
    pub fn memory(&self, producer_id: i64) -> &[u64] {
        let (block, number) = place_of(producer_id);
        self.directory.find(block).and_then(|(_, slot)| slot.line(number)).unwrap_or_default()
    }

    /// What is known of `producer_id` when its batch of these values comes in, and where it is: for the change to come.
    /// The hint is good for as long as nothing changes, and harmless behind that: a place is looked at before it is
    /// believed.
    #[inline(always)]
    pub fn look(&self, producer_id: i64, epoch: i16, first_sequence: i32, last_sequence: i32) -> (Known, Hint) {
        let (block, number) = place_of(producer_id);
        let Some((hint, slot)) = self.directory.find(block) else { return (Known::default(), Hint::default()) };
        match slot.line(number) {
            None => (Known::default(), hint),
            Some(line) if line::is_odd(line) => {
                (self.look_aside(producer_id, epoch, first_sequence, last_sequence), hint)
            }
            Some(line) => (line::look(line, epoch, first_sequence, last_sequence), hint),
        }
    }

    #[cold]
    fn look_aside(&self, producer_id: i64, epoch: i16, first_sequence: i32, last_sequence: i32) -> Known {
        self.odd[&producer_id].look(epoch, first_sequence, last_sequence, self.replayed_from)
    }

    /// Takes over what an append changed of `producer_id`. `hint`: see [`Self::look`].
    #[inline]
    pub fn apply(&mut self, producer_id: i64, update: &Update, hint: Hint) {
        let added = update.batch.as_ref().map(line::Place::of);
        if !self.push(producer_id, hint, update.last_append_ms, added.as_ref(), |line| line::push(line, update)) {
            self.apply_whole(producer_id, *update);
        }
    }

    /// Whether `batch` is the plain next one of its producer, and where that is: of the same epoch, of the sequence that
    /// must come next, without a transaction and of a producer that has never had one. Whoever appends it, and whatever
    /// the options, [`crate::admit()`] takes such a batch if no verification is pending and no other batch of the
    /// producer is in the same append, and [`Self::follow`] is all that comes of it. Nearly every batch is one; what is
    /// asked of the others and said of them is not put together for it.
    #[inline(always)]
    pub fn follows(&self, batch: &Incoming) -> Option<Hint> {
        let (block, number) = place_of(batch.producer_id);
        let (hint, slot) = self.directory.find(block)?;
        line::is_followed_by(slot.line(number)?, batch).then_some(hint)
    }

    /// Takes over what such a batch changes.
    #[inline(always)]
    pub fn follow(&mut self, batch: &Incoming, now_ms: i64, hint: Hint) {
        let pushed = |line: &mut [u64]| line::follow(line, batch, now_ms);
        if !self.push(batch.producer_id, hint, now_ms, Some(&line::Place::of_incoming(batch)), pushed) {
            self.follow_whole(batch, now_ms);
        }
    }

    #[cold]
    fn follow_whole(&mut self, batch: &Incoming, now_ms: i64) {
        let update = absorb(&self.standing(batch.producer_id), batch, now_ms);
        self.apply_whole(batch.producer_id, update);
    }

    /// Changes a line in place, by `change`, which adds a batch at this place or none; false, and nothing happened, if
    /// there is no such line or it takes no such change.
    #[inline(always)]
    fn push(
        &mut self,
        producer_id: i64,
        hint: Hint,
        now_ms: i64,
        added: Option<&line::Place>,
        change: impl FnOnce(&mut [u64]) -> Option<line::Pushed>,
    ) -> bool {
        let (block, number) = place_of(producer_id);
        let Some(slot) = self.directory.find_mut(block, hint) else { return false };
        if slot.generation != self.versions.generation() {
            self.versions.touch(slot, &self.odd);
        }
        let Some(line) = slot.line_mut(number) else { return false };
        let before = line::standing_term(producer_id, line);
        let Some(pushed) = change(line) else { return false };
        let mut term = line::standing_term(producer_id, line).wrapping_sub(before);
        slot.soil(number, now_ms);
        if let Some(added) = added {
            term = term.wrapping_add(digest::place_term(producer_id, added));
        }
        if let Some(evicted) = pushed.evicted {
            term = term.wrapping_sub(digest::place_term(producer_id, &evicted));
        }
        self.digest = self.digest.wrapping_add(term);
        true
    }

    #[cold]
    fn apply_whole(&mut self, producer_id: i64, update: Update) {
        let mut entry = self.get(producer_id).unwrap_or_default();
        entry.apply(&update);
        self.put(producer_id, entry);
    }

    /// The standing of `producer_id`, the default if it is unknown.
    pub fn standing(&self, producer_id: i64) -> Standing {
        self.get(producer_id).map_or_else(Standing::default, |entry| entry.standing())
    }

    /// The same, as [`crate::Verifications::start`] asks for it.
    pub fn asked_standing(&self, producer_id: i64) -> Standing {
        self.get(producer_id).map_or_else(Standing::default, |entry| entry.asked_standing())
    }

    /// A copy of the entry of `producer_id`.
    pub fn get(&self, producer_id: i64) -> Option<ProducerEntry> {
        debug_assert!(self.missing_page(producer_id).is_none(), "the page of producer {producer_id} is missing");
        debug_assert!(self.missing_block(producer_id).is_none(), "producer {producer_id} is spilled");
        let (block, number) = place_of(producer_id);
        let line = self.directory.find(block)?.1.line(number)?;
        Some(whole(producer_id, line, &self.odd))
    }

    /// Stores the entry of `producer_id`; answers the one it replaces.
    pub fn put(&mut self, producer_id: i64, entry: ProducerEntry) -> Option<ProducerEntry> {
        let before = self.get(producer_id);
        let (block, number) = place_of(producer_id);
        let (line, width) = line::encode(&entry).unwrap_or_else(|| (line::odd(), line::NARROW));
        match self.directory.find_mut(block, Hint::default()) {
            Some(slot) => {
                self.versions.touch(slot, &self.odd);
                let before_bytes = slot.heap_bytes();
                slot.store(number, &line, width);
                self.line_bytes = self.line_bytes + slot.heap_bytes() - before_bytes;
                slot.soil(number, entry.last_append_ms);
            }
            None => {
                let mut slot = Slot::new(block, number, self.versions.generation(), &line);
                slot.soil(number, entry.last_append_ms);
                self.versions.note_new(block);
                self.directory.insert(slot);
            }
        }
        if line::is_odd(&line) {
            self.odd.insert(producer_id, entry);
        } else if !self.odd.is_empty() {
            self.odd.remove(&producer_id);
        }
        self.digest = self.digest.wrapping_add(digest::entry_term(producer_id, &entry));
        match &before {
            Some(before) => self.digest = self.digest.wrapping_sub(digest::entry_term(producer_id, before)),
            None => self.len += 1,
        }
        before
    }

    /// Forgets `producer_id`; answers its entry.
    pub fn remove(&mut self, producer_id: i64) -> Option<ProducerEntry> {
        let before = self.get(producer_id)?;
        let (block, number) = place_of(producer_id);
        let slot = self.directory.find_mut(block, Hint::default())?;
        self.versions.touch(slot, &self.odd);
        let before_bytes = slot.heap_bytes();
        let is_empty = slot.remove(number);
        self.line_bytes = self.line_bytes + slot.heap_bytes() - before_bytes;
        if is_empty {
            self.directory.remove(block);
        }
        self.odd.remove(&producer_id);
        self.digest = self.digest.wrapping_sub(digest::entry_term(producer_id, &before));
        self.len -= 1;
        Some(before)
    }

    /// Number of producers.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all, frozen views too.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// All entries by producer id, ascending. Sorts the blocks first: for displays and models, not for the append path.
    pub fn iter(&self) -> impl Iterator<Item = (i64, ProducerEntry)> {
        debug_assert!(self.absent.is_none() && self.spilled == 0, "producers are elsewhere");
        let mut slots: Vec<&Slot> = self.directory.slots().collect();
        slots.sort_unstable_by_key(|slot| slot.block);
        slots.into_iter().flat_map(|slot| slot.lines().map(|(id, line)| (id, whole(id, line, &self.odd))))
    }

    /// Those of which Kafka would know nothing, by id, ascending. Costs what there are of them: they fit no line.
    pub fn forgotten(&self) -> impl Iterator<Item = (i64, &ProducerEntry)> {
        debug_assert!(self.absent.is_none() && self.spilled == 0, "producers are elsewhere");
        let odd = self.odd.iter().map(|(id, entry)| (*id, entry));
        odd.filter(|(_, entry)| entry.forgotten == Forgotten::Producer)
    }

    /// Drops the producers without an open transaction whose newest append is at least `expiration_ms` old by our
    /// clock; answers them, by id, ascending. Timestamps in the log do not count: clients choose them.
    pub fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> Vec<(i64, ProducerEntry)> {
        debug_assert!(self.spilled == 0, "producers are spilled");
        let (mut expired, mut from) = (Vec::new(), Some(0));
        while let Some(at) = from {
            let swept = self.sweep(at, now_ms, expiration_ms, usize::MAX);
            expired.extend(swept.expired);
            from = swept.next;
        }
        expired.sort_unstable_by_key(|(id, _)| *id);
        expired
    }

    /// A sum over what the log says of every producer, whatever the order of events that led there: equal for two
    /// replicas with the same entries. Append times, which each replica has its own of, stay out.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Memory that the table holds, in bytes, as far as it asked for it. Counts: not for the append path.
    pub fn bytes(&self) -> usize {
        let odd = self.odd.len() * (size_of::<(i64, ProducerEntry)>() + size_of::<usize>());
        size_of::<Self>() + self.directory.bytes() + odd + self.versions.bytes()
    }

    /// Begins a frozen view of all producers as they are now. Costs a constant; until [`Self::thaw`], the first change
    /// of a block that the view has not passed costs a copy of the block.
    pub fn freeze(&mut self) -> Frozen {
        self.versions.freeze(self.len, self.digest)
    }

    /// As [`Self::freeze`], for a checkpoint: of the producers that changed since the last such view was begun, or of
    /// all in the first one and if `all` is asked for.
    pub fn freeze_changes(&mut self, all: bool) -> Frozen {
        self.versions.freeze_changes(self.len, self.digest, all)
    }

    /// The next blocks of a frozen view, with about `limit` entries; none at its end.
    pub fn read_frozen(&mut self, frozen: &mut Frozen, limit: usize) -> Vec<FrozenBlock> {
        self.versions.read(frozen, &self.directory, &self.odd, limit)
    }

    /// A table of `len` producers with this digest whose contents are in pages elsewhere: `first_hashes` as
    /// [`crate::pages`] wrote them, and newer than those the blocks of `changes`, oldest first. Nothing may be asked of
    /// a producer before its page was supplied.
    pub fn restore(len: usize, digest: u64, first_hashes: Vec<u64>, changes: Vec<Vec<FrozenBlock>>) -> Self {
        let mut table = Self { len, digest, absent: Absent::new(first_hashes, changes), ..Self::new() };
        table.versions.begin_behind_checkpoint();
        table
    }

    /// The page that must be supplied before anything is asked of this producer.
    #[inline]
    pub fn missing_page(&self, producer_id: i64) -> Option<usize> {
        self.absent.as_ref()?.page_of(place_of(producer_id).0)
    }

    /// Some page that was not supplied yet; none: the table is whole.
    pub fn any_missing_page(&self) -> Option<usize> {
        self.absent.as_ref()?.first()
    }

    /// The blocks of a page, as read. Nothing happens if it was supplied before.
    ///
    /// `replay` then does to the producers `ids` of this page what was put off until it came: it counts as older than
    /// every frozen view, and as changed since the checkpoint. Who has no transaction open and last appended at
    /// `limit_ms` or before is dropped at last: see [`Self::expire`].
    pub fn supply(
        &mut self,
        page: usize,
        blocks: Vec<FrozenBlock>,
        limit_ms: i64,
        ids: &[i64],
        replay: impl FnOnce(&mut Self),
    ) {
        let Some(absent) = &mut self.absent else { return };
        let Some(slots) = absent.supply(page, blocks) else { return };
        if absent.first().is_none() {
            self.absent = None;
        }
        let mut here: Vec<i64> = ids.iter().map(|id| place_of(*id).0).collect();
        for (mut slot, odd) in slots {
            self.odd.extend(odd);
            // Of the newest freeze, so that no view keeps a copy of what it would show.
            slot.generation = self.versions.generation();
            here.push(slot.block);
            self.line_bytes += slot.heap_bytes();
            self.directory.insert(slot);
        }
        replay(self);
        let mut expired = Vec::new();
        here.sort_unstable();
        here.dedup();
        for block in here {
            let Some(slot) = self.directory.find_mut(block, Hint::default()) else { continue };
            self.versions.backdate(slot);
            let old = slot.lines().filter(|(id, line)| {
                let (append_ms, has_txn) = last_append(*id, line, &self.odd);
                append_ms <= limit_ms && !has_txn
            });
            expired.extend(old.map(|(id, _)| id));
        }
        for id in expired {
            self.remove(id);
        }
    }

    /// Ends a frozen view.
    pub fn thaw(&mut self, frozen: Frozen) {
        self.versions.thaw(&frozen);
    }
}

/// When the producer of a line last appended, and whether it has a transaction open.
fn last_append(id: i64, line: &[u64], odd: &Odd) -> (i64, bool) {
    match line::is_odd(line) {
        true => (odd[&id].last_append_ms, odd[&id].txn_first_offset.is_some()),
        false => (line::last_append_ms(line), line::has_txn(line)),
    }
}

/// The entry that a line stands for.
fn whole(producer_id: i64, line: &[u64], odd: &Odd) -> ProducerEntry {
    if line::is_odd(line) { odd[&producer_id] } else { line::decode(line) }
}

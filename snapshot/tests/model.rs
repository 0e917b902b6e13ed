//! The table beside a naive map through everything that happens to a log's producers: appends, retries, mistakes,
//! markers, new epochs, odd values, frozen views read in pieces while all goes on and written as snapshot files,
//! checkpoints of what changed, crashes back to the newest checkpoint, expiry, blocks spilled and brought back. Every
//! answer and what it changes of the digest are compared, and the contents and the whole digest now and then and at
//! every crash.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU64;

use oncelog_snapshot::codec::{self, Encoder, SnapshotMeta};
use oncelog_snapshot::pages::{PageWriter, decode_page};
use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{
    AdmitOptions, Forgotten, Frozen, FrozenBlock, Hint, Incoming, Known, Marker, Origin, ProducerEntry, ProducerTable,
    SpillPlace, Spilled, Update, Verdict, absorb, admit,
};

type Model = BTreeMap<i64, ProducerEntry>;

const OPERATIONS: u64 = 1_000_000;
const EXPIRATION_MS: i64 = 60_000;
const META: SnapshotMeta = SnapshotMeta { log_end_offset: 9, durable_offset: 7, sealed: None, log_id: None };

struct World {
    random: u64,
    table: ProducerTable,
    model: Model,
    now_ms: i64,
    next_offset: i64,
    ids: Vec<i64>,
    views: VecDeque<View>,
    /// A checkpoint being written, and the model then.
    checkpoint: Option<(Frozen, PageWriter, Model)>,
    stored: Stored,
    /// By page, what was put off until it comes.
    put_off: BTreeMap<usize, Vec<(i64, Update)>>,
    /// Ids that the checkpoint being read may name, and those changed since it began.
    named: BTreeSet<i64>,
    changed: BTreeSet<i64>,
    done: BTreeMap<&'static str, u64>,
    /// What was spilled, by place, and where the walks go on. A place is never used again.
    elsewhere: BTreeMap<u64, Vec<u64>>,
    places_given: u64,
    spill_from: u64,
    sweep_from: u64,
}

/// A view being read.
struct View {
    frozen: Frozen,
    /// What it must show in the end, and what it has shown.
    then: Model,
    shown: Model,
    file: Encoder,
}

/// What checkpoints have left on disk.
#[derive(Default)]
struct Stored {
    /// Pages of everything, with the hash that each begins with.
    pages: Vec<(u64, Vec<u8>)>,
    /// What changed since, oldest first.
    changes: Vec<Vec<u8>>,
    len: usize,
    digest: u64,
    model: Model,
}

#[test]
fn a_million_operations_beside_a_naive_map() {
    let mut world = World::new(20_240_611);
    for _ in 0..OPERATIONS {
        world.step();
    }
    world.compare();
    for wanted in [
        "appended",
        "followed",
        "duplicate",
        "refused",
        "marker",
        "odd",
        "expired",
        "views",
        "checkpoints",
        "crashes",
        "touched",
        "removed",
        "expired on arrival",
        "put off",
        "spilled",
        "brought back",
        "swept",
        "let go too late",
    ] {
        assert!(world.done.get(wanted).is_some_and(|&times| times > 20), "{wanted} hardly happened: {:?}", world.done);
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            random: seed,
            table: ProducerTable::new(),
            model: Model::new(),
            now_ms: 1_000_000,
            next_offset: 0,
            ids: Vec::new(),
            views: VecDeque::new(),
            checkpoint: None,
            named: BTreeSet::new(),
            changed: BTreeSet::new(),
            stored: Stored::default(),
            put_off: BTreeMap::new(),
            done: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
            places_given: 0,
            spill_from: 0,
            sweep_from: 0,
        };
        // Dense, scattered, a few of each block, negative.
        world.ids.extend(0..1500);
        let scattered: Vec<i64> = (0..500).map(|_| (world.random() >> 1) as i64).collect();
        world.ids.extend(scattered);
        world.ids.extend((0..400).map(|n| (1 << 40) | (n * 23)));
        world.ids.extend([-1, -64, -65, i64::MIN, i64::MAX]);
        world
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = (self.random >> 33 ^ self.random).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed ^ mixed >> 29
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random() % bound
    }

    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn step(&mut self) {
        self.now_ms += (self.below(100) == 0) as i64 * 37;
        match self.below(1000) {
            0 => self.freeze(),
            1..40 => self.read_some(),
            40..45 => self.begin_checkpoint(),
            45..100 => self.write_checkpoint(),
            100..101 if self.below(3) == 0 => self.crash(),
            101 if self.below(2) == 0 => self.sweep(),
            103..106 => self.put_odd(),
            106..108 => self.remove(),
            108..109 if self.below(20) == 0 => self.compare(),
            109..121 => self.spill(),
            121..124 => self.sweep_a_step(),
            _ => self.append(),
        }
    }

    fn id(&mut self) -> i64 {
        // Half of the time one of a few, so that windows fill up.
        let count = if self.below(2) == 0 { 60 } else { self.ids.len() as u64 };
        let at = self.below(count) as usize;
        self.ids[at * 31 % self.ids.len()]
    }

    /// Reads the page of a producer if it is still on disk.
    fn have(&mut self, id: i64) {
        if let Some(page) = self.table.missing_page(id) {
            self.supply(page);
            self.note("touched");
        }
        assert_eq!(self.table.missing_page(id), None);
        if let Some(spilled) = self.table.missing_block(id) {
            self.bring_back(&spilled);
        }
        assert_eq!(self.table.missing_block(id), None);
    }

    /// Reads all pages; frozen views need no more.
    fn have_pages(&mut self) {
        while let Some(page) = self.table.any_missing_page() {
            self.supply(page);
        }
    }

    fn have_all(&mut self) {
        self.have_pages();
        let mut from = Some(0);
        while let Some(at) = from {
            let (some, next) = self.table.spilled_from(at);
            some.iter().for_each(|spilled| self.bring_back(spilled));
            from = next;
        }
        assert_eq!(self.table.spilled(), 0);
    }

    /// Takes cold blocks out of memory. Something may happen to them before they are let go.
    fn spill(&mut self) {
        let most = 1 + self.below(20) as usize;
        let (cold, next) = self.table.cold(self.spill_from, most);
        self.spill_from = next.unwrap_or(0);
        let changed_since = self.below(3) == 0;
        if changed_since {
            for (block, _) in &cold {
                let id = self.ids.iter().copied().find(|id| id >> 6 == *block).expect("an id of that block");
                self.append_to(id);
            }
        }
        for (block, lines) in cold {
            let has_txn = |(_, entry): (&i64, &ProducerEntry)| entry.txn_first_offset.is_some();
            assert!(
                changed_since || !self.model.range(block << 6..=block << 6 | 63).any(has_txn),
                "an open transaction stays"
            );
            self.places_given += 1;
            let before = self.table.bytes_now();
            let gone = self.table.let_go(block, place(self.places_given));
            assert_eq!(gone, self.table.bytes_now() < before);
            if gone {
                self.elsewhere.insert(self.places_given, lines);
            }
            self.note(if gone { "spilled" } else { "let go too late" });
        }
        assert!(!self.table.let_go(i64::MAX, place(1)));
    }

    fn bring_back(&mut self, spilled: &Spilled) {
        let Spilled { block, place: at, words } = *spilled;
        let lines = self.elsewhere[&at.0.get()].clone();
        assert_eq!(lines.len(), words);
        assert!(!self.table.take_back(block, place(u64::MAX), lines.clone()), "not its place");
        assert!(self.table.take_back(block, at, lines.clone()));
        assert!(!self.table.take_back(block, at, lines), "it is here already");
        self.note("brought back");
    }

    fn fill(&self, blocks: &mut [FrozenBlock]) {
        for block in blocks {
            if let Some(place) = block.spilled {
                let lines = &self.elsewhere[&place.0.get()];
                assert_eq!(lines.len(), block.words());
                block.fill(lines);
            }
        }
    }

    /// One step of a sweep over what there is in memory.
    fn sweep_a_step(&mut self) {
        if self.table.any_missing_page().is_some() {
            return;
        }
        let most = self.below(4) as usize;
        let swept = self.table.sweep(self.sweep_from, self.now_ms, EXPIRATION_MS, most);
        self.sweep_from = swept.next.unwrap_or(0);
        for (id, entry) in &swept.expired {
            assert_eq!(self.model.remove(id), Some(*entry));
            assert!(entry.txn_first_offset.is_none() && self.now_ms - entry.last_append_ms >= EXPIRATION_MS);
            self.note("swept");
        }
        self.changed.extend(swept.expired.iter().map(|(id, _)| id));
        swept.spilled.iter().for_each(|spilled| self.bring_back(spilled));
    }

    fn supply(&mut self, page: usize) {
        let blocks = decode_page(&self.stored.pages[page].1).expect("as written");
        let updates = self.put_off.remove(&page).unwrap_or_default();
        let ids: Vec<i64> = updates.iter().map(|(id, _)| *id).collect();
        let replay = |table: &mut ProducerTable| {
            updates.iter().for_each(|(id, update)| table.apply(*id, update, Hint::default()));
        };
        if self.below(8) == 0 {
            return self.table.supply(page, blocks, i64::MIN, &ids, replay);
        }
        let limit_ms = self.now_ms - EXPIRATION_MS;
        let here: BTreeSet<i64> =
            self.ids.iter().copied().filter(|id| self.table.missing_page(*id) == Some(page)).collect();
        let stays = |id: &i64, e: &ProducerEntry| {
            !here.contains(id) || e.txn_first_offset.is_some() || e.last_append_ms > limit_ms
        };
        let gone: Vec<i64> = self.model.extract_if(.., |id, e| !stays(id, e)).map(|(id, _)| id).collect();
        self.table.supply(page, blocks, limit_ms, &ids, replay);
        if !gone.is_empty() {
            self.note("expired on arrival");
        }
        self.changed.extend(gone);
    }

    fn append(&mut self) {
        let id = self.id();
        self.append_to(id);
    }

    fn append_to(&mut self, id: i64) {
        self.have(id);
        let entry = self.model.get(&id).copied();
        let (batch, origin) = self.batch(id, entry.unwrap_or_default());
        let options = self.options(origin);
        let looked = |id| self.table.look(id, batch.epoch, batch.base_sequence, batch.last_sequence);
        let (known, hint) = looked(id);
        // Of just now, of another producer, or none.
        let hint = match self.random % 8 {
            0 => Hint::default(),
            1 => looked(id ^ 64).1,
            _ => hint,
        };
        let look = |entry: &ProducerEntry| entry.look(batch.epoch, batch.base_sequence, batch.last_sequence, 0);
        assert_eq!(known, entry.as_ref().map_or_else(Known::default, look), "{id}");
        let digest = self.table.digest();
        let follows = self.table.follows(&batch);
        let verdict = admit(&known, None, None, &batch, &options);
        if follows.is_some() {
            let update = absorb(&known.standing, &batch, options.now_ms);
            let plain = Verdict::Append { update, completed: None, started_txn: false, clears_verification: false };
            assert_eq!(verdict, plain);
            assert!(!update.standing.uses_transactions());
            self.note("followed");
        }
        match verdict {
            Verdict::Append { update, .. } => {
                match follows.filter(|_| self.random & 8 == 0) {
                    Some(_) => self.table.follow(&batch, options.now_ms, hint),
                    None => self.table.apply(id, &update, hint),
                }
                self.model.entry(id).or_default().apply(&update);
                self.changed.insert(id);
                if batch.marker.is_some() {
                    self.note("marker");
                }
                self.next_offset = batch.last_offset + 1 + (self.below(50) == 0) as i64 * 5_000_000_000;
                self.note("appended");
            }
            Verdict::Duplicate(meta) => {
                assert!(entry.is_some_and(|entry| entry.batches().contains(&meta)));
                self.note("duplicate");
            }
            Verdict::Refuse(_) => self.note("refused"),
        }
        let after = self.model.get(&id).copied();
        assert_eq!(self.table.get(id), after, "{id}");
        let term =
            |entry: Option<ProducerEntry>| entry.map_or(0, |entry| table_of(&Model::from([(id, entry)])).digest());
        assert_eq!(self.table.digest().wrapping_sub(digest), term(after).wrapping_sub(term(entry)), "{id}");
        assert_eq!(self.table.standing(id), self.model.get(&id).map(ProducerEntry::standing).unwrap_or_default());
    }

    fn batch(&mut self, id: i64, entry: ProducerEntry) -> (Incoming, Origin) {
        let standing = entry.standing();
        let count = [1, 1, 3, 70_000, 2_000_000][(self.below(1000) as usize).saturating_sub(995)];
        let choice = self.below(100);
        let base_sequence = match choice {
            0..70 => standing.next_sequence(),
            70..80 => entry.batches().get(self.below(5) as usize).map_or(7, |batch| batch.first_sequence),
            80..83 => i32::MAX - 2,
            83..85 => -1,
            _ => 0,
        };
        let bump = (choice >= 85) as i16 * (self.below(3) as i16 - 1).max(0);
        let far = (self.below(400) == 0) as i64 * 1_000_000_000_000;
        let last_sequence =
            if base_sequence < 0 { -1 } else { oncelog_formats::num::sequence_add(base_sequence, count as i32 - 1) };
        let mut batch = Incoming {
            producer_id: id,
            epoch: standing.epoch.max(0) + bump,
            base_sequence,
            last_sequence,
            first_offset: self.next_offset,
            last_offset: self.next_offset + count - 1,
            max_timestamp: self.now_ms - 500 + self.below(900) as i64 - far,
            transactional: standing.txn_first_offset.is_some() && self.below(50) > 0 || self.below(4) == 0,
            marker: None,
        };
        if (70..80).contains(&choice)
            && let Some(again) = entry.find_batch_from(base_sequence)
        {
            batch.last_sequence = again;
        }
        let origin = match choice {
            0..90 => Origin::Client,
            90..95 => Origin::Replication,
            _ => Origin::Coordinator,
        };
        if choice >= 95 {
            let coordinator_epoch = self.below(3) as i32 + (self.below(100) == 0) as i32 * 70_000;
            let (commit, timestamp) = (self.below(2) == 0, self.now_ms);
            batch.marker = Some(Marker::EndTxn { commit, coordinator_epoch, timestamp });
            (batch.base_sequence, batch.last_sequence, batch.last_offset) = (-1, -1, batch.first_offset);
            batch.transactional = true;
        }
        (batch, origin)
    }

    /// An entry such as only a foreign snapshot or log leads to.
    fn put_odd(&mut self) {
        let id = self.id();
        self.have(id);
        let mut entry = ProducerEntry::default();
        entry.epoch = self.below(9) as i16;
        entry.last_timestamp = self.random() as i64;
        entry.last_append_ms = self.now_ms;
        entry.txn_first_offset = (self.below(3) == 0).then_some(self.below(1 << 50) as i64);
        entry.forgotten =
            [Forgotten::Nothing, Forgotten::Nothing, Forgotten::Batches, Forgotten::Producer][self.below(4) as usize];
        for _ in 0..self.below(7) {
            let (first, span) = (self.below(1 << 50) as i64, self.below(1 << 22) as i64);
            entry.push_batch(batch_meta(self.random() as i32, first, first + span, self.random() as i64));
        }
        if entry.batches().is_empty() && entry.forgotten == Forgotten::Batches {
            entry.forgotten = Forgotten::Nothing;
        }
        assert_eq!(self.table.put(id, entry), self.model.insert(id, entry));
        self.changed.insert(id);
        self.note("odd");
    }

    fn remove(&mut self) {
        let id = self.id();
        self.have(id);
        self.changed.insert(id);
        assert_eq!(self.table.remove(id), self.model.remove(&id));
        self.note("removed");
    }

    fn sweep(&mut self) {
        self.have_all();
        let expired = self.table.expire(self.now_ms, EXPIRATION_MS);
        let (now_ms, before) = (self.now_ms, self.model.len());
        self.model.retain(|_, e| e.txn_first_offset.is_some() || now_ms - e.last_append_ms < EXPIRATION_MS);
        assert_eq!(before - self.model.len(), expired.len());
        assert!(expired.iter().all(|(id, _)| !self.model.contains_key(id)));
        self.changed.extend(expired.iter().map(|(id, _)| id));
        if !expired.is_empty() {
            self.note("expired");
        }
    }

    fn freeze(&mut self) {
        if self.views.len() < 3 {
            let frozen = self.table.freeze();
            if self.put_off.is_empty() {
                assert_eq!((frozen.len, frozen.digest), (self.model.len(), self.table.digest()));
            }
            let file = Encoder::new(&frozen, META);
            self.views.push_back(View { frozen, then: self.model.clone(), shown: Model::new(), file });
        }
    }

    /// Some blocks of some view; views end in any order.
    fn read_some(&mut self) {
        if self.views.is_empty() {
            return;
        }
        let (which, limit) = (self.below(self.views.len() as u64) as usize, 1 + self.below(90) as usize);
        self.have_pages();
        let mut blocks = self.table.read_frozen(&mut self.views[which].frozen, limit);
        self.fill(&mut blocks);
        let view = &mut self.views[which];
        if blocks.is_empty() {
            let View { frozen, then, shown, file } = self.views.remove(which).expect("one of them");
            self.table.thaw(frozen);
            assert!(shown == then, "a view shows the table as it was");
            let loaded = codec::decode(&file.finish()).expect("a snapshot file");
            assert_eq!(loaded.meta, Some(META));
            assert!(loaded.table == table_of(&then), "and its file says the same");
            self.note("views");
            return;
        }
        view.file.push(&blocks);
        for block in blocks {
            assert_eq!(block.count(), block.present.count_ones() as usize);
            for (id, entry) in block.entries() {
                assert_eq!(view.shown.insert(id, entry), None, "{id} is shown twice");
            }
        }
    }

    fn begin_checkpoint(&mut self) {
        if self.checkpoint.is_none() {
            let all = self.stored.changes.len() >= 5;
            if all || !self.put_off.is_empty() {
                self.have_pages();
            }
            let mut frozen = self.table.freeze_changes(all);
            frozen.prepare();
            self.checkpoint = Some((frozen, PageWriter::new(), self.model.clone()));
            self.named = std::mem::take(&mut self.changed);
        }
    }

    fn write_checkpoint(&mut self) {
        let limit = 1 + self.below(200) as usize;
        let Some((frozen, writer, _)) = &mut self.checkpoint else { return };
        let mut blocks = self.table.read_frozen(frozen, limit);
        for block in &mut blocks {
            if let Some(place) = block.spilled {
                block.fill(&self.elsewhere[&place.0.get()]);
            }
        }
        if !blocks.is_empty() {
            let named = |id: i64| self.named.contains(&id);
            let all = blocks.iter().flat_map(|block| block.entries());
            assert!(!frozen.is_partial() || all.into_iter().all(|(id, _)| named(id)), "no more than what changed");
            writer.push(&blocks);
            return;
        }
        let (frozen, writer, model) = self.checkpoint.take().expect("looked at above");
        let (pages, bytes) = writer.finish();
        if frozen.is_partial() {
            self.stored.changes.push(bytes);
        } else {
            let page = |page: &oncelog_snapshot::pages::Page| {
                (page.first_hash, bytes[page.position..page.position + page.length].to_vec())
            };
            self.stored.pages = pages.iter().map(page).collect();
            self.stored.changes.clear();
        }
        (self.stored.len, self.stored.digest, self.stored.model) = (frozen.len, frozen.digest, model);
        self.table.thaw(frozen);
        self.note("checkpoints");
    }

    /// Memory is gone, a checkpoint under way too; the table begins with what the newest finished one left.
    fn crash(&mut self) {
        (self.views, self.checkpoint) = (VecDeque::new(), None);
        if self.stored.pages.is_empty() {
            return;
        }
        self.elsewhere.clear();
        let changes = self.stored.changes.iter().map(|bytes| decode_page(bytes).expect("as written")).collect();
        let first_hashes = self.stored.pages.iter().map(|(hash, _)| *hash).collect();
        self.table = ProducerTable::restore(self.stored.len, self.stored.digest, first_hashes, changes);
        self.model = self.stored.model.clone();
        self.changed = BTreeSet::new();
        assert_eq!((self.table.len(), self.table.digest()), (self.model.len(), table_of(&self.model).digest()));
        self.note("crashes");
        self.put_off.clear();
        for _ in 0..self.below(200) {
            self.put_off_one();
        }
    }

    fn options(&self, origin: Origin) -> AdmitOptions {
        AdmitOptions { origin, verification_enabled: false, txn_version: Some(0), guard: None, now_ms: self.now_ms }
    }

    /// What a replay finds of a producer that is still on disk.
    fn put_off_one(&mut self) {
        let id = self.id();
        let Some(page) = self.table.missing_page(id) else { return };
        let entry = self.model.get(&id).copied().unwrap_or_default();
        let (batch, origin) = self.batch(id, entry);
        let options = self.options(origin);
        let known = entry.look(batch.epoch, batch.base_sequence, batch.last_sequence, 0);
        if let Verdict::Append { update, .. } = admit(&known, None, None, &batch, &options) {
            self.put_off.entry(page).or_default().push((id, update));
            self.model.entry(id).or_default().apply(&update);
            self.changed.insert(id);
            self.next_offset = batch.last_offset + 1;
            self.note("put off");
        }
    }

    fn compare(&mut self) {
        self.have_all();
        assert!(self.table.iter().eq(self.model.iter().map(|(id, entry)| (*id, *entry))));
        assert_eq!(self.table.len(), self.model.len());
        assert_eq!(self.table.digest(), table_of(&self.model).digest());
    }
}

fn place(number: u64) -> SpillPlace {
    SpillPlace(NonZeroU64::new(number).expect("places count from 1"))
}

fn table_of(model: &Model) -> ProducerTable {
    let mut table = ProducerTable::new();
    for (id, entry) in model {
        table.put(*id, *entry);
    }
    table
}

trait FindFrom {
    fn find_batch_from(&self, first_sequence: i32) -> Option<i32>;
}

impl FindFrom for ProducerEntry {
    fn find_batch_from(&self, first_sequence: i32) -> Option<i32> {
        self.batches().iter().find(|batch| batch.first_sequence == first_sequence).map(|batch| batch.last_sequence)
    }
}

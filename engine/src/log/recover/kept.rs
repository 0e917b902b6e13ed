//! What is remembered beyond Kafka's steps, so that a retry of one of a producer's last five batches is never stored
//! twice.
//!
//! Kafka forgets a producer when its last record lies below the log start and the log is loaded, and the batches of the
//! window that its snapshot has no room for. Here both stay. A producer that Kafka's steps find is taken as they find
//! it (open transaction, coordinator epoch, timestamps) and only gets the older batches of its window back; one that
//! they do not find keeps epoch and window, and no transaction: none of its records can be read any more.
//!
//! Where no `.snapshot` may hold that memory (Kafka drops those at or below the log start), a file of ours does, in the
//! same format.

use oncelog_device::planted::{Bug, planted};
use oncelog_snapshot::codec::{self, SnapshotMeta};
use oncelog_snapshot::{BatchMeta, Forgotten, Incoming, ProducerEntry, ProducerTable};

use super::Recovery;
use crate::log::checkpoint::SnapshotDue;

/// Producers that no `.snapshot` of the directory may speak of.
pub(in crate::log) const MEMORY_FILE: &str = "producers.oncelog";

impl Recovery<'_> {
    /// The producers to go on with; some may still be in a checkpoint, which knows everything.
    pub fn producers(&mut self, log_end: i64) -> ProducerTable {
        let mut producers = match self.begun {
            Some(_) => std::mem::take(&mut self.view.producers),
            None => self.remembered(log_end),
        };
        // After a crash Kafka goes on with what a snapshot of the end tells.
        producers.note_load(if self.clean { self.starts.view.min(log_end) } else { log_end });
        producers
    }

    /// Everything remembered of the log below `end`.
    pub fn remembered(&self, end: i64) -> ProducerTable {
        self.remembered_with(None, end)
    }

    /// The same, and what `stored`, the snapshot that stands there, still knows: batches may have gone with their
    /// segment.
    pub(super) fn remembered_with(&self, stored: Option<&ProducerTable>, end: i64) -> ProducerTable {
        let mut table = self.view.producers.clone();
        for (id, old) in self.memory(stored, end).iter() {
            let entry = match table.get(id) {
                None => Some(old.forget()),
                Some(found) => with_older_batches(&old, &found),
            };
            if let Some(entry) = entry {
                table.put(id, entry);
            }
        }
        if planted(Bug::WindowOfOne) { newest_batches(&table) } else { table }
    }

    /// What is kept and what files say, below `end`: they may come from farther on. Without transactions.
    fn memory(&self, stored: Option<&ProducerTable>, end: i64) -> ProducerTable {
        let mut memory = ProducerTable::new();
        let ahead = self.ahead.as_ref().filter(|(offset, _)| *offset <= end).map(|(_, table)| table);
        let files = stored.into_iter().chain(ahead);
        for (id, entry) in self.kept.iter().chain(files.flat_map(ProducerTable::iter)) {
            let Some(mut entry) = up_to(entry, end) else { continue };
            (entry.txn_first_offset, entry.coordinator_epoch) = (None, -1);
            // What is kept has seen every batch that a file tells of, unless its segment is gone.
            keep_newest(&mut memory, id, entry);
        }
        memory
    }

    /// The pass has come to `offset`: once it is where the newest file was written, that file says when its producers
    /// had appended, which the replay before could only guess.
    pub(super) fn meet_ahead(&mut self, offset: i64) {
        let Some((_, table)) = self.ahead.as_ref().filter(|(at, _)| *at <= offset && !self.ahead_met) else { return };
        self.ahead_met = true;
        for (id, exact) in table.iter() {
            let newest = |entry: &ProducerEntry| (entry.epoch, entry.last_offset());
            if let Some(mut entry) = self.view.producers.get(id).filter(|entry| newest(entry) == newest(&exact)) {
                entry.last_append_ms = exact.last_append_ms;
                self.view.producers.put(id, entry);
            }
        }
    }

    /// What Kafka's steps forget when they load what they have found so far.
    pub fn forget_expired(&mut self) {
        forget_expired(&mut self.view.producers, self.clock.now_ms(), self.config.producer_id_expiration_ms);
    }

    /// Kafka's steps begin again with nothing at `offset`.
    pub fn keep_view(&mut self, offset: i64) {
        self.kept = self.remembered(offset);
        self.view = super::View::default();
        self.view.reach.complete_from = offset;
    }

    pub(super) fn keep(&mut self, batch: &Incoming, append_ms: i64) {
        let mut beside = super::View { producers: std::mem::take(&mut self.kept), ..Default::default() };
        let _ = beside.apply(batch, append_ms);
        self.kept = beside.producers;
    }

    /// Adds what was in memory before the log was cut to `end`: producers that no file tells of, and batches that went
    /// with their segment.
    pub fn keep_from(&mut self, before: &ProducerTable, end: i64) {
        for (id, entry) in before.iter().filter_map(|(id, entry)| Some((id, below(&entry, end)?))) {
            keep_newest(&mut self.kept, id, entry);
        }
    }

    /// Content of the file that remembers what no snapshot may.
    pub fn memory_bytes(&self, log_end: i64) -> Vec<u8> {
        let meta = SnapshotMeta { log_end_offset: log_end, durable_offset: log_end, sealed: None, log_id: None };
        codec::encode(&mut self.remembered(log_end), &meta)
    }

    /// Has that file written among the snapshots.
    pub fn remember_in_file(&mut self, log_end: i64) {
        let bytes = self.memory_bytes(log_end);
        self.memory_offset = Some(log_end);
        self.snapshots_due.push_back(SnapshotDue::ready(MEMORY_FILE.to_owned(), bytes));
    }
}

/// What Kafka's load of a snapshot forgets: producers without an open transaction whose last record carries an old
/// timestamp. They are remembered here, in full, until they have expired by our clock: [`drop_forgotten`].
pub(in crate::log) fn forget_expired(producers: &mut ProducerTable, now_ms: i64, expiration_ms: i64) {
    let goes = |entry: &ProducerEntry| entry.txn_first_offset.is_none() && entry.forgotten != Forgotten::Producer;
    let expired = |entry: &ProducerEntry| now_ms.saturating_sub(entry.last_timestamp) >= expiration_ms;
    let going: Vec<_> = producers.iter().filter(|(_, entry)| goes(entry) && expired(entry)).collect();
    for (id, entry) in going {
        producers.put(id, entry.forget());
    }
}

/// Takes out those that Kafka has forgotten and that have expired by our clock. Not before the replay: who was silent
/// when a snapshot was taken may have appended since.
pub(in crate::log) fn drop_forgotten(producers: &mut ProducerTable, now_ms: i64, expiration_ms: i64) {
    let expired = |entry: &ProducerEntry| now_ms.saturating_sub(entry.last_append_ms) >= expiration_ms;
    let gone: Vec<i64> = producers.forgotten().filter(|(_, entry)| expired(entry)).map(|(id, _)| id).collect();
    for id in gone {
        producers.remove(id);
    }
}

/// Of each producer the batches below `end`.
pub(super) fn table_below(table: &ProducerTable, end: i64) -> ProducerTable {
    let mut rest = ProducerTable::new();
    for (id, entry) in table.iter() {
        if let Some(entry) = below(&entry, end) {
            rest.put(id, entry);
        }
    }
    rest
}

/// The entry as it is if it ends below `end`, else [`below`].
fn up_to(entry: ProducerEntry, end: i64) -> Option<ProducerEntry> {
    if entry.last_offset() < end { Some(entry) } else { below(&entry, end) }
}

/// The entry with the batches below `end` alone; `None` if none is left.
fn below(entry: &ProducerEntry, end: i64) -> Option<ProducerEntry> {
    let mut rest = ProducerEntry::default();
    rest.epoch = entry.epoch;
    rest.last_append_ms = entry.last_append_ms;
    for batch in entry.batches().iter().filter(|batch| batch.last_offset < end) {
        rest.push_batch(*batch);
        rest.last_timestamp = batch.timestamp;
    }
    (!rest.batches().is_empty()).then_some(rest)
}

/// `found` with the batches of `old` that precede its own; `None` where there is nothing to add.
fn with_older_batches(old: &ProducerEntry, found: &ProducerEntry) -> Option<ProducerEntry> {
    if old.epoch != found.epoch {
        return None;
    }
    let first = found.batches().first();
    let again = |batch: &BatchMeta| found.find_batch(old.epoch, batch.first_sequence, batch.last_sequence).is_some();
    let precedes = |batch: &BatchMeta| first.is_none_or(|first| batch.last_offset < first.first_offset);
    let older: Vec<_> = old.batches().iter().filter(|batch| precedes(batch) && !again(batch)).collect();
    if older.is_empty() && old.last_offset() != found.last_offset() {
        return None;
    }
    let mut richer = found.with_older(older);
    // The newer: of two that end with the same batch one may have seen a marker behind it.
    richer.last_append_ms = old.last_append_ms.max(found.last_append_ms);
    if first.is_none() && !richer.batches().is_empty() {
        richer.forgotten = Forgotten::Batches;
    }
    Some(richer)
}

/// Puts `entry` beside what the table knows of the producer: the one whose batches lie farther on in the log counts,
/// with what the other knows of before; what was there if neither has any. Epochs say nothing here: a log that was
/// replicated may have them fall.
fn keep_newest(table: &mut ProducerTable, id: i64, entry: ProducerEntry) {
    let newest = match table.get(id) {
        Some(kept) => {
            let is_behind = !kept.batches().is_empty() && kept.last_offset() < entry.last_offset();
            let (old, new) = if is_behind { (kept, entry) } else { (entry, kept) };
            with_older_batches(&old, &new).unwrap_or(new)
        }
        None => entry,
    };
    table.put(id, newest);
}

/// The producers with the newest batch of each alone: what a bug can be planted to leave of them.
fn newest_batches(producers: &ProducerTable) -> ProducerTable {
    let mut newest = ProducerTable::new();
    for (id, mut entry) in producers.iter() {
        let (epoch, last) = (entry.epoch, entry.last_batch().copied());
        entry.set_epoch(oncelog_snapshot::NO_EPOCH);
        entry.set_epoch(epoch);
        last.into_iter().for_each(|batch| entry.push_batch(batch));
        newest.put(id, entry);
    }
    newest
}

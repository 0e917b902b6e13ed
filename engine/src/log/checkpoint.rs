//! What the log remembers of its producers, written to disk behind the appends.
//!
//! A roll only freezes a view of the producer table, at a constant cost. Whoever does the upkeep then reads the view a
//! few hundred entries at a time, so that an append waits for microseconds at most, encodes outside the lock, and
//! writes.

mod load;
mod pages;
mod write;

use oncelog_formats::file_name::{Kind, segment_file_name};
use oncelog_formats::snapshot::SealedSegment;
use oncelog_snapshot::Frozen;
use oncelog_snapshot::codec::{self, Encoder, SnapshotMeta};

use super::Shared;
use super::describe::SNAPSHOT_LIMIT_BYTES;
use super::recover::kept::MEMORY_FILE;
use super::state::State;
use super::types::Ack;
use crate::error::Result;

pub(super) use load::Beginning;
pub(crate) use pages::PageFile;
pub(crate) use write::{Chain, Checkpoints};

/// A producer snapshot that is to be written.
pub(crate) struct SnapshotDue {
    name: String,
    content: Content,
}

enum Content {
    /// To be read from the table. `stands`: the file is there already, of the same offset, and only the rest is to be
    /// said anew: it knows producers that were forgotten since it was written.
    View { view: Frozen, meta: SnapshotMeta, stands: bool },
    /// Read already; the file could not be written.
    Bytes(Vec<u8>),
}

impl SnapshotDue {
    /// A file whose content is known already.
    pub fn ready(name: String, bytes: Vec<u8>) -> Self {
        Self { name, content: Content::Bytes(bytes) }
    }

    /// A file of what `view` shows.
    pub fn view(name: String, view: Frozen, meta: SnapshotMeta, stands: bool) -> Self {
        Self { name, content: Content::View { view, meta, stands } }
    }
}

impl State {
    /// Kafka's `.snapshot` of this moment, ours behind it, to be written; where Kafka would take none, the same under
    /// our own name.
    pub(super) fn freeze_snapshot(&mut self, sealed: Option<SealedSegment>) {
        let offset = self.log_end();
        // One that stands here already is written again: a roll has more to say.
        let stands = offset == self.newest_snapshot;
        let name = if offset > self.snapshot_floor() || stands {
            self.newest_snapshot = offset;
            segment_file_name(offset, Kind::Snapshot).to_string()
        } else {
            MEMORY_FILE.to_string()
        };
        let durable_offset = self.progress.durable_offset;
        let meta = SnapshotMeta { log_end_offset: offset, durable_offset, sealed, log_id: None };
        self.snapshots_due.push_back(SnapshotDue::view(name, self.producers.freeze(), meta, stands));
    }
}

impl Shared {
    /// Writes the snapshots that are due, oldest first. With the upkeep lock held.
    pub(super) fn write_snapshots(&self) -> Result<()> {
        loop {
            let count = self.state.lock().snapshots_due.len();
            if count == 0 {
                return Ok(());
            }
            // A snapshot of records that a crash may still take would be believed over those that follow them, and over
            // the segment that it closes. A roll meanwhile brings one that waits for the next turn.
            self.commit_all(Ack::Durable)?;
            drop(self.state_with_pages()?);
            for _ in 0..count {
                let Some(due) = self.next_snapshot_due() else { return Ok(()) };
                self.write_snapshot(due)?;
            }
        }
    }

    fn write_snapshot(&self, due: SnapshotDue) -> Result<()> {
        let bytes = match due.content {
            Content::View { view, meta, stands } => {
                match stands.then(|| self.sealed_anew(&due.name, &meta)).flatten() {
                    Some(bytes) => {
                        self.state.lock().producers.thaw(view);
                        bytes
                    }
                    None => self.encode_view(view, meta)?,
                }
            }
            Content::Bytes(bytes) => bytes,
        };
        if let Err(failure) = self.device.write_small(&self.dir.join(&due.name), &bytes) {
            self.state.lock().snapshots_due.push_front(SnapshotDue::ready(due.name, bytes));
            return Err(failure.into());
        }
        Ok(())
    }

    fn next_snapshot_due(&self) -> Option<SnapshotDue> {
        let mut state = self.state.lock();
        if state.closed { None } else { state.snapshots_due.pop_front() }
    }

    /// The file of this name with `meta` in it.
    fn sealed_anew(&self, name: &str, meta: &SnapshotMeta) -> Option<Vec<u8>> {
        let bytes = self.device.read_small(&self.dir.join(name), SNAPSHOT_LIMIT_BYTES).ok()??;
        let mut stored = codec::decode(&bytes).ok()?;
        stored.meta.filter(|stored| stored.log_end_offset == meta.log_end_offset)?;
        Some(codec::encode(&mut stored.table, meta))
    }

    fn encode_view(&self, view: Frozen, meta: SnapshotMeta) -> Result<Vec<u8>> {
        let mut encoder = Encoder::new(&view, meta);
        self.read_view(view, |blocks| encoder.push(blocks))?;
        Ok(encoder.finish())
    }
}

//! A snapshot file made producer by producer, from whatever the caller keeps its producers in.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::IntoBytes as _;

use super::extension::{BatchMeta, EXTENSION_HEAD_BYTES, Extension, MOST_PRODUCER_BYTES, encode_producer};
use super::{CRC_FROM, ENTRY_BYTES, HEADER_BYTES, RawEntry, RawHeader, SnapshotEntry, VERSION};
use crate::crc32c::crc32c;

/// A snapshot file being made.
///
/// In one piece of memory that is asked for at the beginning: one that grew, or was put together of two, would be copied
/// many megabytes at a time, and an append that comes meanwhile was seen to wait 10 ms. What is asked for and not
/// written takes none.
#[derive(Debug)]
pub struct SnapshotWriter {
    /// Room for the header, for `room` entries and for the extension's head; then what the extension says of producers.
    file: Vec<u8>,
    room: usize,
    count: usize,
    extra_count: usize,
}

impl SnapshotWriter {
    /// A file of about `count` producers.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut file = vec![0; HEADER_BYTES + count * ENTRY_BYTES + EXTENSION_HEAD_BYTES];
        // Where that much is not to be had, it grows.
        let _asked = file.try_reserve_exact(count * MOST_PRODUCER_BYTES);
        Self { file, room: count, count: 0, extra_count: 0 }
    }

    /// The next of Kafka's entries.
    pub fn push_entry(&mut self, entry: &SnapshotEntry) {
        if self.count == self.room {
            self.resize_room(self.count * 2 + 1);
        }
        let at = HEADER_BYTES + self.count * ENTRY_BYTES;
        self.file[at..at + ENTRY_BYTES].copy_from_slice(RawEntry::from(entry).as_bytes());
        self.count += 1;
    }

    /// What Kafka leaves out about a producer: our clock at its last append in ms, what Kafka's rules have forgotten of
    /// it, and its batches, oldest first.
    pub fn push_extra(&mut self, producer_id: i64, last_append_ms: i64, forgotten: bool, batches: &[BatchMeta]) {
        encode_producer(producer_id, last_append_ms, forgotten, batches, &mut self.file);
        self.extra_count += 1;
    }

    /// The file's bytes, with an extension of the producers pushed and of everything else that `extension` says, its
    /// own producers aside. One too large for its length field (4 GiB) is left out.
    #[must_use]
    pub fn finish(mut self, extension: Option<&Extension>) -> Vec<u8> {
        let count = i32::try_from(self.count).expect("2^31 entries do not fit into memory beside their bytes");
        self.resize_room(self.count);
        let (head_at, extras_at) = (self.head_at(), self.head_at() + EXTENSION_HEAD_BYTES);
        match extension.and_then(|extension| extension.encode_head(self.extra_count, &self.file[extras_at..])) {
            Some(head) => self.file[head_at..extras_at].copy_from_slice(&head),
            None => self.file.truncate(head_at),
        }
        let header = RawHeader { version: VERSION.into(), crc: 0.into(), entry_count: count.into() };
        self.file[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        let crc = crc32c(&self.file[CRC_FROM..]);
        self.file[2..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        self.file
    }

    fn head_at(&self) -> usize {
        HEADER_BYTES + self.room * ENTRY_BYTES
    }

    /// Makes room for so many entries; no fewer than there are.
    fn resize_room(&mut self, room: usize) {
        let end = HEADER_BYTES + self.count * ENTRY_BYTES;
        if room != self.room {
            let wanted = (room - self.count) * ENTRY_BYTES;
            self.file.splice(end..self.head_at(), core::iter::repeat_n(0, wanted));
            self.room = room;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(producer_id: i64) -> SnapshotEntry {
        SnapshotEntry {
            producer_id,
            epoch: 0,
            last_sequence: 1,
            last_offset: 2,
            offset_delta: 0,
            timestamp: 3,
            coordinator_epoch: -1,
            current_txn_first_offset: -1,
        }
    }

    #[test]
    fn a_wrong_guess_of_the_count_changes_nothing() {
        let file = |guess| {
            let mut writer = SnapshotWriter::new(guess);
            for producer_id in 0..9 {
                writer.push_entry(&entry(producer_id));
                writer.push_extra(producer_id, 7, false, &[BatchMeta::default()]);
            }
            writer.finish(Some(&Extension::default()))
        };
        let exact = file(9);
        for guess in [0, 1, 8, 10, 100] {
            assert_eq!(file(guess), exact, "{guess}");
        }
    }
}

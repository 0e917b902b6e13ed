//! A snapshot file made producer by producer, from whatever the caller keeps its producers in.

use alloc::vec::Vec;

use zerocopy::IntoBytes as _;

use super::extension::{BatchMeta, Extension, encode_producer};
use super::{CRC_FROM, ENTRY_BYTES, HEADER_BYTES, RawEntry, RawHeader, SnapshotEntry, VERSION};
use crate::crc32c::crc32c;

/// A snapshot file being made.
#[derive(Debug)]
pub struct SnapshotWriter {
    /// Room for the header, then entries.
    file: Vec<u8>,
    extras: Vec<u8>,
    extra_count: usize,
}

impl SnapshotWriter {
    /// A file of about `count` producers.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let mut file = Vec::with_capacity(HEADER_BYTES + count * ENTRY_BYTES);
        file.resize(HEADER_BYTES, 0);
        Self { file, extras: Vec::new(), extra_count: 0 }
    }

    /// The next of Kafka's entries.
    pub fn push_entry(&mut self, entry: &SnapshotEntry) {
        self.file.extend_from_slice(RawEntry::from(entry).as_bytes());
    }

    /// What Kafka leaves out about a producer: our clock at its last append in ms, what Kafka's rules have forgotten of
    /// it, and its batches, oldest first.
    pub fn push_extra(&mut self, producer_id: i64, last_append_ms: i64, forgotten: bool, batches: &[BatchMeta]) {
        encode_producer(producer_id, last_append_ms, forgotten, batches, &mut self.extras);
        self.extra_count += 1;
    }

    /// The file's bytes, with an extension of the producers pushed and of everything else that `extension` says, its
    /// own producers aside. One too large for its length field (4 GiB) is left out.
    #[must_use]
    pub fn finish(mut self, extension: Option<&Extension>) -> Vec<u8> {
        let count = (self.file.len() - HEADER_BYTES) / ENTRY_BYTES;
        let count = i32::try_from(count).expect("2^31 entries do not fit into memory beside their bytes");
        if let Some(head) = extension.and_then(|extension| extension.encode_head(self.extra_count, &self.extras)) {
            self.file.reserve_exact(head.len() + self.extras.len());
            self.file.extend_from_slice(&head);
            self.file.extend_from_slice(&self.extras);
        }
        let header = RawHeader { version: VERSION.into(), crc: 0.into(), entry_count: count.into() };
        self.file[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        let crc = crc32c(&self.file[CRC_FROM..]);
        self.file[2..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
        self.file
    }
}

//! What is wrong with a log's own checkpoints: their checksums, their chain, and what they say against the log.
//!
//! An opening does without those that are of no use, so a chain that cannot be followed, or that another program has
//! left behind by cutting the log, is worth a note. Bytes that are not as written are a problem, and so is a producer
//! that the log tells otherwise.

use super::history::History;
use super::{SIDE_FILE_LIMIT_BYTES, Verify};
use crate::common::CliResult;
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::log_checkpoint::{LogCheckpoint, parse_file_name};
use oncelog_formats::{BatchHeader, file_name};
use oncelog_snapshot::codec::kafka_entry;
use oncelog_snapshot::pages::decode_page;
use oncelog_snapshot::{FrozenBlock, ProducerTable};

impl Verify<'_> {
    /// Reads them before the log is walked, which then is held against them.
    pub(super) fn load_log_checkpoints(&mut self, history: &mut History) -> CliResult<()> {
        // By offset: a file comes behind its parent.
        let mut before: Option<(i64, ProducerTable)> = None;
        for entry in self.device.list(&self.place.directory)? {
            let Some(offset) = parse_file_name(&entry.name) else { continue };
            let path = self.place.directory.join(&entry.name);
            // Beside a living engine one may be gone by now.
            let Some(bytes) = self.device.read_small(&path, SIDE_FILE_LIMIT_BYTES)? else { continue };
            let Some(head) = self.head(&entry.name, offset, &bytes) else {
                before = None;
                continue;
            };
            let Some(blocks) = self.pages(&entry.name, &head, &bytes) else {
                before = None;
                continue;
            };
            before = self.table(&entry.name, &head, before.take(), blocks).map(|table| (offset, table));
            if let Some((_, table)) = &before {
                let entries = table.iter().map(|(id, producer)| kafka_entry(id, &producer)).collect();
                history.snapshots.insert((offset, entry.name.clone()), entries);
                self.check_last_batch(&entry.name, &head)?;
            }
        }
        Ok(())
    }

    fn head(&mut self, name: &str, offset: i64, bytes: &[u8]) -> Option<LogCheckpoint> {
        match LogCheckpoint::decode(bytes) {
            Ok(head) if head.log_end_offset == offset => Some(head),
            Ok(head) => {
                let what = format!("covers offsets up to {}, which is not its name", head.log_end_offset);
                self.findings.problem(name, None, Some(offset), what);
                None
            }
            Err(error) => {
                self.findings.problem(name, Some(0), Some(offset), error);
                None
            }
        }
    }

    /// The blocks of all pages, if each is as written.
    fn pages(&mut self, name: &str, head: &LogCheckpoint, bytes: &[u8]) -> Option<Vec<FrozenBlock>> {
        let mut blocks = Vec::new();
        let mut sound = true;
        for page in &head.pages {
            let end = page.position.saturating_add(page.length.into());
            let held = usize::try_from(page.position).ok().zip(usize::try_from(end).ok());
            let held = held.and_then(|(from, to)| bytes.get(from..to)).filter(|held| crc32c(held) == page.crc);
            match held.and_then(decode_page) {
                Some(page) => blocks.extend(page),
                None => {
                    let offset = Some(head.log_end_offset);
                    self.findings.problem(name, Some(page.position), offset, "a page of producers is not as written");
                    sound = false;
                }
            }
        }
        sound.then_some(blocks)
    }

    /// All producers that the file and those before it tell of, if they follow on.
    fn table(
        &mut self,
        name: &str,
        head: &LogCheckpoint,
        before: Option<(i64, ProducerTable)>,
        blocks: Vec<FrozenBlock>,
    ) -> Option<ProducerTable> {
        let offset = Some(head.log_end_offset);
        let mut table = match (head.parent, before) {
            (None, _) => ProducerTable::new(),
            (Some(parent), Some((offset, table))) if offset == parent => table,
            (Some(parent), _) => {
                let what = format!("the checkpoint at {parent}, which it continues, cannot be used; nor can this one");
                self.findings.note(name, None, offset, what);
                return None;
            }
        };
        for block in blocks {
            take_over(&mut table, &block);
        }
        if (table.len() as u64, table.digest()) != (head.producer_count, head.digest) {
            let what = format!(
                "says {} producers with digest {:016x}, its pages hold {} with {:016x}",
                head.producer_count,
                head.digest,
                table.len(),
                table.digest()
            );
            self.findings.problem(name, None, offset, what);
            return None;
        }
        Some(table)
    }

    /// The batch that it ends with, which must stand in the log for it to count.
    fn check_last_batch(&mut self, name: &str, head: &LogCheckpoint) -> CliResult<()> {
        let Some((position, crc)) = head.segment.last_batch else { return Ok(()) };
        let segment = file_name::segment_file_name(head.segment.base_offset, file_name::Kind::Log);
        let path = self.place.directory.join(segment);
        let mut bytes = [0; oncelog_formats::batch::HEADER_BYTES];
        let got = match self.device.length(&path)? {
            Some(_) => self.device.open(&path, oncelog_device::OpenMode::Read)?.read(position, &mut bytes)?,
            None => 0,
        };
        let stands = BatchHeader::parse(&bytes[..got])
            .is_ok_and(|header| header.crc == crc && header.next_offset() == head.log_end_offset);
        if !stands {
            let what = "the log does not hold the batch that it ends with; the next opening does without it";
            self.findings.note(name, None, Some(head.log_end_offset), what);
        }
        Ok(())
    }
}

/// Of a block's producers those given are as it says, and those that are not there are forgotten.
fn take_over(table: &mut ProducerTable, block: &FrozenBlock) {
    for id in block.absent_ids() {
        table.remove(id);
    }
    for (id, entry) in block.entries() {
        table.put(id, entry);
    }
}

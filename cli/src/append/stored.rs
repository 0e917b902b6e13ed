//! How far an import came, read back from the log.

use crate::common::{CliError, CliResult};
use crate::read::{DECODE_LIMIT_BYTES, each_batch};
use oncelog::{Isolation, Log};
use oncelog_formats::BatchView;
use oncelog_formats::crc32c::crc32c_append;
use std::ops::ControlFlow;

/// Key of the header that every last record of a batch carries: `LINES CHECKSUM`, decimal and hex.
pub const HEADER_KEY: &[u8] = b"oncelog-line";

/// A number of lines from the start of the input, and a CRC-32C over them with a newline behind each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Lines.
    pub lines: u64,
    /// Of all of them.
    pub checksum: u32,
}

impl Progress {
    /// Counts one more line.
    pub fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        self.checksum = crc32c_append(crc32c_append(self.checksum, line), b"\n");
    }

    /// As the header's value.
    pub fn to_header(self) -> String {
        format!("{} {:08x}", self.lines, self.checksum)
    }

    fn from_header(value: &[u8]) -> Option<Self> {
        let (lines, checksum) = std::str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self { lines: lines.parse().ok()?, checksum: u32::from_str_radix(checksum, 16).ok()? })
    }
}

/// What is stored of this producer.
///
/// The producer's state says where its last batch lies. Where the state has expired, the batch headers of the whole log
/// are read; where the log's head has been deleted too, nobody knows any more: an error rather than a guess, unless the
/// caller says that the name is `new`.
pub fn progress(log: &Log, producer_id: i64, new: bool) -> CliResult<Progress> {
    let state = log.describe()?;
    let entry = state.producers.iter().find(|(id, _)| *id == producer_id).map(|(_, entry)| entry);
    let last_batch = entry.and_then(|entry| entry.batches().last()).map(|batch| batch.first_offset);
    let from = last_batch.unwrap_or(state.log_start_offset).max(state.log_start_offset);
    let mut found = None;
    each_batch(log, from, Isolation::LogEnd, &mut |batch, _| {
        if batch.header().producer_id == producer_id {
            found = Some(progress_of(batch)?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    match found {
        Some(progress) => Ok(progress),
        None if last_batch.is_none() && (new || state.log_start_offset == 0) => Ok(Progress::default()),
        None => Err(CliError::Refused(format!(
            "nothing under this name is left in the log, which starts at offset {}, so nobody knows how many of the lines \
             were stored once; if the name was never used here, say --new",
            state.log_start_offset
        ))),
    }
}

fn progress_of(batch: &BatchView<'_>) -> CliResult<Progress> {
    let place = format!("batch at offset {}", batch.header().base_offset);
    let records = batch.decode(DECODE_LIMIT_BYTES).map_err(|e| CliError::format(&place, e))?;
    let mut found = None;
    for record in records.records() {
        let record = record.map_err(|e| CliError::format(&place, e))?;
        let mark = record.headers.clone().find(|(key, _)| *key == HEADER_KEY);
        found = mark.and_then(|(_, value)| Progress::from_header(value.unwrap_or_default()));
    }
    found.ok_or_else(|| {
        CliError::Refused(format!("{place}: written under this producer's id by something else than `oncelog append`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_survives_its_header_beyond_the_sequences() {
        let progress = Progress { lines: (1 << 31) + 5, checksum: 0xab };
        assert_eq!(Progress::from_header(progress.to_header().as_bytes()), Some(progress));
        for wrong in ["", "5", "x 00", "5 zz", "-1 00"] {
            assert_eq!(Progress::from_header(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}

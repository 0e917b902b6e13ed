//! What readers are shown.

use oncelog::{Error, Fetched, Isolation, Log, Read};
use serde_json::json;

use super::World;
use crate::oracle::Found;
use crate::oracle::fact::frame;

impl World {
    /// What a reader was shown must be right, and must not vanish.
    pub(super) fn read(&mut self, at: usize) {
        if let Some((offset, fetched)) = self.fetch(at, Isolation::Uncommitted) {
            let oracle = &self.partitions[at].oracle;
            let checked = oracle.check_read(offset, fetched.high_watermark, &fetched).map(|_| ());
            self.hold(at, checked);
            if self.setup.follows_end[at] {
                self.oracle(at).durable_below(fetched.high_watermark);
            }
        }
    }

    pub(super) fn read_committed(&mut self, at: usize) {
        if let Some((offset, fetched)) = self.fetch(at, Isolation::Committed) {
            let checked = self.partitions[at].oracle.check_committed(offset, &fetched);
            self.hold(at, checked);
        }
    }

    /// A read from somewhere, and its offsets held against each other.
    fn fetch(&mut self, at: usize, isolation: Isolation) -> Option<(i64, Fetched)> {
        let log = self.log(at);
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let offset = start + self.random.below((end - start + 1) as u64) as i64;
        let max_bytes = self.random.pick(&[1, 700, 5_000, 1 << 20]);
        let fetched = log.read(Read { isolation, max_bytes, ..Read::from(offset) });
        let word = if isolation == Isolation::Committed { "committed" } else { "uncommitted" };
        self.note(at, || json!({"op": "read", "offset": offset, "max_bytes": max_bytes, "isolation": word}));
        let fetched = self.expect(at, "a read", fetched)?;
        self.hash(fetched.data.len() as u64);
        let checked = self.partitions[at].oracle.check_limits(&fetched, self.was_lied_to());
        self.hold(at, checked);
        Some((offset, fetched))
    }

    pub(super) fn look_up_time(&mut self, at: usize) {
        let state = self.log(at).describe();
        let Some(state) = self.expect(at, "a description", state) else { return };
        if self.was_lied_to() || state.segments.first().is_none_or(|first| first.base_offset < state.log_start_offset) {
            // Kafka looks in the first segment with such a time, even if only deleted records of it have one.
            return;
        }
        let oracle = &self.partitions[at].oracle;
        let Some(some) = oracle.from(oracle.start()).get(self.random.index(oracle.facts.len())) else { return };
        let timestamp = some.timestamp + self.random.below(3) as i64 - 1;
        let expected = oracle.at_time(timestamp, state.log_start_offset);
        let answer = self.log(at).offset_for_timestamp(timestamp);
        self.note(at, || json!({"op": "offset_for_timestamp", "timestamp": timestamp}));
        if let Some(answer) = self.expect(at, "a look for a time", answer)
            && answer != expected
        {
            self.violation(at, &format!("time {timestamp} was answered {answer:?} instead of {expected:?}"));
        }
    }
}

/// All batches that a log holds, in pieces of at most so many bytes.
pub(super) fn read_all(log: &Log, max_bytes: usize) -> Result<Found, Error> {
    let (log_start, log_end) = (log.log_start_offset(), log.log_end_offset());
    let mut found = Found { log_start, log_end, data: Vec::new() };
    let mut offset = log_start;
    while offset < log_end {
        let fetched = log.read(Read { isolation: Isolation::LogEnd, max_bytes, ..Read::from(offset) })?;
        let Some(next) = end_of(&fetched.data) else { break };
        offset = next;
        found.data.extend_from_slice(&fetched.data);
    }
    Ok(found)
}

/// The offset behind the last batch of these.
pub(super) fn end_of(mut data: &[u8]) -> Option<i64> {
    let mut end = None;
    while let Some((offset, length)) = frame(data) {
        let delta = i32::from_be_bytes(*data.get(23..)?.first_chunk()?);
        end = Some(offset + i64::from(delta) + 1);
        data = data.get(length..)?;
    }
    end
}

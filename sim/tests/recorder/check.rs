//! Opens a disk and holds it against what had been answered. Reads stored batches by their byte positions, not through
//! a parser that the engine uses as well.

use super::run::{Mark, Run, Sent, open};
use oncelog::{Append, Device, Isolation, Log, Outcome, Read};
use oncelog_device::record::Disk;
use std::path::Path;
use std::sync::Arc;

/// Offset, length and leader epoch stand before this byte and may be stamped; all behind it must stay as sent.
const STAMPED_BYTES: usize = 16;
/// How many batches of a producer may be retried.
const WINDOW: usize = 5;

type Check = Result<(), String>;

/// The disk, in memory.
pub fn check(run: &Run, disk: &Disk, moment: usize) -> Check {
    let device = disk.in_memory().map_err(|error| error.to_string())?;
    check_at(run, Arc::new(device), &run.root, moment)
}

/// The log below `root` on a device.
pub fn check_at(run: &Run, device: Arc<dyn Device>, root: &Path, moment: usize) -> Check {
    let (engine, log) = open(device, root, &run.config).map_err(|error| format!("does not open: {error}"))?;
    if let Some(damage) = log.report().damage.first() {
        return Err(format!("damage where there is none: {damage:?}"));
    }
    let known = Known::at(run, moment);
    known.check(run, &log)?;
    let sent: Vec<Sent> = known.sent.iter().map(|number| run.sent[*number].clone()).collect();
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let kept = sent.partition_point(|batch| batch.last_offset < end);
    if kept > 0 && sent[kept - 1].last_offset + 1 != end || kept == 0 && end > start {
        return Err(format!("the log ends at {end}, inside a batch or behind the last"));
    }
    check_stored(&sent[..kept], &log)?;
    let added = retry(&sent, kept, known.truncating, &log)?;
    let all: Vec<Sent> = sent[..kept].iter().cloned().chain(added).collect();
    check_stored(&all, &log)?;
    engine.kill();
    Ok(())
}

/// What the world outside knew when the power went.
#[derive(Default)]
struct Known {
    /// Batches that may be there, by their numbers, in the order of offsets.
    sent: Vec<usize>,
    durable: Vec<usize>,
    /// Everything below was shown.
    shown: i64,
    start: i64,
    start_wanted: i64,
    /// Everything from here on was being truncated.
    truncating: Option<i64>,
}

impl Known {
    fn at(run: &Run, moment: usize) -> Self {
        let mut known = Self { durable: run.claimed.clone(), ..Self::default() };
        for (mark, number) in run.marks(moment) {
            let offset = number.cast_signed();
            let below = |batch: &usize| run.sent[*batch].last_offset < offset;
            match mark {
                Mark::Sent => known.sent.push(number as usize),
                Mark::Durable => known.durable.push(number as usize),
                Mark::Shown => known.shown = known.shown.max(offset),
                Mark::StartWanted => known.start_wanted = known.start_wanted.max(offset),
                Mark::Start => (known.start, known.start_wanted) = (offset, offset),
                Mark::Truncating => {
                    known.durable.retain(below);
                    (known.shown, known.start) = (known.shown.min(offset), known.start.min(offset));
                    known.truncating = Some(offset);
                }
                Mark::Truncated => {
                    known.sent.retain(below);
                    known.truncating = None;
                }
            }
        }
        known.sent.sort_by_key(|number| run.sent[*number].first_offset);
        known
    }

    /// Nothing durable or shown is lost, and the log start is where it was answered.
    fn check(&self, run: &Run, log: &Log) -> Check {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        if let Some(lost) = self.durable.iter().map(|number| &run.sent[*number]).find(|batch| batch.last_offset >= end)
        {
            let (producer, offset) = (lost.producer, lost.first_offset);
            return Err(format!("the log ends at {end}; durable batch {offset} of producer {producer} is lost"));
        }
        if self.shown > end {
            return Err(format!("the log ends at {end}; shown was everything below {}", self.shown));
        }
        let possible = self.start..=self.start_wanted.max(self.start);
        if !possible.contains(&start) {
            return Err(format!("the log starts at {start}, outside {possible:?}"));
        }
        Ok(())
    }
}

/// Everything from the log start on, once each and in order, as it was sent.
fn check_stored(sent: &[Sent], log: &Log) -> Check {
    let mut offset = log.log_start_offset();
    let visible = sent.partition_point(|batch| batch.last_offset < offset);
    let mut expected = sent[visible..].iter();
    loop {
        let read = Read { offset, max_bytes: 1 << 20, isolation: Isolation::LogEnd, at_least_one: true };
        let fetched = log.read(read).map_err(|error| format!("read at {offset}: {error}"))?;
        let mut data = &fetched.data[..];
        if data.is_empty() {
            break;
        }
        while !data.is_empty() {
            let (first, length) = frame(data);
            let batch = expected.next().ok_or_else(|| format!("a batch at {first} that nobody expects"))?;
            let same = data[STAMPED_BYTES..length] == batch.bytes[STAMPED_BYTES..];
            if first != batch.first_offset || !same {
                return Err(format!("at offset {first} stands another batch than {}", batch.first_offset));
            }
            offset = batch.last_offset + 1;
            data = &data[length..];
        }
    }
    expected.next().map_or(Ok(()), |batch| Err(format!("batch {} is not there", batch.first_offset)))
}

/// Sends again what a client may: batches that survived are answered with their offsets, the first that did not is
/// stored. Answers what was stored. What was deleted already when a truncation reached it may be forgotten.
fn retry(sent: &[Sent], kept: usize, truncating: Option<i64>, log: &Log) -> Result<Vec<Sent>, String> {
    let start = log.log_start_offset();
    let known =
        |batch: &&Sent| batch.last_offset >= start || truncating.is_none_or(|offset| batch.last_offset < offset);
    let mut producers: Vec<i64> = sent.iter().map(|batch| batch.producer).collect();
    producers.sort_unstable();
    producers.dedup();
    let mut added = Vec::new();
    for producer in producers {
        let of_producer = |batch: &&Sent| batch.producer == producer;
        let stored: Vec<&Sent> = sent[..kept].iter().filter(of_producer).filter(known).collect();
        for batch in &stored[stored.len().saturating_sub(WINDOW)..] {
            let answer = log.append_wait(Append::client(&batch.bytes)).map_err(|error| format!("a retry: {error}"))?;
            let offsets = (answer.base_offset, answer.last_offset);
            if answer.outcome != Outcome::Duplicate || offsets != (batch.first_offset, batch.last_offset) {
                return Err(format!("a retry of batch {} was answered {answer:?}", batch.first_offset));
            }
        }
        if let Some(lost) = sent[kept..].iter().find(of_producer) {
            let end = log.log_end_offset();
            let answer =
                log.append_wait(Append::client(&lost.bytes)).map_err(|error| format!("a lost batch: {error}"))?;
            if answer.outcome != Outcome::Appended || answer.base_offset != end {
                return Err(format!("a lost batch sent again was answered {answer:?}, not stored at {end}"));
            }
            added.push(Sent { first_offset: answer.base_offset, last_offset: answer.last_offset, ..lost.clone() });
        }
    }
    Ok(added)
}

/// First offset and length of the batch in front.
fn frame(data: &[u8]) -> (i64, usize) {
    let offset = i64::from_be_bytes(data[..8].try_into().expect("whole batches"));
    let length = i32::from_be_bytes(data[8..12].try_into().expect("whole batches"));
    (offset, length as usize + 12)
}

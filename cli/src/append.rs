//! `oncelog append`: the lines of a file, each stored exactly once, however often the import is killed and started
//! again.
//!
//! The log itself is the only memory of how far an import came. Every batch ends in a record with the header
//! `oncelog-line`: how many lines are stored with it, and a checksum over all of them. A batch is stored whole or not
//! at all, so the producer's last batch always tells the truth, whatever the moment of a kill; the count has 64 bits,
//! so sequence numbers may wrap; and a batch stays readable when the producer's state has expired. A file beside the
//! log was not chosen: it could disagree with the log.

mod lines;
mod stored;

use crate::common::{CliError, CliResult, DeviceArg, Outcome, Output, Place, byte_bar, open_for_writing, spinner};
use clap::Args;
use indicatif::ProgressBar;
use lines::{Group, Input};
use oncelog::{Ack, Append, Appended, Clock, Config, Log, OpenOptions, SystemClock, Ticket};
use oncelog_formats::{BatchBuilder, Compression};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::path::PathBuf;
use stored::Progress;

/// The only epoch of an import: two imports under one name exclude each other by the directory's lock.
const EPOCH: i16 = 0;
/// What a batch needs beside its lines: header, record framing, the last record's header.
const BATCH_SLACK_BYTES: usize = 512;

/// Stores the lines of standard input, one record a line, exactly once.
///
/// Killed at any moment and started again with the same input, it goes on where it stopped. An input that has grown
/// since is continued; one that differs in the part already stored is refused.
#[derive(Debug, Args)]
pub struct AppendArgs {
    /// Partition directory, for example data/events-0; made if there is none.
    pub dir: PathBuf,
    /// Name of this import: the same input always goes under the same name.
    #[arg(long, value_name = "NAME")]
    producer: String,
    /// Most lines in one batch.
    #[arg(long, value_name = "LINES", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    batch_lines: u32,
    /// Most bytes of lines in one batch.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    batch_bytes: usize,
    /// Batches under way before the oldest is waited for.
    #[arg(long, value_name = "BATCHES", default_value_t = 16)]
    in_flight: usize,
    /// none, gzip, snappy, lz4 or zstd.
    #[arg(long, value_name = "CODEC", default_value = "none")]
    compression: String,
    /// A topic setting by Kafka's name with underscores; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    config: Vec<String>,
    /// The name was never used in this log: needed only where the log's oldest records have been deleted.
    #[arg(long)]
    new: bool,
    /// How to reach the disk.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// One JSON object at the end.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog append`.
pub fn run(args: &AppendArgs) -> CliResult {
    let compression = Compression::from_name(&args.compression).map_err(|_| {
        CliError::Refused(format!("--compression {}: not none, gzip, snappy, lz4 or zstd", args.compression))
    })?;
    let config = configured(&args.config)?;
    let line_limit = usize::try_from(config.max_message_bytes).unwrap_or(0).saturating_sub(BATCH_SLACK_BYTES);
    let place = Place::created(&args.dir)?;
    let (engine, log) = open_for_writing(&place, args.device.into(), OpenOptions { config, ..OpenOptions::default() })?;
    let mut import = Import {
        producer_id: producer_id(&args.producer),
        compression,
        in_flight_limit: args.in_flight.max(1),
        batch_lines: args.batch_lines as usize,
        batch_bytes: args.batch_bytes.min(line_limit),
        clock: SystemClock::new(),
        under_way: VecDeque::new(),
        added: 0,
        last_offset: None,
    };
    let mut input = Input::new(std::io::stdin().lock(), line_limit);
    let bar = progress_bar();
    let before = stored::progress(&log, import.producer_id, args.new)?;
    skip_stored(&mut input, before, &bar)?;
    let imported = import.all(&log, &mut input, &bar);
    bar.finish_and_clear();
    drop(log);
    // Closed also after an error: what was stored then needs no recovery.
    let closed = engine.close();
    if imported.is_err() {
        eprintln!("oncelog: what is stored stays stored; the same command with the same input goes on behind it");
    }
    imported?;
    closed?;
    report(args, &import, before)?;
    Ok(Outcome::Fine)
}

fn configured(settings: &[String]) -> CliResult<Config> {
    let mut config = Config::default();
    for setting in settings {
        let refused = |reason: String| CliError::Refused(format!("--config {setting}: {reason}"));
        let (name, value) = setting.split_once('=').ok_or_else(|| refused("not NAME=VALUE".into()))?;
        config.set(name, value).map_err(|e| refused(e.to_string()))?;
    }
    Ok(config)
}

/// The producer id of a name: the first 63 bits (big-endian, sign bit cleared) of SHA-256 over `oncelog-producer:NAME`.
///
/// Ids that a Kafka broker hands out count up from 0, so they and these do not meet.
pub fn producer_id(name: &str) -> i64 {
    let digest = Sha256::new().chain_update(b"oncelog-producer:").chain_update(name.as_bytes()).finalize();
    let first: [u8; 8] = std::array::from_fn(|index| digest[index]);
    i64::from_be_bytes(first) & i64::MAX
}

/// The sequence number of a line counted from 0: sequences wrap after 2^31 - 1.
fn sequence_of(line: u64) -> i32 {
    (line & 0x7fff_ffff) as i32
}

fn progress_bar() -> ProgressBar {
    let length = rustix::fs::fstat(std::io::stdin())
        .ok()
        .filter(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile);
    match length {
        Some(stat) => byte_bar(stat.st_size.unsigned_abs(), "append"),
        None => spinner("append, bytes"),
    }
}

fn skip_stored<R: std::io::Read>(input: &mut Input<R>, stored: Progress, bar: &ProgressBar) -> CliResult<()> {
    while input.progress().lines < stored.lines {
        if !input.skip_line()? {
            let have = input.progress().lines;
            return Err(CliError::Refused(format!(
                "standard input ends after {have} lines, but {} lines are stored under this name; nothing was added",
                stored.lines
            )));
        }
        bar.set_position(input.bytes_read());
    }
    if input.progress() != stored {
        return Err(CliError::Refused(format!(
            "the first {} lines of standard input are not the ones stored under this name; nothing was added",
            stored.lines
        )));
    }
    Ok(())
}

/// A running import.
struct Import {
    producer_id: i64,
    compression: Compression,
    in_flight_limit: usize,
    batch_lines: usize,
    batch_bytes: usize,
    clock: SystemClock,
    under_way: VecDeque<Ticket>,
    added: u64,
    /// Of the last batch added.
    last_offset: Option<i64>,
}

impl Import {
    /// Appends every line that is left and waits until all are durable.
    fn all<R: std::io::Read>(&mut self, log: &Log, input: &mut Input<R>, bar: &ProgressBar) -> CliResult<()> {
        let mut group = Group::default();
        loop {
            let first_line = input.progress().lines;
            input.next_group(&mut group, self.batch_lines, self.batch_bytes)?;
            if group.is_empty() {
                break;
            }
            let batch = self.batch(first_line, &group, input.progress())?;
            let ticket = log.append(Append { ack: Ack::Durable, ..Append::client(&batch) })?;
            self.under_way.push_back(ticket);
            self.added += group.len() as u64;
            while self.under_way.len() >= self.in_flight_limit {
                self.wait_for_oldest()?;
            }
            bar.set_position(input.bytes_read());
        }
        while !self.under_way.is_empty() {
            self.wait_for_oldest()?;
        }
        Ok(())
    }

    fn batch(&self, first_line: u64, group: &Group, after: Progress) -> CliResult<Vec<u8>> {
        let now_ms = self.clock.now_ms();
        let mut builder = BatchBuilder::new().compression(self.compression);
        builder = builder.producer(self.producer_id, EPOCH, sequence_of(first_line));
        let mark = after.to_header();
        let mark: [(&[u8], Option<&[u8]>); 1] = [(stored::HEADER_KEY, Some(mark.as_bytes()))];
        let mut lines = group.lines().peekable();
        while let Some(line) = lines.next() {
            let headers: &[_] = if lines.peek().is_none() { &mark } else { &[] };
            builder.append(now_ms, None, Some(line), headers);
        }
        builder.build().map_err(|e| CliError::format(format!("batch of line {}", first_line + 1), e))
    }

    fn wait_for_oldest(&mut self) -> CliResult<()> {
        if let Some(ticket) = self.under_way.pop_front() {
            let Appended { last_offset, .. } = ticket.wait()?;
            self.last_offset = Some(last_offset);
        }
        Ok(())
    }
}

fn report(args: &AppendArgs, import: &Import, before: Progress) -> CliResult<()> {
    let mut output = Output::new();
    let stored = before.lines + import.added;
    if args.json {
        output.line(json!({
            "producer": args.producer, "producer_id": import.producer_id, "lines_before": before.lines,
            "lines_added": import.added, "lines_stored": stored, "last_offset": import.last_offset,
        }))?;
    } else {
        output.line(format_args!(
            "{} lines added, {} were stored before, {stored} stored in all",
            import.added, before.lines
        ))?;
    }
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_always_means_the_same_producer_id() {
        assert_eq!(producer_id("importer"), producer_id("importer"));
        assert_ne!(producer_id("importer"), producer_id("importer2"));
        assert!(producer_id("") >= 0);
    }

    #[test]
    fn sequences_wrap_where_kafka_wraps_them() {
        assert_eq!(sequence_of(0), 0);
        assert_eq!(sequence_of((1 << 31) - 1), i32::MAX);
        assert_eq!(sequence_of(1 << 31), 0);
        assert_eq!(sequence_of((3 << 31) + 7), 7);
    }
}

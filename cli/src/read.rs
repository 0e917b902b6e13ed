//! `oncelog read`: records in offset order, as values, as JSON or as a table.
//!
//! With `--isolation committed` the batches of aborted transactions are left out by the list that came with the read,
//! as Kafka's consumer does it.

use crate::common::{CliError, CliResult, Outcome, Output, Place, bytes_json, open_for_reading};
use clap::{Args, ValueEnum};
use oncelog::{CommittedFilter, Isolation, Log, Read};
use oncelog_formats::batch::{BatchHeader, BatchView, Batches};
use oncelog_formats::record::Record;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::{Errno, retry_on_intr};
use serde_json::json;
use std::mem::MaybeUninit;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes asked for with each read.
const READ_BYTES: usize = 4 << 20;
/// So long changes are gathered before the log is looked at again.
const GATHER: Duration = Duration::from_millis(20);
/// Most that one compressed batch may grow to.
pub const DECODE_LIMIT_BYTES: usize = 1 << 30;

/// Reads records without changing or locking anything.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// Only values, one a line.
    #[arg(long, conflicts_with = "json")]
    values: bool,
    /// One JSON object a record and line.
    #[arg(long)]
    json: bool,
    /// First offset; the log's start where it is not given.
    #[arg(long, value_name = "OFFSET")]
    from: Option<i64>,
    /// Stop after this many records.
    #[arg(long, value_name = "RECORDS")]
    max: Option<u64>,
    /// Go on as the log grows, also while another process writes it; ends with --max, or never. What is shown may not
    /// be durable yet.
    #[arg(long)]
    follow: bool,
    /// Which records to show.
    #[arg(long, value_enum, default_value_t = IsolationArg::Committed)]
    isolation: IsolationArg,
}

/// What a reader is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum IsolationArg {
    /// Everything below the high watermark.
    Uncommitted,
    /// Below the last stable offset, without aborted transactions.
    Committed,
}

/// Runs `oncelog read`.
pub fn run(args: &ReadArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    // Watched before it is read: what comes in between is not missed.
    let mut changes = args.follow.then(|| Changes::watch(&place.directory)).transpose()?;
    let mut output = Output::new();
    let mut left = args.max.unwrap_or(u64::MAX);
    let mut from = args.from;
    let mut outcome = Outcome::Fine;
    while left > 0 {
        let (_engine, log) = open_for_reading(&place)?;
        if !log.report().damage.is_empty() {
            outcome = Outcome::Wrong;
        }
        from = Some(show(&log, from.unwrap_or_else(|| log.log_start_offset()), args, &mut output, &mut left)?);
        output.flush()?;
        match &mut changes {
            Some(changes) if left > 0 => changes.wait()?,
            _ => break,
        }
    }
    Ok(outcome)
}

/// Prints what there is from `from` on, and no more than is left; answers the offset to go on from.
fn show(log: &Log, from: i64, args: &ReadArgs, output: &mut Output, left: &mut u64) -> CliResult<i64> {
    let isolation = match args.isolation {
        IsolationArg::Uncommitted => Isolation::Uncommitted,
        IsolationArg::Committed => Isolation::Committed,
    };
    // The log may have been opened in a moment when it ended lower than before.
    if from > log.log_end_offset() {
        return Ok(from);
    }
    each_record(log, from, isolation, &mut |header, record| {
        print_record(output, args, header, record)?;
        *left -= 1;
        Ok(if *left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
}

/// Tells when a log's files change: the process that writes them is another one, so the kernel has to say.
struct Changes {
    events: OwnedFd,
    directory: PathBuf,
}

impl Changes {
    fn watch(directory: &Path) -> CliResult<Self> {
        let failed = |errno: Errno| CliError::io(directory.display(), errno.into());
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(failed)?;
        let kinds = WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::MOVED_TO;
        inotify::add_watch(&events, directory, kinds).map_err(failed)?;
        Ok(Self { events, directory: directory.to_owned() })
    }

    /// Returns when something has changed since the last time. Opening a log costs more than a change does, so changes
    /// that come together are taken together.
    fn wait(&mut self) -> CliResult<()> {
        let failed = |errno: Errno| CliError::io(self.directory.display(), errno.into());
        let mut readable = [PollFd::new(&self.events, PollFlags::IN)];
        retry_on_intr(|| poll(&mut readable, None)).map_err(failed)?;
        std::thread::sleep(GATHER);
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(&self.events, &mut buffer);
        loop {
            match events.next() {
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(failed(errno)),
            }
        }
    }
}

fn print_record(output: &mut Output, args: &ReadArgs, header: &BatchHeader, record: &Record<'_>) -> CliResult<()> {
    if args.values {
        output.bytes(record.value.unwrap_or_default())?;
        return output.bytes(b"\n");
    }
    if args.json {
        let headers: Vec<_> =
            record.headers.clone().map(|(key, value)| json!([bytes_json(Some(key)), bytes_json(value)])).collect();
        return output.line(json!({
            "offset": record.offset, "timestamp": record.timestamp, "key": bytes_json(record.key),
            "value": bytes_json(record.value), "headers": headers,
            "producer_id": header.producer_id, "producer_epoch": header.producer_epoch,
        }));
    }
    let text = |bytes: Option<&[u8]>| {
        bytes.map_or("-".into(), |bytes| String::from_utf8_lossy(bytes).escape_debug().to_string())
    };
    output.line(format_args!(
        "{:>12}  {}  {}  {}",
        record.offset,
        record.timestamp,
        text(record.key),
        text(record.value)
    ))
}

/// Calls `show` with every data record at or behind `from` that `isolation` shows, in offset order, until it breaks.
/// Answers the offset behind the last batch that was looked at.
pub fn each_record(
    log: &Log,
    from: i64,
    isolation: Isolation,
    show: &mut dyn FnMut(&BatchHeader, &Record<'_>) -> CliResult<ControlFlow<()>>,
) -> CliResult<i64> {
    each_batch(log, from, isolation, &mut |batch, shown| {
        let header = batch.header();
        if !shown || header.is_control() {
            return Ok(ControlFlow::Continue(()));
        }
        let at = |e| CliError::format(format!("batch at offset {}", header.base_offset), e);
        let records = batch.decode(DECODE_LIMIT_BYTES).map_err(at)?;
        for record in records.records() {
            let record = record.map_err(at)?;
            if record.offset >= from && show(header, &record)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// Calls `visit` with every batch that reaches `from` or lies behind it, and whether `isolation` shows it, until it
/// breaks. Answers the offset behind the last one.
pub fn each_batch(
    log: &Log,
    from: i64,
    isolation: Isolation,
    visit: &mut dyn FnMut(&BatchView<'_>, bool) -> CliResult<ControlFlow<()>>,
) -> CliResult<i64> {
    let (mut offset, mut max_bytes) = (from, READ_BYTES);
    loop {
        let fetched = match log.read(Read { offset, max_bytes, isolation, at_least_one: true }) {
            Err(error) if error.is_corruption() && max_bytes > 1 => {
                // Batch by batch from here: what stands before the damage is still shown.
                max_bytes = 1;
                continue;
            }
            fetched => fetched?,
        };
        let mut filter = CommittedFilter::new(&fetched.aborted);
        let before = offset;
        for batch in Batches::new(&fetched.data) {
            let batch = batch.map_err(|e| CliError::format(format!("batch at offset {offset}"), e))?;
            offset = batch.header().next_offset();
            let at = |e| CliError::format(format!("marker at offset {}", batch.header().base_offset), e);
            let shown = filter.shows(&batch).map_err(at)?;
            if visit(&batch, shown)?.is_break() {
                return Ok(offset);
            }
        }
        if offset == before {
            return Ok(offset);
        }
    }
}

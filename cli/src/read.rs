//! `oncelog read`: records in offset order, as values, as JSON or as a table.
//!
//! With `--isolation committed` the batches of aborted transactions are left out by the list that came with the read, as
//! Kafka's consumer does it.

use crate::common::{CliError, CliResult, Outcome, Output, Place, bytes_json, open_for_reading};
use clap::{Args, ValueEnum};
use oncelog::{CommittedFilter, Isolation, Log, Read};
use oncelog_formats::batch::{BatchHeader, BatchView, Batches};
use oncelog_formats::record::Record;
use serde_json::json;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Bytes asked for with each read.
const READ_BYTES: usize = 4 << 20;
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
    let (_engine, log) = open_for_reading(&place)?;
    let from = match args.from {
        Some(offset) => offset,
        None => log.describe()?.log_start_offset,
    };
    let isolation = match args.isolation {
        IsolationArg::Uncommitted => Isolation::Uncommitted,
        IsolationArg::Committed => Isolation::Committed,
    };
    let mut output = Output::new();
    let mut left = args.max.unwrap_or(u64::MAX);
    if left > 0 {
        each_record(&log, from, isolation, &mut |header, record| {
            print_record(&mut output, args, header, record)?;
            left -= 1;
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
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
pub fn each_record(
    log: &Log,
    from: i64,
    isolation: Isolation,
    show: &mut dyn FnMut(&BatchHeader, &Record<'_>) -> CliResult<ControlFlow<()>>,
) -> CliResult<()> {
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

/// Calls `visit` with every batch that reaches `from` or lies behind it, and whether `isolation` shows it, until it breaks.
pub fn each_batch(
    log: &Log,
    from: i64,
    isolation: Isolation,
    visit: &mut dyn FnMut(&BatchView<'_>, bool) -> CliResult<ControlFlow<()>>,
) -> CliResult<()> {
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
                return Ok(());
            }
        }
        if offset == before {
            return Ok(());
        }
    }
}

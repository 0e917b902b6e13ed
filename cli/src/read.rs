//! `oncelog read`: records in offset order, as values, as JSON or as a table.
//!
//! The filter for `--isolation committed` is the one of Kafka's consumer: batches of aborted transactions are left out by
//! the list that came with the fetch, from a transaction's first offset to its marker.

use crate::common::{CliError, CliResult, Outcome, Output, Place, bytes_json, open_for_reading};
use clap::{Args, ValueEnum};
use oncelog::{Isolation, Log, Read};
use oncelog_formats::batch::{BatchHeader, BatchView, Batches};
use oncelog_formats::control::ControlType;
use oncelog_formats::record::Record;
use serde_json::json;
use std::collections::HashSet;
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
        let mut aborted = Aborted::new(fetched.aborted);
        let before = offset;
        for batch in Batches::new(&fetched.data) {
            let batch = batch.map_err(|e| CliError::format(format!("batch at offset {offset}"), e))?;
            let shown = aborted.shows(&batch)?;
            offset = batch.header().next_offset();
            if visit(&batch, shown)?.is_break() {
                return Ok(());
            }
        }
        if offset == before {
            return Ok(());
        }
    }
}

/// Leaves out the batches of aborted transactions, within one fetch.
struct Aborted {
    /// `(first offset, producer id)`, the latest first, so that the next one is popped from the end.
    ahead: Vec<(i64, i64)>,
    open: HashSet<i64>,
}

impl Aborted {
    fn new(transactions: Vec<(i64, i64)>) -> Self {
        let mut ahead: Vec<_> = transactions.into_iter().map(|(producer_id, first)| (first, producer_id)).collect();
        ahead.sort_unstable_by(|a, b| b.cmp(a));
        Self { ahead, open: HashSet::new() }
    }

    fn shows(&mut self, batch: &BatchView<'_>) -> CliResult<bool> {
        let header = batch.header();
        while let Some((_, producer_id)) = self.ahead.pop_if(|(first, _)| *first <= header.last_offset()) {
            self.open.insert(producer_id);
        }
        if header.is_control() {
            if header.record_count > 0 && self.open.contains(&header.producer_id) {
                let control = batch
                    .control()
                    .map_err(|e| CliError::format(format!("marker at offset {}", header.base_offset), e))?;
                if control.kind == ControlType::Abort {
                    self.open.remove(&header.producer_id);
                }
            }
            return Ok(false);
        }
        Ok(!(header.is_transactional() && self.open.contains(&header.producer_id)))
    }
}

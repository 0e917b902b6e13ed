//! `oncelog transactions`, `find-hanging`, `explain`, `abort`: what is open, what is stuck, why, and the way out.

pub mod abort;
pub mod explain;
pub mod hanging;

use crate::common::{CliResult, Outcome, Output, Place, open_for_reading};
use clap::Args;
use oncelog::OpenTransaction;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Lists the transactions that have no marker yet, without changing or locking anything.
#[derive(Debug, Args)]
pub struct TransactionsArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// The time that ages are counted to, ms since the epoch; the system's clock where it is not given.
    #[arg(long, value_name = "MS")]
    now: Option<i64>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog transactions`.
pub fn run(args: &TransactionsArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (_engine, log) = open_for_reading(&place)?;
    let now_ms = args.now.unwrap_or_else(now_ms);
    let open = log.open_transactions()?;
    let mut output = Output::new();
    if args.json {
        let transactions: Vec<Value> = open.iter().map(|txn| transaction(txn, now_ms)).collect();
        output.line(json!({
            "transactions": transactions,
            "last_stable_offset": log.last_stable_offset(),
            "high_watermark": log.high_watermark(),
        }))?;
    } else {
        table(&mut output, &open, now_ms)?;
        output.line(format_args!(
            "{} open, last stable offset {}, high watermark {}",
            open.len(),
            log.last_stable_offset(),
            log.high_watermark()
        ))?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
}

/// The system's clock, ms since the epoch.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// How long the producer has been silent, by its newest timestamp, as Kafka counts. After a crash nobody knows when a
/// batch came; a timestamp that lies ahead of the time at which it was stored is not believed.
pub fn idle_ms(txn: &OpenTransaction, now_ms: i64) -> i64 {
    let known = if txn.last_timestamp < 0 { i64::MAX } else { txn.last_timestamp };
    now_ms.saturating_sub(known.min(txn.last_append_ms))
}

/// One open transaction.
pub fn transaction(txn: &OpenTransaction, now_ms: i64) -> Value {
    json!({
        "producer_id": txn.producer_id,
        "producer_epoch": txn.producer_epoch,
        "coordinator_epoch": txn.coordinator_epoch,
        "first_offset": txn.first_offset,
        "started_ms": txn.started_ms,
        "age_ms": txn.started_ms.map(|started| now_ms.saturating_sub(started)),
        "last_timestamp": txn.last_timestamp,
        "idle_ms": idle_ms(txn, now_ms),
        "bytes_held_back": txn.bytes_held_back,
        "atomic_batch": txn.is_atomic_batch,
    })
}

/// Open transactions as lines of text.
pub fn table(output: &mut Output, open: &[OpenTransaction], now_ms: i64) -> CliResult<()> {
    output.line(format_args!(
        "{:>19}  {:>5}  {:>12}  {:>12}  {:>12}  {:>14}",
        "producer id", "epoch", "first offset", "age s", "idle s", "bytes held"
    ))?;
    for txn in open {
        let age = txn.started_ms.map_or("-".to_owned(), |started| seconds(now_ms.saturating_sub(started)));
        output.line(format_args!(
            "{:>19}  {:>5}  {:>12}  {age:>12}  {:>12}  {:>14}",
            txn.producer_id,
            txn.producer_epoch,
            txn.first_offset,
            seconds(idle_ms(txn, now_ms)),
            txn.bytes_held_back,
        ))?;
    }
    Ok(())
}

fn seconds(ms: i64) -> String {
    format!("{:.1}", ms as f64 / 1000.0)
}

//! `oncelog find-hanging`: open transactions whose producer has been silent for longer than a transaction may take.
//!
//! Kafka's rule of the same name asks the brokers for the producers and then the coordinator whether it knows them.
//! Without a broker nobody can be asked, so this is its first half.

use super::{idle_ms, now_ms, table, transaction};
use crate::common::{CliResult, Outcome, Output, Place, open_for_reading};
use clap::Args;
use oncelog::OpenTransaction;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Finds transactions that nobody will end, without changing or locking anything. Exit code 1 if there are some.
#[derive(Debug, Args)]
pub struct HangingArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// How long a producer may be silent in a transaction, ms; Kafka's transaction.max.timeout.ms.
    #[arg(long, value_name = "MS", default_value_t = 900_000)]
    max_transaction_timeout_ms: i64,
    /// The time to count to, ms since the epoch; the system's clock where it is not given.
    #[arg(long, value_name = "MS")]
    now: Option<i64>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog find-hanging`.
pub fn run(args: &HangingArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (_engine, log) = open_for_reading(&place)?;
    let now_ms = args.now.unwrap_or_else(now_ms);
    let mut hanging: Vec<OpenTransaction> = log.open_transactions()?;
    hanging.retain(|txn| idle_ms(txn, now_ms) > args.max_transaction_timeout_ms);
    let mut output = Output::new();
    if args.json {
        let transactions: Vec<Value> = hanging.iter().map(|txn| transaction(txn, now_ms)).collect();
        output.line(json!({ "hanging": transactions }))?;
    } else if hanging.is_empty() {
        output.line("no transaction hangs")?;
    } else {
        table(&mut output, &hanging, now_ms)?;
        output.line("end one with: oncelog abort DIR --producer-id ID")?;
    }
    output.flush()?;
    Ok(if hanging.is_empty() { Outcome::Fine } else { Outcome::Wrong })
}

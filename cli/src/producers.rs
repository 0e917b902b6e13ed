//! `oncelog producers`: what the log remembers of each producer.

use crate::common::{CliResult, Outcome, Output, Place, open_for_reading};
use clap::Args;
use oncelog_snapshot::ProducerEntry;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Prints the state of every producer, without changing or locking anything.
#[derive(Debug, Args)]
pub struct ProducersArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog producers`.
pub fn run(args: &ProducersArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (_engine, log) = open_for_reading(&place)?;
    let state = log.describe()?;
    let mut output = Output::new();
    if args.json {
        let producers: Vec<Value> = state.producers.iter().map(|(id, entry)| entry_json(*id, entry)).collect();
        output.line(json!({ "producers": producers, "digest": format!("{:016x}", state.digest) }))?;
    } else {
        output.line(format_args!(
            "{:>19}  {:>5}  {:>12}  {:>12}  {:>7}  {:>12}",
            "producer id", "epoch", "last seq", "last offset", "batches", "open since"
        ))?;
        for (id, entry) in &state.producers {
            let last = entry.batches().last();
            let shown = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
            output.line(format_args!(
                "{id:>19}  {:>5}  {:>12}  {:>12}  {:>7}  {:>12}",
                entry.epoch,
                shown(last.map(|batch| batch.last_sequence.into())),
                shown(last.map(|batch| batch.last_offset)),
                entry.batches().len(),
                shown(entry.txn_first_offset),
            ))?;
        }
        output.line(format_args!("{} producers, digest {:016x}", state.producers.len(), state.digest))?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
}

fn entry_json(producer_id: i64, entry: &ProducerEntry) -> Value {
    let batches: Vec<Value> = entry
        .batches()
        .iter()
        .map(|batch| {
            json!({
                "first_seq": batch.first_sequence, "last_seq": batch.last_sequence,
                "first_offset": batch.first_offset, "last_offset": batch.last_offset, "timestamp": batch.timestamp,
            })
        })
        .collect();
    json!({
        "producer_id": producer_id, "epoch": entry.epoch, "coordinator_epoch": entry.coordinator_epoch,
        "last_timestamp": entry.last_timestamp, "last_append_ms": entry.last_append_ms,
        "current_txn_first_offset": entry.txn_first_offset.unwrap_or(-1), "batches": batches,
    })
}

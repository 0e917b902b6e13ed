//! `oncelog explain`: why committed readers see no more than they do.

use super::{now_ms, transaction};
use crate::common::{CliResult, Outcome, Output, Place, open_for_reading};
use clap::Args;
use oncelog::{Explanation, Hold};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Says what holds the last stable offset back, since when, and what would release it. Changes and locks nothing.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// The time that ages are counted to, ms since the epoch; the system's clock where it is not given.
    #[arg(long, value_name = "MS")]
    now: Option<i64>,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog explain`.
pub fn run(args: &ExplainArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (_engine, log) = open_for_reading(&place)?;
    let explanation = log.explain()?;
    let now_ms = args.now.unwrap_or_else(now_ms);
    let mut output = Output::new();
    if args.json {
        let mut document = document(&explanation);
        if let Hold::Open(txn) = &explanation.hold {
            document["transaction"] = transaction(txn, now_ms);
        }
        output.line(document)?;
    } else {
        let Explanation { last_stable_offset, high_watermark, .. } = &explanation;
        output.line(format_args!("last stable offset {last_stable_offset}, high watermark {high_watermark}"))?;
        match &explanation.hold {
            Hold::Nothing => {}
            Hold::Open(txn) => {
                let age = txn.started_ms.map_or("an unknown time".to_owned(), |started| {
                    format!("{:.1} s", now_ms.saturating_sub(started) as f64 / 1000.0)
                });
                output.line(format_args!(
                    "held by producer {}, epoch {}: its transaction is open since offset {}, for {age}, and holds {} bytes back",
                    txn.producer_id, txn.producer_epoch, txn.first_offset, txn.bytes_held_back
                ))?;
            }
            Hold::Decided { producer_id, producer_epoch, first_offset, .. } => output.line(format_args!(
                "held by producer {producer_id}, epoch {producer_epoch}: its transaction from offset {first_offset} is decided"
            ))?,
        }
        output.line(format_args!("released by: {}", explanation.released_by()))?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
}

/// As `play` answers it too.
pub fn document(explanation: &Explanation) -> Value {
    let held_by = match &explanation.hold {
        Hold::Nothing => Value::Null,
        Hold::Open(txn) => json!({
            "producer_id": txn.producer_id,
            "first_offset": txn.first_offset,
            "epoch": txn.producer_epoch,
            "coordinator_epoch": txn.coordinator_epoch,
            "last_timestamp": txn.last_timestamp,
            "state": "open",
        }),
        Hold::Decided { producer_id, producer_epoch, first_offset, marker_offset, commit } => json!({
            "producer_id": producer_id,
            "first_offset": first_offset,
            "epoch": producer_epoch,
            "marker": if *commit { "COMMIT" } else { "ABORT" },
            "marker_offset": marker_offset,
            "state": "decided",
        }),
    };
    json!({
        "last_stable_offset": explanation.last_stable_offset,
        "high_watermark": explanation.high_watermark,
        "held_by": held_by,
        "released_by": explanation.released_by(),
    })
}

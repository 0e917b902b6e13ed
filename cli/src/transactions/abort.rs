//! `oncelog abort`: the marker that a coordinator would write, by hand.

use crate::common::{CliError, CliResult, DeviceArg, Outcome, Output, Place, open_for_writing};
use clap::Args;
use oncelog::{Append, OpenOptions};
use oncelog_formats::control::end_txn_marker_batch;
use serde_json::json;
use std::path::PathBuf;

use super::now_ms;

/// Aborts the open transaction of a producer in this log, by a marker with the epochs that the log knows. A coordinator that
/// is alive may still commit the same transaction in other logs: find out first.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// Partition directory, for example data/events-0; no other process may have it open.
    pub dir: PathBuf,
    /// Whose transaction.
    #[arg(long, value_name = "ID")]
    producer_id: i64,
    /// 2 raises the epoch by one, as coordinators do for clients of transaction version 2.
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    transaction_version: i16,
    /// How to reach the disk.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog abort`.
pub fn run(args: &AbortArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (engine, log) = open_for_writing(&place, args.device.into(), OpenOptions::default())?;
    let id = args.producer_id;
    let Some(txn) = log.open_transactions()?.into_iter().find(|txn| txn.producer_id == id) else {
        engine.close()?;
        return Err(CliError::Refused(format!(
            "producer {id} has no transaction open in {}",
            place.directory.display()
        )));
    };
    let raises = args.transaction_version >= 2 && txn.producer_epoch < i16::MAX;
    let epoch = txn.producer_epoch + i16::from(raises);
    let coordinator_epoch = txn.coordinator_epoch.max(0);
    let marker = end_txn_marker_batch(0, -1, id, epoch, false, coordinator_epoch, now_ms());
    let leader_epoch = log.describe()?.leader_epochs.last().map_or(0, |entry| entry.epoch);
    let append = Append { leader_epoch, txn_version: Some(args.transaction_version), ..Append::coordinator(&marker) };
    let answer = log.append_wait(append)?;
    let last_stable_offset = log.last_stable_offset();
    engine.close()?;
    let mut output = Output::new();
    if args.json {
        output.line(json!({
            "producer_id": id, "producer_epoch": epoch, "coordinator_epoch": coordinator_epoch,
            "first_offset": txn.first_offset, "marker_offset": answer.base_offset,
            "last_stable_offset": last_stable_offset,
        }))?;
    } else {
        output.line(format_args!(
            "aborted producer {id} from offset {}: marker at offset {}, last stable offset {last_stable_offset}",
            txn.first_offset, answer.base_offset
        ))?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
}

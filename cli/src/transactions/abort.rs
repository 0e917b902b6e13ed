//! `oncelog abort`: the marker that a coordinator would write, by hand.

use crate::common::{CliError, CliResult, DeviceArg, Outcome, Output, Place, open_for_writing, open_overlaid};
use clap::Args;
use oncelog::{Append, Log, OpenOptions, OpenTransaction};
use oncelog_formats::control::end_txn_marker_batch;
use serde_json::json;
use std::path::PathBuf;

use super::now_ms;

/// Aborts the open transaction of a producer in this log, by a marker with the epochs that the log knows. A coordinator
/// that is alive may still commit the same transaction in other logs: find out first.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// Partition directory, for example data/events-0; no other process may have it open.
    pub dir: PathBuf,
    /// Whose transaction.
    #[arg(long, value_name = "ID")]
    producer_id: i64,
    /// 2 raises the epoch by one, as coordinators do for clients of transaction version 2.
    #[arg(long, value_name = "VERSION", default_value_t = 0, value_parser = clap::value_parser!(i16).range(0..=2))]
    transaction_version: i16,
    /// How to reach the disk.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// What was done.
struct Aborted {
    txn: OpenTransaction,
    producer_epoch: i16,
    coordinator_epoch: i32,
    marker_offset: i64,
    last_stable_offset: i64,
}

/// Runs `oncelog abort`. All of it is done in memory first: what is refused there has changed nothing on disk, where
/// the mere opening of a log recovers it.
pub fn run(args: &AbortArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (engine, log) = open_overlaid(&place)?;
    abort(&log, &place, args)?;
    drop((engine, log));
    let (engine, log) = open_for_writing(&place, args.device.into(), OpenOptions::default())?;
    let done = abort(&log, &place, args)?;
    engine.close()?;
    let (id, first_offset) = (args.producer_id, done.txn.first_offset);
    let mut output = Output::new();
    if args.json {
        output.line(json!({
            "producer_id": id, "producer_epoch": done.producer_epoch, "coordinator_epoch": done.coordinator_epoch,
            "first_offset": first_offset, "marker_offset": done.marker_offset,
            "last_stable_offset": done.last_stable_offset,
        }))?;
    } else {
        output.line(format_args!(
            "aborted producer {id} from offset {first_offset}: marker at offset {}, last stable offset {}",
            done.marker_offset, done.last_stable_offset
        ))?;
    }
    output.flush()?;
    Ok(Outcome::Fine)
}

fn abort(log: &Log, place: &Place, args: &AbortArgs) -> CliResult<Aborted> {
    let (id, directory) = (args.producer_id, place.directory.display());
    if let Some(damage) = log.report().damage.first() {
        return Err(CliError::Refused(format!("{directory}: nothing is aborted in a damaged log: {damage}")));
    }
    let Some(txn) = log.open_transactions()?.into_iter().find(|txn| txn.producer_id == id) else {
        return Err(CliError::Refused(format!("producer {id} has no transaction open in {directory}")));
    };
    let raises = args.transaction_version >= 2 && txn.producer_epoch < i16::MAX;
    let producer_epoch = txn.producer_epoch + i16::from(raises);
    let coordinator_epoch = txn.coordinator_epoch.max(0);
    let marker = end_txn_marker_batch(0, -1, id, producer_epoch, false, coordinator_epoch, now_ms());
    let leader_epoch = log.describe()?.leader_epochs.last().map_or(0, |entry| entry.epoch);
    let append = Append { leader_epoch, txn_version: Some(args.transaction_version), ..Append::coordinator(&marker) };
    let marker_offset = log.append_wait(append)?.base_offset;
    Ok(Aborted { txn, producer_epoch, coordinator_epoch, marker_offset, last_stable_offset: log.last_stable_offset() })
}

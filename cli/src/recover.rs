//! `oncelog recover`: opens a log for real, says what had to be done, and closes it cleanly.

use crate::common::{CliResult, DeviceArg, Outcome, Output, Place, open_for_writing};
use clap::Args;
use oncelog::{Damage, OpenOptions, OpenReport};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Opens a partition directory, recovers what an unclean stop left, and closes it cleanly.
///
/// Exit code 1 where damage was found that recovery must not cut off.
#[derive(Debug, Args)]
pub struct RecoverArgs {
    /// Partition directory, for example data/events-0.
    pub dir: PathBuf,
    /// How to reach the disk.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog recover`.
pub fn run(args: &RecoverArgs) -> CliResult {
    let place = Place::existing(&args.dir)?;
    let (engine, log) = open_for_writing(&place, args.device.into(), OpenOptions::default())?;
    let report = log.report().clone();
    let state = log.describe()?;
    drop(log);
    engine.close()?;
    let mut output = Output::new();
    if args.json {
        output.line(json!({
            "log_start_offset": state.log_start_offset, "log_end_offset": state.log_end_offset,
            "producers": state.producers.len(), "digest": format!("{:016x}", state.digest), "report": report_json(&report),
        }))?;
    } else {
        print(&mut output, &report)?;
        output.line(format_args!(
            "{}: offsets {} to {}, {} segments, {} producers",
            place.directory.display(),
            state.log_start_offset,
            state.log_end_offset,
            state.segments.len(),
            state.producers.len()
        ))?;
    }
    output.flush()?;
    Ok(if report.damage.is_empty() { Outcome::Fine } else { Outcome::Wrong })
}

fn print(output: &mut Output, report: &OpenReport) -> CliResult<()> {
    output.line(if report.clean { "the last stop was clean" } else { "the last stop was not clean" })?;
    for cut in &report.cut {
        output.line(format_args!("cut off: {cut}"))?;
    }
    for damage in &report.damage {
        output.line(format_args!("damaged, left alone: {damage}"))?;
    }
    for repaired in &report.repaired {
        output.line(format_args!("repaired: {repaired}"))?;
    }
    let begun = match (report.checkpoint_offset, report.snapshot_offset) {
        (Some(offset), _) => format!("checkpoint at offset {offset}"),
        (None, Some(offset)) => format!("producer snapshot at offset {offset}"),
        (None, None) => "no producer snapshot".to_owned(),
    };
    output.line(format_args!(
        "{} batches ({} bytes) checked, {begun}, {} batches applied behind it, {:.1} ms",
        report.batches_scanned, report.bytes_scanned, report.batches_replayed, report.duration_ms
    ))
}

fn report_json(report: &OpenReport) -> Value {
    let places = |list: &[Damage]| -> Vec<Value> {
        let place = |damage: &Damage| {
            json!({
                "file": damage.path.to_string_lossy(), "byte": damage.position, "offset": damage.offset, "what": damage.reason,
            })
        };
        list.iter().map(place).collect()
    };
    json!({
        "clean": report.clean, "batches_scanned": report.batches_scanned, "bytes_scanned": report.bytes_scanned,
        "snapshot_offset": report.snapshot_offset, "checkpoint_offset": report.checkpoint_offset,
        "batches_replayed": report.batches_replayed,
        "cut": places(&report.cut), "damage": places(&report.damage), "repaired": report.repaired,
        "duration_ms": report.duration_ms,
        "steps": report.steps.iter().map(|(step, ms)| json!({ "step": step, "ms": ms })).collect::<Vec<_>>(),
    })
}

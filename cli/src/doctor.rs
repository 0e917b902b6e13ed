//! `oncelog doctor`: what this machine offers a log, and which device would be used and why.

use crate::common::{CliResult, Outcome, Output};
use clap::Args;
use oncelog_device::MachineReport;
use oncelog_device::probe::{DirectoryReport, SyncCost};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Says what this machine offers: io_uring, direct I/O, what a durable write costs, and which device would be used.
///
/// Writes some blocks into a temporary file in each directory, which is gone afterwards.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Directories to look at; the current one where none is given.
    dirs: Vec<PathBuf>,
    /// Durable writes to time, each way.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    samples: u32,
    /// One JSON document.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog doctor`.
pub fn run(args: &DoctorArgs) -> CliResult {
    let here = vec![PathBuf::from(".")];
    let directories = if args.dirs.is_empty() { &here } else { &args.dirs };
    let report = MachineReport::inspect(directories, args.samples as usize);
    let mut output = Output::new();
    if args.json {
        output.line(report_json(&report))?;
    } else {
        print(&mut output, &report)?;
    }
    output.flush()?;
    let wrong = report.directories.iter().any(|directory| directory.problem.is_some());
    Ok(if wrong { Outcome::Wrong } else { Outcome::Fine })
}

fn print(output: &mut Output, report: &MachineReport) -> CliResult<()> {
    let kernel = if report.kernel.is_empty() { "unknown" } else { &report.kernel };
    output.line(format_args!("kernel          {kernel}"))?;
    match &report.ring {
        Ok(ring) => {
            output.line(format_args!("io_uring        works; set up with {}", ring.setup))?;
            output.line(format_args!("  features      {}", listed(&ring.features)))?;
            output.line(format_args!("  operations    {}", listed(&ring.opcodes)))?;
            match &ring.registered_bytes {
                Ok(bytes) => output.line(format_args!("  registered    {bytes} bytes of buffers"))?,
                Err(why) => output.line(format_args!("  registered    no buffers: {why}"))?,
            }
        }
        Err(why) => output.line(format_args!("io_uring        none: {why}"))?,
    }
    let memlock = report.memlock_bytes.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    output.line(format_args!("locked memory   {memlock}"))?;
    output.line(format_args!("device          {:?}: {}", report.auto, report.auto_reason))?;
    for directory in &report.directories {
        output.line(format_args!("{} ({})", directory.path.display(), directory.file_system))?;
        let alignment = match directory.direct_alignment {
            Some((memory, file)) => format!("; alignment {memory} bytes in memory, {file} in the file"),
            None => String::new(),
        };
        match &directory.direct {
            Ok(()) => output.line(format_args!("  direct I/O    yes{alignment}"))?,
            Err(why) => output.line(format_args!("  direct I/O    no: {why}{alignment}"))?,
        }
        match &directory.device_zeroes {
            Ok(()) => output.line("  zeroing       by the device")?,
            Err(why) => {
                output.line(format_args!("  zeroing       zeroes are written; the device does not by itself: {why}"))?
            }
        }
        for SyncCost { way, median_us } in &directory.sync_costs {
            match median_us {
                Ok(us) => output.line(format_args!("  durable 4 KiB {way:<16} {us:>8.1} us (median)"))?,
                Err(why) => output.line(format_args!("  durable 4 KiB {way:<16} not measured: {why}"))?,
            }
        }
        if let Some(problem) = &directory.problem {
            output.line(format_args!("  problem       {problem}"))?;
        }
    }
    Ok(())
}

fn listed(names: &[(&'static str, bool)]) -> String {
    let shown = names.iter().map(|(name, there)| if *there { (*name).to_owned() } else { format!("(no {name})") });
    shown.collect::<Vec<_>>().join(" ")
}

fn report_json(report: &MachineReport) -> Value {
    let flags = |names: &[(&'static str, bool)]| -> Map<String, Value> {
        names.iter().map(|(name, there)| ((*name).to_owned(), (*there).into())).collect()
    };
    let ring = match &report.ring {
        Ok(ring) => json!({
            "works": true, "setup": ring.setup, "features": flags(&ring.features), "operations": flags(&ring.opcodes),
            "registered_bytes": ring.registered_bytes.as_ref().unwrap_or(&0),
            "registered_why_not": ring.registered_bytes.as_ref().err(),
        }),
        Err(why) => json!({ "works": false, "why": why }),
    };
    json!({
        "kernel": report.kernel, "io_uring": ring, "memlock_bytes": report.memlock_bytes,
        "device": format!("{:?}", report.auto).to_lowercase(), "device_reason": report.auto_reason,
        "directories": report.directories.iter().map(directory_json).collect::<Vec<_>>(),
    })
}

fn directory_json(directory: &DirectoryReport) -> Value {
    let costs = directory.sync_costs.iter().map(|SyncCost { way, median_us }| match median_us {
        Ok(us) => json!({ "way": way, "median_us": us }),
        Err(why) => json!({ "way": way, "why_not": why }),
    });
    let alignment =
        directory.direct_alignment.map(|(memory, file)| json!({ "memory_bytes": memory, "file_bytes": file }));
    json!({
        "path": directory.path.to_string_lossy(), "file_system": directory.file_system,
        "direct_io": directory.direct.is_ok(), "direct_io_why_not": directory.direct.as_ref().err(),
        "direct_alignment": alignment, "device_zeroes": directory.device_zeroes.is_ok(),
        "device_zeroes_why_not": directory.device_zeroes.as_ref().err(), "sync_costs": costs.collect::<Vec<_>>(), "problem": directory.problem,
    })
}

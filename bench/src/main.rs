//! How many durable answers a second, beside the leanest program that writes the same bytes.
//!
//! The systems take turns within one run, so that a disk that changes its mood changes it for all of them.

mod durable;
mod report;
mod systems;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use systems::Kind;

/// Throughput of oncelog beside raw baselines.
#[derive(Debug, Parser)]
#[command(name = "oncelog-bench", version)]
struct Arguments {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// Durable acknowledgements a second by batch size and number of writers.
    Durable(Options),
}

/// What every suite takes.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// One JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// Short runs: about a minute in all.
    #[arg(long)]
    short: bool,
    /// Runs of each system in each case.
    #[arg(long)]
    rounds: Option<usize>,
    /// Only these systems.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Where to write; a folder of its own is made in it and removed again.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl Options {
    fn rounds(&self) -> usize {
        let usual = if self.short { 3 } else { 5 };
        self.rounds.unwrap_or(usual).max(1)
    }

    /// How long one run is measured.
    fn span(&self) -> Duration {
        Duration::from_millis(if self.short { 700 } else { 3_000 })
    }

    fn systems(&self) -> Vec<Kind> {
        let wanted = |kind: &Kind| self.only.is_empty() || self.only.contains(kind);
        Kind::ALL.into_iter().filter(wanted).collect()
    }
}

fn main() -> ExitCode {
    let Suite::Durable(options) = Arguments::parse().suite;
    match durable::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("oncelog-bench: {reason}");
            ExitCode::from(2)
        }
    }
}

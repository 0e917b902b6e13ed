//! The command line.

use clap::{Args, Parser};
use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::suites::{SUITES, Suite};

/// Figures of oncelog beside raw baselines and other engines.
#[derive(Debug, Parser)]
#[command(name = "oncelog-bench", version, after_help = after_help())]
pub(crate) struct Arguments {
    /// What to measure; `all` for every suite, `draw` for what standard input holds of earlier runs with --json.
    #[arg(required_unless_present = "child")]
    suite: Option<String>,
    #[command(flatten)]
    pub(crate) options: Options,
    /// A part of a suite that runs in a process of its own.
    #[arg(long, hide = true)]
    pub(crate) child: Option<String>,
}

/// What every suite takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// One JSON object a line instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
    /// Short runs: at most a few minutes for a suite, five for all of them, with fewer cases of some.
    #[arg(long)]
    pub(crate) short: bool,
    /// Runs of each system in each case [default: 5, short 3, all of them short 1].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: Option<u16>,
    /// Only these systems.
    #[arg(long, value_delimiter = ',', value_name = "SYSTEM,..")]
    pub(crate) only: Vec<String>,
    /// Only cases that contain this text, such as `writers=16`.
    #[arg(long, value_name = "TEXT")]
    pub(crate) case: Option<String>,
    /// Where to write; a folder of its own is made in it and removed again [default: the current folder].
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Draw the figures, as SVG files, into this folder, which may be there already.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) plots: Option<PathBuf>,
    /// Whether every suite runs.
    #[arg(skip)]
    all: bool,
}

impl Arguments {
    /// Whether figures of earlier runs are to be drawn, and nothing measured.
    pub(crate) fn only_draws(&self) -> bool {
        self.suite.as_deref() == Some("draw")
    }

    /// The suites asked for, in the order of the table; a name that is none and a system that none of them has are
    /// refused.
    pub(crate) fn suites(&mut self) -> Result<Vec<&'static Suite>, Failure> {
        let asked = self.suite.as_deref().unwrap_or_default();
        self.options.all = asked == "all";
        let chosen: Vec<_> = SUITES.iter().filter(|suite| asked == "all" || suite.name == asked).collect();
        if chosen.is_empty() {
            let names: Vec<_> = SUITES.iter().map(|suite| suite.name).collect();
            return Err(format!("no suite is called {asked:?}; there are: {}, all", names.join(", ")).into());
        }
        for system in &self.options.only {
            if !chosen.iter().any(|suite| suite.systems.contains(&system.as_str())) {
                let mut known: Vec<_> = chosen.iter().flat_map(|suite| suite.systems).copied().collect();
                known.sort_unstable();
                known.dedup();
                return Err(format!("no system is called {system:?} here; there are: {}", known.join(", ")).into());
            }
        }
        Ok(chosen)
    }
}

impl Options {
    /// Runs of each system in each case.
    pub(crate) fn rounds(&self) -> usize {
        let usual = if self.brief() { 1 } else { self.amount(5, 3) };
        self.rounds.map_or(usual, usize::from)
    }

    /// How long one run is measured where a suite measures by time.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_millis(if self.brief() { 200 } else { self.amount(2_000, 400) })
    }

    /// Whether every suite is to show itself within a few minutes: cases that say little beside others are left out.
    pub(crate) fn brief(&self) -> bool {
        self.short && self.all
    }

    /// `long` amount of work, or the `short` one.
    pub(crate) fn amount<T>(&self, long: T, short: T) -> T {
        if self.short { short } else { long }
    }
}

fn after_help() -> String {
    let width = SUITES.iter().map(|suite| suite.name.len()).max().unwrap_or(0);
    let lines = SUITES.iter().map(|suite| format!("  {:width$}  {}", suite.name, suite.about));
    format!("Suites:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

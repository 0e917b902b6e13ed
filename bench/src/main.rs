//! Figures of oncelog beside the leanest programs that write the same bytes, and beside what one would use instead.
//!
//! A suite is one file under `suites/` and one line in its table; what it compares is a list of names. The systems take
//! turns within one run, so that a disk that changes its mood changes it for all of them, and what is reported is the
//! median of the rounds. Figures go to standard output, everything else to standard error.

mod batches;
mod bench;
mod clients;
mod conditions;
mod cpu;
mod options;
mod place;
mod plots;
mod report;
mod suites;
mod systems;

use clap::Parser;
use std::path::Path;
use std::process::ExitCode;

use bench::Bench;
use conditions::Conditions;
use options::{Arguments, Options};

/// What stops a run: a reason for people.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("oncelog-bench: {reason}");
            ExitCode::from(2)
        }
    }
}

fn run(mut arguments: Arguments) -> Result<(), Failure> {
    if let Some(task) = &arguments.child {
        return suites::run_child(task, &arguments.options);
    }
    if arguments.only_draws() {
        return draw(&arguments.options);
    }
    let chosen = arguments.suites()?;
    let mut bench = Bench::new(arguments.options.clone(), &chosen)?;
    for suite in chosen {
        bench.begin(suite);
        (suite.run)(&mut bench).map_err(|reason| format!("suite {}: {reason}", suite.name))?;
        bench.end();
    }
    bench.finish()
}

/// Draws what earlier runs on this machine printed.
fn draw(options: &Options) -> Result<(), Failure> {
    let folder = options.plots.as_deref().ok_or("draw needs --plots FOLDER")?;
    let text = std::io::read_to_string(std::io::stdin())?;
    let figures = text.lines().filter(|line| !line.is_empty()).map(suites::parse_figure);
    let figures = figures.collect::<Result<Vec<_>, Failure>>()?;
    let conditions = Conditions::of(options.dir.as_deref().unwrap_or(Path::new(".")));
    plots::draw(folder, &figures, &conditions.to_string())
}

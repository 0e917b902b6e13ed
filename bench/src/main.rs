//! Figures of oncelog beside the leanest programs that write the same bytes, and beside what one would use instead.
//!
//! A suite is one file under `suites/` and one line in its table; what it compares is a list of names. The systems take turns
//! within one run, so that a disk that changes its mood changes it for all of them, and what is reported is the median
//! of the rounds. Figures go to standard output, everything else to standard error.

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
use std::process::ExitCode;

use bench::Bench;
use options::Arguments;

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
    let chosen = arguments.suites()?;
    let mut bench = Bench::new(arguments.options.clone(), &chosen)?;
    for suite in chosen {
        bench.begin(suite);
        (suite.run)(&mut bench).map_err(|reason| format!("suite {}: {reason}", suite.name))?;
        bench.end();
    }
    bench.finish()
}

//! The suites. A new one is a file here and a line in [`SUITES`].

mod bulk;
mod busy;
mod dedup;
mod durable;
mod eos;
mod many_logs;
mod memory;
mod producers;
mod read;
mod recovery;
mod small;
mod snapshot;
mod spill;
mod sustained;
mod tables;
mod transactions;

use std::process::Command;

use crate::Failure;
use crate::bench::Bench;
use crate::options::Options;
use crate::report::{Figure, Metric};

/// One suite.
pub(crate) struct Suite {
    /// As on the command line and in every figure.
    pub(crate) name: &'static str,
    /// One line for people.
    pub(crate) about: &'static str,
    /// What it compares: `oncelog..` is the engine, `raw-..` a baseline, everything else a peer.
    pub(crate) systems: &'static [&'static str],
    /// Runs its cases through [`Bench::compare`].
    pub(crate) run: fn(&mut Bench) -> Result<(), Failure>,
}

/// All of them, in the order in which `all` runs them.
pub(crate) const SUITES: &[Suite] = &[
    durable::SUITE,
    small::SUITE,
    bulk::SUITE,
    many_logs::SUITE,
    busy::SUITE,
    read::SUITE,
    sustained::SUITE,
    memory::SUITE,
    transactions::SUITE,
    dedup::SUITE,
    producers::SUITE,
    spill::SUITE,
    snapshot::SUITE,
    recovery::SUITE,
    eos::SUITE,
];

/// A figure of an earlier run from its line of JSON; of a suite and a system that there are.
pub(crate) fn parse_figure(line: &str) -> Result<Figure, Failure> {
    let object: serde_json::Value = serde_json::from_str(line)?;
    let word = |key: &str| object[key].as_str().ok_or_else(|| format!("no {key} in {line}"));
    let value = |key: &str| object[key].as_f64().ok_or_else(|| format!("no {key} in {line}"));
    let suite = SUITES.iter().find(|suite| Ok(suite.name) == word("suite"));
    let suite = suite.ok_or_else(|| format!("no known suite in {line}"))?;
    let system = suite.systems.iter().find(|system| Ok(**system) == word("system"));
    let metric = Metric::ALL.into_iter().find(|metric| Ok(metric.name()) == word("metric"));
    Ok(Figure {
        suite: suite.name,
        case: word("case")?.to_owned(),
        system: system.ok_or_else(|| format!("no known system in {line}"))?,
        metric: metric.ok_or_else(|| format!("no known metric in {line}"))?,
        median: value("median")?,
        min: value("min")?,
        max: value("max")?,
        runs: value("runs")? as usize,
    })
}

/// A part of a suite that needs a process of its own: what it prints, its suite reads.
type Child = fn(&Options) -> Result<(), Failure>;

/// Those parts by name.
const CHILDREN: &[(&str, Child)] = &[
    (busy::CHILD, busy::child),
    (memory::CHILD, memory::child),
    (producers::CHILD, producers::child),
    (recovery::FILL, recovery::fill_child),
    (recovery::OPEN, recovery::open_child),
];

/// Runs the part called `task`.
pub(crate) fn run_child(task: &str, options: &Options) -> Result<(), Failure> {
    match CHILDREN.iter().find(|(name, _)| *name == task) {
        Some((_, run)) => run(options),
        None => Err(format!("no part is called {task:?}").into()),
    }
}

/// This program, about to run the part called `task`.
fn child(task: &str) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--child", task]);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_printed_figure_is_read_again_as_it_was() {
        let figure = Figure::of("durable", "bytes=1024 writers=4", "okaywal", Metric::P99Us, vec![2.0, 1.0, 4.0]);
        assert_eq!(parse_figure(&figure.json().to_string()).unwrap(), figure);
        let unknown = figure.json().to_string().replace("okaywal", "nobody");
        assert!(parse_figure(&unknown).unwrap_err().to_string().contains("no known system"));
    }
}

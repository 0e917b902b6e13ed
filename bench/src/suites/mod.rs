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
mod small;
mod sustained;
mod tables;
mod transactions;

use std::process::Command;

use crate::Failure;
use crate::bench::Bench;
use crate::options::Options;

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
    eos::SUITE,
];

/// A part of a suite that needs a process of its own: what it prints, its suite reads.
type Child = fn(&Options) -> Result<(), Failure>;

/// Those parts by name.
const CHILDREN: &[(&str, Child)] =
    &[(busy::CHILD, busy::child), (memory::CHILD, memory::child), (producers::CHILD, producers::child)];

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

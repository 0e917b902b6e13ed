//! Runs a command on a machine without io_uring: `without_ring COMMAND [ARGUMENT..]`.
//!
//! Denies the making of rings to itself, by a filter that every process it becomes or starts inherits. `.ci/run` has
//! the tests run so once more, as many containers would run them.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// The same number on every architecture.
const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let command = arguments.next().ok_or("usage: without_ring COMMAND [ARGUMENT..]")?;
    let rules = [(IO_URING_SETUP, Vec::new())].into();
    let architecture = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), architecture)?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter(&program)?;
    Err(Command::new(command).args(arguments).exec().into())
}

//! `memory`: what a thousand open logs hold besides their producers.
//!
//! In a process of its own, so that nothing else is counted: what it holds resident with the logs open, each with one
//! durable batch from no producer, less what it held before.

use oncelog::{Append, DeviceKind, Engine, EngineOptions, OpenOptions};
use std::fs;
use std::time::Instant;

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::Bench;
use crate::options::Options;
use crate::report::Metric;

pub(super) const SUITE: Suite = Suite {
    name: "memory",
    about: "resident memory of a thousand open logs, and how long opening them takes",
    systems: &["oncelog", "oncelog-blocking"],
    run,
};

pub(super) const CHILD: &str = "memory";

const LOGS: usize = 1000;
const SIZE_BYTES: usize = 4096;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    bench.compare(&format!("logs={LOGS}"), |name, turn| {
        let folder = turn.folder(1 << 30)?;
        let output = super::child(CHILD)?.args(["--only", name, "--dir"]).arg(folder.path()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let mut numbers = text.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(bytes)), Some(Ok(ms))) => Ok(vec![(Metric::Bytes, bytes), (Metric::Ms, ms)]),
            _ => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
        }
    })
}

/// Prints resident bytes and ms to open.
pub(super) fn child(options: &Options) -> Result<(), Failure> {
    let blocking = options.only.iter().any(|name| name == "oncelog-blocking");
    let device_kind = if blocking { DeviceKind::Blocking } else { DeviceKind::Auto };
    let dir = options.dir.as_deref().ok_or("no folder")?;
    let mut source = BatchSource::new(-1, SIZE_BYTES)?;
    let before = resident_bytes()?;
    let started = Instant::now();
    let engine = Engine::open(dir, EngineOptions { device_kind, ..EngineOptions::default() })?;
    let logs = (0..LOGS).map(|number| engine.log(&format!("bench-{number}"), OpenOptions::default()));
    let logs = logs.collect::<Result<Vec<_>, _>>()?;
    let took = started.elapsed();
    for log in &logs {
        log.append_wait(Append::client(source.next()))?;
    }
    println!("{} {}", resident_bytes()?.saturating_sub(before), took.as_secs_f64() * 1e3);
    Ok(())
}

pub(super) fn resident_bytes() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kib = line.split_whitespace().next().ok_or("no number behind VmRSS")?;
    Ok(kib.parse::<u64>()? << 10)
}

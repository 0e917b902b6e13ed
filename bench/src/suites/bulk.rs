//! `bulk`: one thread, many batches, one sync at the end.

use std::time::Instant;

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::Bench;
use crate::report::Metric;
use crate::systems::{self, APPENDING, Plan};

pub(super) const SUITE: Suite =
    Suite { name: "bulk", about: "64 KiB batches from one thread, one sync at the end", systems: APPENDING, run };

const SIZE_BYTES: usize = 65536;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let bytes = if bench.options.brief() { 1 << 29 } else { bench.options.amount(4 << 30, 1 << 30) };
    let count = bytes / SIZE_BYTES as u64;
    bench.compare(&format!("bytes={SIZE_BYTES} total={bytes}"), |name, turn| {
        let folder = turn.folder(2 * bytes)?;
        let system = systems::open(name, &folder, &Plan { bytes, ..Plan::default() })?;
        let mut source = BatchSource::new(0, SIZE_BYTES)?;
        folder.settle()?;
        let started = Instant::now();
        system.bulk(&mut source, count)?;
        let took = started.elapsed();
        system.close()?;
        Ok(vec![(Metric::MbPerS, bytes as f64 / 1e6 / took.as_secs_f64())])
    })
}

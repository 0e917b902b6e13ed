//! `sustained`: writing on and on, through ten times what stands ready and many rolls.
//!
//! Rates are of batches in a row with one sync at the end: over one segment, over many that all stay, and over many of
//! which only the newest stay, so that what is freed is used again. Latencies are of durable answers to one writer,
//! with a roll each 1024 answers and without: the answer at the roll is the one of the 99.9th percentile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::{Bench, Turn};
use crate::clients::{self, Load};
use crate::place::Folder;
use crate::report::{Measured, Metric};
use crate::systems::{self, Plan, System};

pub(super) const SUITE: Suite = Suite {
    name: "sustained",
    about: "writing through many rolls, growing and with retention",
    systems: &["oncelog", "oncelog-blocking", "raw-uring", "raw-pwritev2"],
    run,
};

const SIZE_BYTES: usize = 65536;
const ONE_SEGMENT_BYTES: u64 = 1 << 30;
const ROLLING_BYTES: u64 = 64 << 20;
const READY_BYTES: u64 = 256 << 20;
const RETAIN_EVERY: Duration = Duration::from_millis(10);

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let growing = Shape { segment_bytes: ROLLING_BYTES, retention_bytes: None };
    let retained = Shape { segment_bytes: ROLLING_BYTES, retention_bytes: Some(READY_BYTES) };
    let unrolled = Shape { segment_bytes: ONE_SEGMENT_BYTES, retention_bytes: None };
    let total = 10 * READY_BYTES;
    let in_bulk = [retained, growing];
    for &shape in if bench.options.brief() { &in_bulk[..1] } else { &in_bulk } {
        let case = shape.case(total);
        bench.compare(&case, |name, turn| in_a_row(name, turn, shape, total))?;
    }
    let total = bench.options.amount(ONE_SEGMENT_BYTES, ONE_SEGMENT_BYTES / 2);
    for shape in [unrolled, growing, retained] {
        let case = format!("{} writers=1", shape.case(total));
        bench.compare(&case, |name, turn| one_by_one(name, turn, shape, total))?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Shape {
    segment_bytes: u64,
    retention_bytes: Option<u64>,
}

impl Shape {
    fn case(self, total: u64) -> String {
        let Self { segment_bytes, retention_bytes } = self;
        let kept = retention_bytes.map(|bytes| format!(" retention={bytes}")).unwrap_or_default();
        format!("bytes={SIZE_BYTES} total={total} segment={segment_bytes}{kept}")
    }

    fn open(self, name: &str, turn: &Turn<'_>, total: u64) -> Result<(Folder, Box<dyn System>), Failure> {
        let folder = turn.folder(2 * total)?;
        let bytes = self.retention_bytes.unwrap_or(total);
        let (segment_bytes, retention_bytes) = (Some(self.segment_bytes), self.retention_bytes);
        let plan = Plan { bytes, segment_bytes, retention_bytes, ..Plan::default() };
        let system = systems::open(name, &folder, &plan)?;
        folder.settle()?;
        Ok((folder, system))
    }
}

fn in_a_row(name: &str, turn: &Turn<'_>, shape: Shape, total: u64) -> Result<Measured, Failure> {
    let (_folder, system) = shape.open(name, turn, total)?;
    let mut source = BatchSource::new(0, SIZE_BYTES)?;
    let took = retaining(&*system, shape, || {
        let started = Instant::now();
        system.bulk(&mut source, total / SIZE_BYTES as u64)?;
        Ok(started.elapsed())
    })?;
    system.close()?;
    Ok(vec![(Metric::MbPerS, total as f64 / 1e6 / took.as_secs_f64())])
}

fn one_by_one(name: &str, turn: &Turn<'_>, shape: Shape, total: u64) -> Result<Measured, Failure> {
    let (_folder, system) = shape.open(name, turn, total)?;
    // All of it counts but the first quarter, however long it takes.
    let load = Load {
        size_bytes: SIZE_BYTES,
        warm: Duration::from_secs(60),
        span: Duration::from_secs(180),
        budget_bytes: total,
    };
    let answers = retaining(&*system, shape, || clients::threads(&*system, load, 1))?;
    system.close()?;
    answers.measured()
}

/// Lets retention be applied beside `work`, as a broker does, only more often.
fn retaining<T>(system: &dyn System, shape: Shape, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    if shape.retention_bytes.is_none() {
        return work();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let retaining = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                system.retain()?;
                thread::sleep(RETAIN_EVERY);
            }
            Ok::<_, Failure>(())
        });
        let answer = work();
        done.store(true, Ordering::Relaxed);
        retaining.join().map_err(|_panic| "retention panicked")??;
        answer
    })
}

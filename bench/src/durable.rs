//! The suite `durable`: writers that each send one batch and wait until it survives the loss of power.

use oncelog_formats::BatchBuilder;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::Options;
use crate::report::{Figure, Report};
use crate::systems::{Failure, Kind, System};

const SIZES: [usize; 2] = [1024, 65536];
const WRITERS: [usize; 3] = [1, 4, 16];

/// What one run came to.
struct Run {
    acks_per_s: f64,
    p99_us: f64,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut report = Report::new(options.json);
    for bytes in SIZES {
        for writers in WRITERS {
            let mut runs: Vec<(Kind, Vec<Run>)> = Vec::new();
            runs.extend(options.systems().into_iter().map(|kind| (kind, Vec::new())));
            for round in 0..options.rounds() {
                let count = runs.len();
                for turn in 0..count {
                    // Another one begins each round.
                    let (kind, done) = &mut runs[(turn + round) % count];
                    done.push(run_one(*kind, options, bytes, writers)?);
                }
            }
            let case = format!("bytes={bytes} writers={writers}");
            for (kind, runs) in &runs {
                let (suite, system) = ("durable", kind.name());
                let acks = runs.iter().map(|run| run.acks_per_s).collect();
                let tail = runs.iter().map(|run| run.p99_us).collect();
                for (metric, unit, values) in [("acks_per_s", "1/s", acks), ("p99_us", "us", tail)] {
                    report.add(&Figure::of(suite, &case, system, metric, unit, values));
                }
            }
        }
    }
    Ok(())
}

fn run_one(kind: Kind, options: &Options, bytes: usize, writers: usize) -> Result<Run, Failure> {
    let dir = tempfile::Builder::new().prefix("oncelog-bench-").tempdir_in(&options.dir)?;
    let system = kind.open(dir.path())?;
    // A quarter more in front that does not count: files are prepared, the device has made up its mind.
    let warm = options.span() / 4;
    let barrier = Barrier::new(writers);
    let answers = thread::scope(|scope| {
        let write = |number| write(&system, number, bytes, warm, options.span(), &barrier);
        let threads: Vec<_> = (0..writers).map(|number| scope.spawn(move || write(number))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_| "a writer panicked")?);
        joined.collect::<Result<Vec<Vec<Duration>>, Failure>>()
    })?;
    system.close()?;
    let mut waits: Vec<Duration> = answers.into_iter().flatten().collect();
    if waits.is_empty() {
        return Err(format!("{} answered nothing in time", kind.name()).into());
    }
    waits.sort_unstable();
    let p99 = waits[(waits.len() * 99).div_ceil(100) - 1];
    Ok(Run { acks_per_s: waits.len() as f64 / options.span().as_secs_f64(), p99_us: p99.as_secs_f64() * 1e6 })
}

/// One producer: sends the next batch when the last one was answered. Answers how long each answer within the measured
/// span took.
fn write(
    system: &System,
    number: usize,
    bytes: usize,
    warm: Duration,
    span: Duration,
    barrier: &Barrier,
) -> Result<Vec<Duration>, Failure> {
    let mut waits = Vec::with_capacity(1 << 16);
    let mut sequence = 0;
    barrier.wait();
    let started = Instant::now();
    loop {
        let batch = batch(number as i64, sequence, bytes)?;
        sequence += 1;
        let sent = Instant::now();
        system.append(&batch)?;
        let since_start = started.elapsed();
        if since_start >= warm + span {
            return Ok(waits);
        }
        if since_start >= warm {
            waits.push(sent.elapsed());
        }
    }
}

/// A batch of one record that is `bytes` long as a whole, or a few bytes less.
fn batch(producer_id: i64, sequence: i32, bytes: usize) -> Result<Vec<u8>, Failure> {
    const AROUND_BYTES: usize = 61 + 11;
    let value = vec![sequence as u8 | 1; bytes - AROUND_BYTES];
    let mut builder = BatchBuilder::new().producer(producer_id, 0, sequence);
    builder.append(0, None, Some(&value), &[]);
    Ok(builder.build()?)
}

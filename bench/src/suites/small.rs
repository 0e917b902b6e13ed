//! `small`: what one append of one small record costs the calling thread when it asks for no sync.
//!
//! The engine answers `Accepted`, from its memory; so do the raw programs. Kafka's figure is for its page cache, which
//! survives the process; `oncelog` at that level pays a write for each append and is not what this suite shows.

use std::time::Instant;

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::Bench;
use crate::report::Metric;
use crate::systems::{self, Plan};

pub(super) const SUITE: Suite = Suite {
    name: "small",
    about: "one small record a batch from one thread, no sync asked",
    systems: &[
        "oncelog",
        "oncelog-blocking",
        "raw-uring",
        "raw-pwritev2",
        "raft-engine",
        "raft-engine-prefilled",
        "fjall",
        KAFKA,
    ],
    run,
};

/// Apache Kafka 4.3's own log classes in one process and one thread, into the page cache: best seen on the machine of
/// `docs/performance.md`, ns an append by size of the record.
const KAFKA: &str = "kafka";
const KAFKA_NS: [(usize, f64); 2] = [(100, 1640.0), (1024, 2380.0)];

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let count: u64 = bench.options.amount(1_000_000, 300_000);
    for (record_bytes, kafka_ns) in KAFKA_NS {
        let case = format!("bytes={record_bytes} records=1");
        bench.quote(&case, KAFKA, Metric::NsPerOp, kafka_ns);
        bench.compare_some(
            &case,
            |system| system != KAFKA,
            |name, turn| {
                let mut source = BatchSource::of_record(0, record_bytes)?;
                let bytes = count * source.size_bytes() as u64;
                let folder = turn.folder(3 * bytes)?;
                let system = systems::open(name, &folder, &Plan { bytes, ..Plan::default() })?;
                folder.settle()?;
                for _ in 0..count / 10 {
                    system.accept(0, source.next())?;
                }
                let started = Instant::now();
                for _ in count / 10..count {
                    system.accept(0, source.next())?;
                }
                let took = started.elapsed();
                system.close()?;
                Ok(vec![(Metric::NsPerOp, took.as_nanos() as f64 / (count - count / 10) as f64)])
            },
        )?;
    }
    Ok(())
}

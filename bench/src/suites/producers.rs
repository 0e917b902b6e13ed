//! `producers`: what a million producers weigh.
//!
//! In a process of its own: everything it holds resident, its code and stack too, over the number of producers. Their
//! batches come in rounds, in an order without pattern.

use super::Suite;
use super::memory::resident_bytes;
use super::tables::{self, batch, scatter, shuffled};
use crate::Failure;
use crate::bench::Bench;
use crate::options::Options;
use crate::report::Metric;

pub(super) const SUITE: Suite = Suite {
    name: "producers",
    about: "resident bytes of the whole process for each producer",
    systems: &["oncelog", "hashbrown", "std-hashmap", KAFKA, KRABKA],
    run,
};

pub(super) const CHILD: &str = "producers";

/// Apache Kafka 4.3, a million producers with one and with five batches, heap bytes for each, measured in process.
const KAFKA: &str = "kafka";
const KAFKA_BYTES: [(u32, f64); 2] = [(1, 267.0), (5, 427.0)];
/// krabka-log 1.0, a million producers with one batch, measured in process.
const KRABKA: &str = "krabka-log";
const KRABKA_BYTES: f64 = 336.0;

const PRODUCERS: u32 = 1_000_000;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    for ids in ["dense", "sparse"] {
        for &(batches, kafka_bytes) in if bench.options.brief() { &KAFKA_BYTES[..1] } else { &KAFKA_BYTES[..] } {
            let case = format!("producers={PRODUCERS} batches={batches} ids={ids}");
            bench.quote(&case, KAFKA, Metric::BytesPerProducer, kafka_bytes);
            if batches == 1 {
                bench.quote(&case, KRABKA, Metric::BytesPerProducer, KRABKA_BYTES);
            }
            let measured_here = |system: &str| system != KAFKA && system != KRABKA;
            bench.compare_some(&case, measured_here, |name, _| {
                let output = super::child(CHILD)?.args(["--only", name, "--case", &case]).output()?;
                let text = String::from_utf8(output.stdout)?;
                match text.trim().parse() {
                    Ok(bytes) => Ok(vec![(Metric::BytesPerProducer, bytes)]),
                    Err(_) => Err(String::from_utf8_lossy(&output.stderr).into_owned().into()),
                }
            })?;
        }
    }
    Ok(())
}

/// Prints resident bytes for each producer.
pub(super) fn child(options: &Options) -> Result<(), Failure> {
    let (Some(name), Some(case)) = (options.only.first(), &options.case) else { return Err("no case".into()) };
    let (sparse, rounds) = (case.contains("sparse"), if case.contains("batches=5") { 5 } else { 1 });
    let mut table = tables::open(name);
    let order = shuffled(PRODUCERS);
    let mut offset = 0;
    for round in 0..rounds {
        for &number in &order {
            let id = if sparse { (scatter(u64::from(number)) >> 1) as i64 } else { i64::from(number) };
            table.take(&batch(id, round, offset));
            offset += 1;
        }
    }
    // The order is the program's, not the table's.
    drop(order);
    println!("{}", resident_bytes()? as f64 / f64::from(PRODUCERS));
    drop(table);
    Ok(())
}

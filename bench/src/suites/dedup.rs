//! `dedup`: the verdict on a batch and what it changes, without anything else of a log.
//!
//! Every producer sends its batches in rounds, in an order without pattern, and has sent five before the clock starts.
//! In the dependent cases the next producer is known only when the answer is there; in sets sixteen are known at once,
//! as in what a follower takes from its leader. A map does both steps with one search; the engine needs two, since it
//! makes sure of space between them, and keeps a digest besides.

use std::hint::black_box;
use std::time::Instant;

use super::Suite;
use super::tables::{self, Table, batch, scatter, shuffled};
use crate::Failure;
use crate::bench::Bench;
use crate::report::{Measured, Metric};

pub(super) const SUITE: Suite = Suite {
    name: "dedup",
    about: "verdict and update for one batch, beside hash maps, one thread",
    systems: &["oncelog", "hashbrown", "std-hashmap", KAFKA],
    run,
};

/// Apache Kafka 4.3's `ProducerStateManager` with `ProducerAppendInfo` at a million producers, one thread, ns an append
/// and a duplicate: measured in process on the machine of `docs/performance.md`.
const KAFKA: &str = "kafka";
const KAFKA_APPEND_NS: f64 = 1100.0;
const KAFKA_DUPLICATE_NS: f64 = 570.0;

const ROUNDS_BEFORE: i32 = 5;
const MILLION: u32 = 1_000_000;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let largest: &[u32] = bench.options.amount(&[10 * MILLION], &[]);
    let million = Case { producers: MILLION, ..Case::DENSE };
    let sizes = [1, 1000, 100_000, MILLION].iter().chain(largest);
    let appends = sizes.map(|&producers| Case { producers, ..Case::DENSE });
    let others = [Case { duplicate: true, ..million }, Case { sparse: true, ..million }];
    for case in appends.chain(others) {
        let lookups = [Lookups::Independent, Lookups::Dependent, Lookups::Sets];
        let some = if bench.options.brief() { 1 } else { lookups.len() };
        for &lookups in &lookups[..some] {
            Case { lookups, ..case }.compare(bench)?;
        }
    }
    Ok(())
}

/// What is known of the next batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lookups {
    /// Everything, but it is taken alone.
    Independent,
    /// Its producer only behind the answer before.
    Dependent,
    /// It comes together with others.
    Sets,
}

/// Batches of a set.
const SET: usize = 16;

#[derive(Clone, Copy)]
struct Case {
    producers: u32,
    sparse: bool,
    lookups: Lookups,
    duplicate: bool,
}

impl Case {
    const DENSE: Self = Self { producers: 1, sparse: false, lookups: Lookups::Independent, duplicate: false };

    fn name(&self) -> String {
        let Self { producers, sparse, lookups, duplicate } = *self;
        let ids = if sparse { "sparse" } else { "dense" };
        let lookups = match lookups {
            Lookups::Independent => "independent",
            Lookups::Dependent => "dependent",
            Lookups::Sets => "sets-of-16",
        };
        let kind = if duplicate { "duplicate" } else { "append" };
        format!("producers={producers} ids={ids} lookups={lookups} kind={kind}")
    }

    fn compare(&self, bench: &mut Bench) -> Result<(), Failure> {
        if self.producers == MILLION && !self.sparse {
            let quoted = if self.duplicate { KAFKA_DUPLICATE_NS } else { KAFKA_APPEND_NS };
            bench.quote(&self.name(), KAFKA, Metric::NsPerOp, quoted);
        }
        bench.compare_some(&self.name(), |system| system != KAFKA, |name, _| Ok(self.measure(&mut *tables::open(name))))
    }

    fn id(&self, number: u32) -> i64 {
        if self.sparse { (scatter(u64::from(number)) >> 1) as i64 } else { i64::from(number) }
    }

    fn measure(&self, table: &mut dyn Table) -> Measured {
        let order = shuffled(self.producers);
        let mut offset = 0;
        for round in 0..ROUNDS_BEFORE {
            for &number in &order {
                table.take(&batch(self.id(number), round, offset));
                offset += 1;
            }
        }
        let rounds = (4 * i64::from(MILLION) / i64::from(self.producers)).clamp(1, 4 * i64::from(MILLION)) as i32;
        // Nobody knows that this is 0, so nothing begins before the answer is there.
        let mut nothing = black_box(0);
        let mut set = Vec::with_capacity(SET);
        let mut done = 0_u64;
        let started = Instant::now();
        for round in 0..rounds {
            let sequence = if self.duplicate { 2 } else { ROUNDS_BEFORE + round };
            for some in order.chunks(if self.lookups == Lookups::Sets { SET } else { 1 }) {
                set.clear();
                for &number in some {
                    set.push(batch(self.id(number) + nothing, sequence, offset));
                    offset += 1;
                }
                let answer = if self.lookups == Lookups::Sets { table.take_set(&set) } else { table.take(&set[0]) };
                if self.lookups == Lookups::Dependent {
                    nothing = answer >> 62;
                }
                done += set.len() as u64;
            }
        }
        let took = started.elapsed();
        vec![(Metric::NsPerOp, took.as_nanos() as f64 / done as f64)]
    }
}

//! Seeded crash histories: one seed is one story of producers, retries, deletions and crashes over a disk in memory.
//!
//! There is one thread, no wall clock and one source of chance, so a seed that fails here fails everywhere.

mod client;
mod oracle;
mod random;
mod story;
mod upkeep;

use clap::Parser;
use std::ops::Range;
use std::process::ExitCode;

use random::mix;
use story::{Outcome, run};

/// Runs seeded crash histories and checks what was acknowledged against what is found.
#[derive(Debug, Parser)]
#[command(name = "oncelog-sim", version)]
struct Arguments {
    /// Seeds to run: first..behind the last, or one seed.
    #[arg(long, default_value = "0..100", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Operations of each story.
    #[arg(long, default_value_t = 150)]
    operations: u64,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// What all stories came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    seeds: u64,
    operations: u64,
    power_cuts: u64,
    violations: Vec<(u64, String)>,
    trace_hash: u64,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.operations += outcome.operations;
        self.power_cuts += outcome.power_cuts;
        let found = outcome.violations.into_iter();
        self.violations.extend(found.map(|reason| (seed, reason)));
        self.trace_hash = mix(self.trace_hash ^ outcome.trace_hash);
    }
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |part: &str| {
        let parsed = part.trim().parse::<u64>();
        parsed.map_err(|error| format!("{part:?}: {error}"))
    };
    let seeds = match text.split_once("..") {
        Some((first, behind)) => number(first)?..number(behind)?,
        None => {
            let seed = number(text)?;
            seed..seed.checked_add(1).ok_or("the seed is the last number there is")?
        }
    };
    if seeds.is_empty() {
        return Err(format!("{text:?} holds no seed"));
    }
    Ok(seeds)
}

fn run_all(seeds: Range<u64>, operations: u64) -> Total {
    let mut total = Total::default();
    for seed in seeds {
        total.add(seed, run(seed, operations));
    }
    total
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let total = run_all(arguments.seeds, arguments.operations);
    for (seed, reason) in &total.violations {
        eprintln!("seed {seed}: {reason}");
    }
    if arguments.json {
        let object = serde_json::json!({
            "seeds": total.seeds,
            "operations": total.operations,
            "power_cuts": total.power_cuts,
            "violations": total.violations.len(),
            "trace_hash": format!("{:016x}", total.trace_hash),
        });
        println!("{object}");
    } else {
        println!(
            "{} seeds, {} operations, {} power cuts, {} violations, trace {:016x}",
            total.seeds,
            total.operations,
            total.power_cuts,
            total.violations.len(),
            total.trace_hash
        );
    }
    ExitCode::from(u8::from(!total.violations.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_seeds_keep_every_promise() {
        assert_eq!(run_all(0..200, 100).violations, []);
    }

    #[test]
    fn two_hundred_seeds_give_the_same_trace_twice() {
        let first = run_all(0..200, 100);
        assert!(first.power_cuts > 200);
        assert_eq!(first, run_all(0..200, 100));
        let fewer = run_all(0..199, 100);
        assert_ne!(first.trace_hash, fewer.trace_hash, "the trace says nothing");
    }

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(parse_seeds("3..5"), Ok(3..5));
        assert_eq!(parse_seeds("7"), Ok(7..8));
        assert!(parse_seeds("5..5").is_err());
        assert!(parse_seeds("x").is_err());
    }
}

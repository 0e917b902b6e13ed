//! Seeded crash histories: one seed is one story of producers, transactions, deletions and crashes over a disk in
//! memory, held against an oracle of what was acknowledged.
//!
//! Each story runs on one thread, with no wall clock and one source of chance, so a seed that fails here fails
//! everywhere. `docs/simulation.md` says what is simulated and what is checked.

mod client;
mod minimise;
mod oracle;
mod plan;
mod random;
#[cfg(test)]
mod teeth;
mod together;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub use world::Outcome;

use plan::Plan;
use random::mix;

/// Steps of a story, unless asked otherwise.
pub const STEPS: usize = 150;

/// What all stories came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Total {
    /// Stories told.
    pub seeds: u64,
    /// Steps done.
    pub operations: u64,
    /// How often the power was cut.
    pub power_cuts: u64,
    /// What was found wrong, by seed.
    pub violations: Vec<(u64, String)>,
    /// A hash of every story's trace, in the order of the seeds.
    pub trace_hash: u64,
}

impl Total {
    fn add(&mut self, seed: u64, outcome: Outcome) {
        self.seeds += 1;
        self.operations += outcome.operations;
        self.power_cuts += outcome.power_cuts;
        self.violations.extend(outcome.violations.into_iter().map(|reason| (seed, reason)));
        self.trace_hash = mix(self.trace_hash ^ outcome.trace_hash);
    }
}

/// Tells the story of one seed, and one of its atomic batches.
pub fn run_seed(seed: u64, steps: usize) -> Outcome {
    let mut outcome = minimise::tell_safely(&Plan::new(seed, steps));
    let together = minimise::safely(|| together::tell(seed, steps / 3));
    outcome.operations += together.operations;
    outcome.power_cuts += together.power_cuts;
    outcome.violations.extend(together.violations);
    outcome.trace_hash = mix(outcome.trace_hash ^ together.trace_hash);
    outcome
}

/// Tells the stories of all these seeds on so many threads; each story stays on one, and the total is the same for any
/// number of them.
pub fn run_seeds(seeds: Range<u64>, steps: usize, threads: usize) -> Total {
    let (next, outcomes) = (AtomicU64::new(seeds.start), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let outcome = run_seed(seed, steps);
                    outcomes.lock().expect("no story panics").insert(seed, outcome);
                }
            });
        }
    });
    let mut total = Total::default();
    for (seed, outcome) in outcomes.into_inner().expect("no story panics") {
        total.add(seed, outcome);
    }
    total
}

/// A failing story, made as short as it gets: its steps, what goes wrong, and a `play` script of each log. `None` for a
/// seed that does not fail.
///
/// A script holds what `play` can say: steps of the other logs, crashes between two steps of the disk and lies of the
/// disk are left out of it.
pub fn shortest(seed: u64, steps: usize) -> Option<Shortest> {
    let plan = Plan::new(seed, steps);
    if minimise::tell_safely(&plan).violations.is_empty() {
        return None;
    }
    let plan = minimise::minimise(plan);
    let violations = minimise::tell_safely(&plan).violations;
    let panics = violations.iter().any(|reason| reason.starts_with("panicked"));
    let script = |log| if panics { Vec::new() } else { world::script(&plan, log) };
    let scripts = (0..plan::LOGS).map(|log| script(log).iter().map(ToString::to_string).collect()).collect();
    let steps = plan.steps.iter().map(|step| format!("log {}: {:?}", step.log, step.deed)).collect();
    Some(Shortest { setup: plan.to_string(), steps, violations, scripts })
}

/// See [`shortest`].
#[derive(Debug)]
pub struct Shortest {
    /// Settings of the logs, and what happens to the disk before the last opening.
    pub setup: String,
    /// The steps that are left.
    pub steps: Vec<String>,
    /// What they lead to.
    pub violations: Vec<String>,
    /// Lines for `oncelog play`, for each log.
    pub scripts: Vec<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_seeds_keep_every_promise() {
        assert_eq!(run_seeds(0..200, STEPS, 1).violations, []);
    }

    #[test]
    fn the_same_seeds_give_the_same_trace_on_any_number_of_threads() {
        let first = run_seeds(0..100, STEPS, 1);
        assert!(first.power_cuts > 100);
        assert_eq!(first, run_seeds(0..100, STEPS, 3));
        let fewer = run_seeds(0..99, STEPS, 1);
        assert_ne!(first.trace_hash, fewer.trace_hash, "the trace says nothing");
    }
}

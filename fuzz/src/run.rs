//! Feeds a target and keeps count.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use crate::mutate;
use crate::prng::{Prng, fnv1a};
use crate::targets::{Outcome, Target};

/// What became of the inputs of one target.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Inputs tried.
    pub inputs: u64,
    /// Of these, decoded.
    pub decoded: u64,
    /// Hash over all inputs and what became of them; the same for the same seed and seeds.
    pub trace: u64,
    /// The first broken promise.
    pub finding: Option<Finding>,
}

/// An input that breaks a promise.
#[derive(Debug, PartialEq, Eq)]
pub struct Finding {
    /// Number of the input, from 0.
    pub iteration: u64,
    /// Which promise.
    pub reason: String,
    /// The input.
    pub input: Vec<u8>,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps panics off the screen; [`guarded`] reports them.
pub fn silence_panics() {
    panic::set_hook(Box::new(|info| {
        PANIC.with_borrow_mut(|panic| *panic = Some(info.to_string()));
    }));
}

/// The check's answer; a panic is a broken promise, and so is more memory than the input justifies.
pub fn guarded(target: &Target, input: &[u8]) -> Outcome {
    let mut outcome = Ok(false);
    let allocated = allocation_counter::measure(|| {
        outcome = panic::catch_unwind(AssertUnwindSafe(|| (target.check)(input)))
            .unwrap_or_else(|_| Err(PANIC.with_borrow_mut(Option::take).unwrap_or_else(|| "panicked".to_owned())));
    });
    if outcome.is_ok() && allocated.bytes_max > target.allowed_bytes(input) {
        return Err(format!("{} bytes allocated for an input of {}", allocated.bytes_max, input.len()));
    }
    outcome
}

/// Runs `iterations` inputs, or as many as it takes to find something.
pub fn run(target: &Target, seeds: &[Vec<u8>], seed: u64, iterations: u64) -> Summary {
    let mut prng = Prng::new(seed, target.name);
    let mut summary = Summary::default();
    for iteration in 0..iterations {
        let mut input = mutate::input(&mut prng, seeds);
        if !prng.one_in(4) {
            (target.repair)(&mut input);
        }
        summary.inputs += 1;
        summary.trace = fnv1a(summary.trace, &input);
        match guarded(target, &input) {
            Ok(decoded) => {
                summary.decoded += u64::from(decoded);
                summary.trace = fnv1a(summary.trace, &[u8::from(decoded)]);
            }
            Err(reason) => {
                summary.finding = Some(Finding { iteration, reason, input });
                break;
            }
        }
    }
    summary
}

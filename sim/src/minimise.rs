//! The shortest story that still fails: steps are left out as long as something stays wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::plan::Plan;
use crate::world::{Outcome, tell};

/// Most stories that are told to find a shorter one.
const MOST_TRIES: u32 = 3_000;

/// Tells a story; a panic of the engine is a violation like any other.
pub(crate) fn tell_safely(plan: &Plan) -> Outcome {
    safely(|| tell(plan))
}

/// The same for a story of another kind.
pub(crate) fn safely(tell: impl FnOnce() -> Outcome) -> Outcome {
    catch_unwind(AssertUnwindSafe(tell)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default();
        Outcome { violations: vec![format!("panicked: {text}")], ..Outcome::default() }
    })
}

/// What kind of failure it is: the words of the first violation, whatever the numbers and places.
fn kind(outcome: &Outcome) -> Option<String> {
    let (_, reason) = outcome.violations.first()?.split_once(": ").unwrap_or_default();
    let words = reason.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    Some(words.take(6).collect::<Vec<_>>().join(" "))
}

/// Leaves out ever smaller runs of steps while what remains fails in the same way.
pub(crate) fn minimise(mut plan: Plan) -> Plan {
    let mut tries = 0;
    let wanted = kind(&tell_safely(&plan));
    let mut length = plan.steps.len().div_ceil(2).max(1);
    loop {
        let mut from = 0;
        let mut shorter = false;
        while from < plan.steps.len() && tries < MOST_TRIES {
            let mut candidate = plan.clone();
            candidate.steps.drain(from..(from + length).min(plan.steps.len()));
            tries += 1;
            if kind(&tell_safely(&candidate)) == wanted {
                (plan, shorter) = (candidate, true);
            } else {
                from += length;
            }
        }
        if tries >= MOST_TRIES || (length == 1 && !shorter) {
            return plan;
        }
        length = if length == 1 { 1 } else { length.div_ceil(2) };
    }
}

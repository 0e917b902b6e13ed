//! All interleavings of small histories: three producers with two transactions each, markers of both kinds, moves of the
//! high watermark, truncations, crashes, clean restarts and rolls, against an oracle that is nothing but the rules.
//!
//! In every state the last stable offset, the aborted list of every committed read and the records that are left of it are
//! held against the oracle's. `ONCELOG_TXN_MODEL=STEPS,EVENTS` looks farther than what every run of the tests can afford.

mod common;
mod transactions;

use transactions::driver;
use transactions::oracle::{Event, Oracle};

/// What a history may still hold.
#[derive(Clone, Copy)]
struct Bounds {
    /// Data batches and markers.
    steps: usize,
    /// Everything else.
    events: usize,
}

impl Bounds {
    /// What is left behind `event`; of histories that come in sets only batches are taken.
    fn after(self, event: &Event, how: How) -> Option<Self> {
        match event {
            Event::Data(_) | Event::End { .. } => self.steps.checked_sub(1).map(|steps| Self { steps, ..self }),
            Event::EmptyEnd(_) if how == How::Sets => self.steps.checked_sub(1).map(|steps| Self { steps, ..self }),
            _ => self.events.checked_sub(1).map(|events| Self { events, ..self }),
        }
    }
}

/// How the batches of a history come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// One by one; the high watermark moves by events of its own.
    Single,
    /// One by one, and the high watermark follows each.
    Followed,
    /// Several in one append.
    Sets,
}

/// Walks all histories within the bounds, each prefix once; a history that cannot go on is run.
struct Walk {
    bounds: Bounds,
    how: How,
    histories: u64,
    states: u64,
}

impl Walk {
    fn over(bounds: Bounds, how: How) -> Self {
        let mut walk = Self { bounds, how, histories: 0, states: 0 };
        let mut oracle = Oracle::default();
        oracle.follows = how == How::Followed;
        walk.go_on(bounds, &mut Vec::new(), &oracle, 0);
        println!("{} histories, {} states", walk.histories, walk.states);
        walk
    }

    /// `checked`: how many events of `path` an earlier history has shown to be right.
    fn go_on(&mut self, left: Bounds, path: &mut Vec<Event>, oracle: &Oracle, checked: usize) -> usize {
        let mut checked = checked;
        let mut is_leaf = true;
        for event in oracle.possible() {
            let Some(left) = left.after(&event, self.how) else { continue };
            let mut next = oracle.clone();
            next.apply(event);
            is_leaf = false;
            self.states += 1;
            path.push(event);
            checked = self.go_on(left, path, &next, checked);
            path.pop();
            checked = checked.min(path.len());
        }
        if is_leaf {
            self.histories += 1;
            if self.how == How::Sets {
                (0..path.len()).for_each(|split| driver::run_as_one_append(path, split));
            } else {
                driver::run(path, checked, oracle.follows);
            }
            return path.len();
        }
        checked
    }
}

fn bounds_or(steps: usize, events: usize) -> Bounds {
    let asked = std::env::var("ONCELOG_TXN_MODEL").ok();
    let numbers: Option<(usize, usize)> = asked.as_deref().and_then(|text| {
        let (steps, events) = text.split_once(',')?;
        Some((steps.parse().ok()?, events.parse().ok()?))
    });
    assert!(asked.is_none() || numbers.is_some(), "ONCELOG_TXN_MODEL is STEPS,EVENTS");
    let (steps, events) = numbers.unwrap_or((steps, events));
    Bounds { steps, events }
}

#[test]
fn every_interleaving_of_three_producers() {
    let walk = Walk::over(bounds_or(7, 0), How::Followed);
    assert!(walk.bounds.steps < 7 || walk.histories > 2_000);
}

#[test]
fn every_interleaving_with_one_event_anywhere() {
    Walk::over(bounds_or(5, 1), How::Single);
    Walk::over(bounds_or(6, 1), How::Followed);
}

#[test]
fn every_interleaving_with_several_events_anywhere() {
    Walk::over(bounds_or(3, 3), How::Single);
}

#[test]
fn every_interleaving_in_one_append() {
    Walk::over(bounds_or(6, 0), How::Sets);
}

//! All interleavings of small histories: three producers with two transactions each, markers of both kinds, moves of
//! the high watermark, truncations, crashes, clean restarts and rolls, against an oracle that is nothing but the rules.
//!
//! In every state the last stable offset, the aborted list of every committed read and the records that are left of it
//! are held against the oracle's. Two ways to the same log under the same high watermark lead to the same state unless
//! something was cut or opened again on the way, so of the whole shape each pair of log and high watermark is met once,
//! and what may happen besides comes at places that take turns. `ONCELOG_TXN_MODEL=STEPS,EVENTS` looks farther into the
//! walks that leave nothing out, `ONCELOG_TXN_MODEL=all` has every outcome of the whole shape, and something else at
//! every place of it.

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

fn asked() -> Option<String> {
    std::env::var("ONCELOG_TXN_MODEL").ok()
}

fn asks_for_all() -> bool {
    asked().as_deref() == Some("all")
}

fn bounds_or(steps: usize, events: usize) -> Bounds {
    let asked = asked().filter(|_| !asks_for_all());
    let numbers: Option<(usize, usize)> = asked.as_deref().and_then(|text| {
        let (steps, events) = text.split_once(',')?;
        Some((steps.parse().ok()?, events.parse().ok()?))
    });
    assert!(asked.is_none() || numbers.is_some(), "ONCELOG_TXN_MODEL is STEPS,EVENTS or all");
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

/// Batches of the whole shape: six transactions, each with one of data and a marker.
const WHOLE: usize = 12;

/// Outcomes of the six transactions, a bit for each: any three of them meet all eight outcomes of three.
const OUTCOMES: [u8; 12] = [29, 33, 10, 54, 7, 59, 44, 16, 47, 4, 19, 56];

/// All orders of the whole shape; who is first is only a name. Every transaction commits.
fn orders() -> Vec<Vec<Event>> {
    fn go_on(oracle: &Oracle, path: &mut Vec<Event>, found: &mut Vec<Vec<Event>>) {
        if path.len() == WHOLE {
            return found.push(path.clone());
        }
        let batches = |event: &Event| matches!(event, Event::Data(_) | Event::End { commit: true, .. });
        for event in oracle.possible().into_iter().filter(batches) {
            let mut next = oracle.clone();
            next.apply(event);
            path.push(event);
            go_on(&next, path, found);
            path.pop();
        }
    }
    let mut found = Vec::new();
    go_on(&Oracle::default(), &mut Vec::new(), &mut found);
    found
}

/// The order with these outcomes.
fn decided(order: &[Event], outcomes: u8) -> Vec<Event> {
    let mut ended = [0; 3];
    let decide = |event: &Event| match *event {
        Event::End { producer, .. } => {
            let number = 2 * producer + ended[producer];
            ended[producer] += 1;
            Event::End { producer, commit: outcomes >> number & 1 == 1 }
        }
        other => other,
    };
    order.iter().map(decide).collect()
}

/// The high watermark stays `behind` batches back, and one more while a batch comes.
fn staircase(batches: &[Event], behind: usize) -> Vec<Event> {
    let (first, rest) = batches.split_at(behind.min(batches.len()));
    let steps = rest.iter().flat_map(|batch| [*batch, Event::HighWatermark]);
    first.iter().copied().chain(steps).chain(vec![Event::HighWatermark; first.len()]).collect()
}

fn in_common(one: &[Event], other: &[Event]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}

#[test]
fn three_of_the_outcomes_meet_in_every_way() {
    for (a, b, c) in (0..6).flat_map(|a| (0..a).flat_map(move |b| (0..b).map(move |c| (a, b, c)))) {
        let met: std::collections::BTreeSet<_> =
            OUTCOMES.iter().map(|row| (row >> a & 1, row >> b & 1, row >> c & 1)).collect();
        assert_eq!(met.len(), 8, "{a} {b} {c}");
    }
}

/// Every log of the whole shape, with the high watermark at its end.
#[test]
fn every_order_of_the_whole_shape() {
    let (orders, all) = (orders(), (0..64).collect::<Vec<u8>>());
    // Twelve batches, four of each of three producers in their order, by three names.
    assert_eq!(orders.len(), 34_650 / 6);
    for outcomes in if asks_for_all() { &all[..] } else { &OUTCOMES } {
        let mut before: Vec<Event> = Vec::new();
        for order in &orders {
            let path = decided(order, *outcomes);
            driver::run(&path, in_common(&path, &before), true);
            before = path;
        }
    }
}

/// Every log of the whole shape under every high watermark.
#[test]
fn every_high_watermark_of_the_whole_shape() {
    let orders = orders();
    for (behind, outcomes) in (0..=WHOLE).step_by(2).zip(OUTCOMES) {
        let mut before: Vec<Event> = Vec::new();
        for order in &orders {
            let path = staircase(&decided(order, outcomes), behind);
            driver::run(&path, in_common(&path, &before), false);
            before = path;
        }
    }
}

/// Crashes, clean restarts, rolls and truncations somewhere in the whole shape.
#[test]
fn something_else_anywhere_in_the_whole_shape() {
    let events = [Event::Crash, Event::Restart, Event::Roll, Event::Truncate(1), Event::Truncate(2)];
    let places = 2 * WHOLE;
    let each = if asks_for_all() { places } else { 1 };
    let mut turn = 0;
    for order in orders() {
        for _ in 0..each {
            // 7, 24 and 5 have no divisor in common: all of them meet.
            let (behind, at, event) = (turn % 7 * 2, turn % places + 1, events[turn % events.len()]);
            let mut path = staircase(&decided(&order, OUTCOMES[turn % OUTCOMES.len()]), behind);
            path.insert(at, event);
            driver::run(&path, 0, false);
            turn += 1;
        }
    }
}

//! Groups of many logs on the way to the device at once.
//!
//! A caller who waits for one log carries its group himself, which no hand-off can beat. What nobody waits for in
//! person (futures, one thread with many tickets) and what one caller needs of several logs goes through here: each
//! log's group is taken as a leader would, all of them leave together, and each lands when it is done. Where the device
//! has no lane for that, several committer threads carry one group each.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use oncelog_device::{AlignedBuffer, Bell, Clock, DeviceError, LANE_DEPTH, Lane, LaneWrite};

use crate::background::Background;
use crate::error::Result;
use crate::log::{Ack, Shared, Turn};

/// Groups on the way, each of another log.
pub(crate) struct Flights {
    lane: Lane,
    turns: Vec<Option<(Arc<Shared>, Turn)>>,
    free: Vec<usize>,
    /// Of what has landed, to be woken together.
    ready: Vec<Waker>,
}

impl Flights {
    pub fn new(lane: Lane) -> Self {
        let turns = (0..LANE_DEPTH).map(|_| None).collect();
        Self { lane, turns, free: (0..LANE_DEPTH).rev().collect(), ready: Vec::new() }
    }

    pub fn bell(&self) -> Arc<Bell> {
        self.lane.bell()
    }

    pub fn is_empty(&self) -> bool {
        self.free.len() == self.turns.len()
    }

    fn has_room(&self) -> bool {
        !self.free.is_empty() && self.lane.has_room()
    }

    /// Puts a turn on the way; one that is more than a write is carried at once, and its log handed back.
    fn start(&mut self, log: Arc<Shared>, mut turn: Turn) -> Option<Arc<Shared>> {
        let Some((file, position, length, sync)) = turn.as_one_write() else {
            log.carry_and_land(turn);
            return Some(log);
        };
        let tag = self.free.pop().expect("the caller has seen that there is room");
        let buffer = turn.lend_buffer();
        self.turns[tag] = Some((log, turn));
        self.lane.push(LaneWrite { tag: tag as u64, file, position, buffer, length, sync });
        None
    }

    /// Waits for some to land, see [`Lane::wait`]; answers whose have.
    fn wait(&mut self, timeout: Option<Duration>, is_due: impl FnOnce() -> bool) -> Vec<Arc<Shared>> {
        let landed = self.lane.wait(timeout, is_due);
        let logs = landed.into_iter().map(|(write, result)| self.land(write.tag, write.buffer, result)).collect();
        self.ready.drain(..).for_each(Waker::wake);
        logs
    }

    fn land(&mut self, tag: u64, buffer: AlignedBuffer, result: std::result::Result<(), DeviceError>) -> Arc<Shared> {
        let tag = tag as usize;
        let (log, mut turn) = self.turns[tag].take().expect("a turn for each write");
        self.free.push(tag);
        turn.take_back(buffer);
        log.land_one_write(turn, result, &mut self.ready);
        log
    }

    fn drain(&mut self) {
        while !self.is_empty() {
            self.wait(None, || false);
        }
    }

    /// Makes an append durable in each of these logs, at the same time; the first failure if there is one, and only
    /// when all have come to an end.
    pub fn commit(&mut self, parts: &[(Arc<Shared>, u64)]) -> Result<()> {
        for (log, number) in parts.iter().take(LANE_DEPTH) {
            log.note_durable_wanted(*number);
            if let Some(turn) = log.begin_wanted_turn(false) {
                self.start(log.clone(), turn);
            }
        }
        self.drain();
        commit_in_order(parts)
    }
}

/// The same, one after the other: what is durable already costs a look.
pub(crate) fn commit_in_order(parts: &[(Arc<Shared>, u64)]) -> Result<()> {
    let results: Vec<Result<()>> = parts.iter().map(|(log, number)| log.commit(*number, Ack::Durable)).collect();
    results.into_iter().collect()
}

/// The body of a committer thread; the first one gets a lane where the device has one, and is then the only one.
pub(crate) fn serve(background: &Background, clock: &dyn Clock, lane: Option<Lane>) {
    match lane.map(|lane| Flights::new(lane.bind())) {
        None => serve_one_by_one(background, clock),
        Some(flights) => serve_together(background, clock, flights),
    }
}

fn serve_one_by_one(background: &Background, clock: &dyn Clock) {
    while !background.is_stopping() {
        let mut asked = background.commits.take(1, clock.monotonic_ns());
        let Some(log) = asked.pop() else {
            background.commits.sleep(clock.monotonic_ns(), || background.is_stopping());
            continue;
        };
        if let Some(turn) = log.begin_wanted_turn(true) {
            log.carry_and_land(turn);
            background.commits.ask(Arc::downgrade(&log));
        }
    }
}

fn serve_together(background: &Background, clock: &dyn Clock, mut flights: Flights) {
    background.commits.set_bell(flights.bell());
    let mut due: VecDeque<Arc<Shared>> = VecDeque::new();
    while !background.is_stopping() {
        due.extend(background.commits.take(usize::MAX, clock.monotonic_ns()));
        let alone = flights.is_empty() && due.len() == 1;
        while flights.has_room()
            && let Some(log) = due.pop_front()
        {
            let Some(turn) = log.begin_wanted_turn(true) else { continue };
            if alone {
                // On this thread, in the way that measures best.
                log.carry_and_land(turn);
                due.push_back(log);
                break;
            }
            due.extend(flights.start(log, turn));
        }
        if !due.is_empty() && flights.has_room() {
            continue;
        }
        let timeout = background.commits.next_due(clock.monotonic_ns());
        due.extend(flights.wait(timeout, || !background.commits.is_empty() || background.is_stopping()));
    }
    flights.drain();
}

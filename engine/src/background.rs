//! The threads of an engine, shared by all its logs, and how a log asks them for work.
//!
//! Three, because they wait for different things: the *committer* carries to the device what no caller waits for in person
//! (futures, one thread with many tickets, appends that asked for no answer), the *preparer* writes zeroes ahead of the
//! logs, and the *driver* does what has time: side files, checkpoints, files that may go. None is needed for
//! correctness: without them the callers do the work themselves, in [`crate::Log::drive`] or where they wait.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::log::Shared;

/// Logs that asked for something, in order.
#[derive(Default)]
pub(crate) struct Queue {
    asked: Mutex<VecDeque<Weak<Shared>>>,
    bell: Condvar,
}

impl Queue {
    /// Asks for a turn. A log that has asked and had no turn yet need not ask again.
    pub fn ask(&self, log: Weak<Shared>) {
        self.asked.lock().push_back(log);
        self.bell.notify_one();
    }

    /// The next log's turn; `None` when nobody asked within `patience`, or when the queue was rung.
    fn next(&self, patience: Option<Duration>) -> Option<Arc<Shared>> {
        let mut asked = self.asked.lock();
        if asked.is_empty() {
            match patience {
                Some(patience) => drop(self.bell.wait_for(&mut asked, patience)),
                None => self.bell.wait(&mut asked),
            }
        }
        asked.pop_front()?.upgrade()
    }

    fn ring(&self) {
        // Under the lock: not between a look at the flag and the wait.
        let _asked = self.asked.lock();
        self.bell.notify_all();
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Background {
    pub commits: Queue,
    pub spaces: Queue,
    pub driver: Queue,
    stop: AtomicBool,
}

impl Background {
    /// Ends all three threads once they have finished what they are at.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        [&self.commits, &self.spaces, &self.driver].into_iter().for_each(Queue::ring);
    }

    /// Serves one queue until the end: `turn` for each log that asked, `idle` when nobody did within `patience`.
    pub fn serve(
        &self,
        queue: &Queue,
        patience: Option<Duration>,
        mut turn: impl FnMut(&Arc<Shared>),
        mut idle: impl FnMut(),
    ) {
        while !self.stop.load(Ordering::Acquire) {
            match queue.next(patience) {
                Some(log) => turn(&log),
                None => idle(),
            }
        }
    }
}

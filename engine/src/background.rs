//! The threads of an engine, shared by all its logs, and how a log asks them for work.
//!
//! Three kinds, because they wait for different things: the *committer* carries to the device what no caller waits for
//! in person (futures, one thread with many tickets, appends that asked for no answer; see [`crate::committer`]), the
//! *preparer* writes zeroes ahead of the logs, and the *driver* does what has time: side files, checkpoints, files that
//! may go. None is needed for correctness: without them the callers do the work themselves, in [`crate::Log::drive`] or
//! where they wait.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use oncelog_device::Bell;

use crate::log::Shared;

/// What is asked for later waits this long, so that what comes meanwhile takes it along.
const LINGER_NS: u64 = 2_000_000;

/// Logs that asked for something, in order.
#[derive(Default)]
pub(crate) struct Queue {
    asked: Mutex<Asked>,
    bell: Condvar,
    /// Where the thread sleeps on a lane instead of `bell`.
    lane_bell: OnceLock<Arc<Bell>>,
}

#[derive(Default)]
struct Asked {
    now: VecDeque<Weak<Shared>>,
    /// With the time from which on they have a turn, monotonic ns; earliest first.
    later: VecDeque<(u64, Weak<Shared>)>,
}

impl Queue {
    /// Asks for a turn. A log that has asked and had no turn yet need not ask again.
    pub fn ask(&self, log: Weak<Shared>) {
        self.asked.lock().now.push_back(log);
        self.wake();
    }

    /// Asks for a turn for each, at once.
    pub fn ask_all(&self, logs: impl Iterator<Item = Weak<Shared>>) {
        self.asked.lock().now.extend(logs);
        self.wake_all();
    }

    /// Asks for a turn that is not urgent.
    pub fn ask_later(&self, log: Weak<Shared>, now_ns: u64) {
        let first = {
            let later = &mut self.asked.lock().later;
            later.push_back((now_ns + LINGER_NS, log));
            later.len() == 1
        };
        // Else there is one before it that the thread wakes for.
        if first {
            self.wake();
        }
    }

    /// From now on whoever asks rings this bell.
    pub fn set_bell(&self, bell: Arc<Bell>) {
        let _once = self.lane_bell.set(bell);
    }

    pub fn is_empty(&self) -> bool {
        self.asked.lock().now.is_empty()
    }

    /// Those whose turn it is, at most so many.
    pub fn take(&self, most: usize, now_ns: u64) -> Vec<Arc<Shared>> {
        let due = self.take_due(now_ns);
        // Without the lock of the queue: whoever asks holds that of his log.
        due.iter().for_each(|log| log.soon_is_now());
        let mut asked = self.asked.lock();
        asked.now.extend(due.iter().map(Arc::downgrade));
        let most = most.min(asked.now.len());
        asked.now.drain(..most).filter_map(|log| log.upgrade()).collect()
    }

    /// Those who asked for later and whose time has come, with those who asked in the same moment: they leave together.
    fn take_due(&self, now_ns: u64) -> Vec<Arc<Shared>> {
        let later = &mut self.asked.lock().later;
        let until_ns = match later.front() {
            Some((due_ns, _)) if *due_ns <= now_ns => now_ns + LINGER_NS / 4,
            _ => return Vec::new(),
        };
        let count = later.partition_point(|(due_ns, _)| *due_ns <= until_ns);
        later.drain(..count).filter_map(|(_, log)| log.upgrade()).collect()
    }

    /// How long until the next of those who asked for later has its turn.
    pub fn next_due(&self, now_ns: u64) -> Option<Duration> {
        let asked = self.asked.lock();
        asked.later.front().map(|(due_ns, _)| Duration::from_nanos(due_ns.saturating_sub(now_ns).max(1)))
    }

    /// Sleeps until somebody asks or the next of those who asked for later is due.
    pub fn sleep(&self, now_ns: u64, is_over: impl FnOnce() -> bool) {
        let patience = self.next_due(now_ns);
        let mut asked = self.asked.lock();
        if asked.now.is_empty() && !is_over() {
            self.wait(&mut asked, patience);
        }
    }

    /// The next log's turn; `None` when nobody asked within `patience`, or when the queue was rung.
    fn next(&self, patience: Option<Duration>) -> Option<Arc<Shared>> {
        let mut asked = self.asked.lock();
        if asked.now.is_empty() {
            self.wait(&mut asked, patience);
        }
        asked.now.pop_front()?.upgrade()
    }

    fn wait(&self, asked: &mut MutexGuard<'_, Asked>, patience: Option<Duration>) {
        match patience {
            Some(patience) => drop(self.bell.wait_for(asked, patience)),
            None => self.bell.wait(asked),
        }
    }

    fn wake(&self) {
        match self.lane_bell.get() {
            Some(bell) => bell.ring(),
            None => drop(self.bell.notify_one()),
        }
    }

    fn wake_all(&self) {
        self.bell.notify_all();
        if let Some(bell) = self.lane_bell.get() {
            bell.ring();
        }
    }

    fn ring(&self) {
        // Under the lock: not between a look at the flag and the wait.
        let _asked = self.asked.lock();
        self.wake_all();
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
    pub fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Ends all threads once they have finished what they are at.
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
        while !self.is_stopping() {
            match queue.next(patience) {
                Some(log) => turn(&log),
                None => idle(),
            }
        }
    }
}

//! Which logs of an engine are open and which are being opened: several at a time, those first that somebody waits for.

use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use oncelog_device::Clock;

use crate::error::Error;
use crate::log::{Log, OpenOptions};
use crate::segment::pieces::Gauge;

/// How far the recovery of a log has come: see [`crate::Engine::recoveries`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Name of the log.
    pub log: String,
    /// Bytes that were read and checked.
    pub done_bytes: u64,
    /// Bytes that have to be. 0: that is not known yet. Some of them may be empty space, which is left out once it is
    /// met.
    pub total_bytes: u64,
    /// How long the log has been opening.
    pub elapsed: Duration,
    /// How much longer it should take at the rate so far; `None` before anything was read.
    pub expected: Option<Duration>,
}

/// Logs by name.
#[derive(Default)]
pub(crate) struct Openings {
    names: Mutex<Names>,
    changed: Condvar,
}

#[derive(Default)]
struct Names {
    open: BTreeMap<String, Log>,
    /// What failed them: a second attempt would believe a sync that succeeds after one that did not.
    failed: BTreeMap<String, Error>,
    opening: BTreeMap<String, Running>,
    /// How many of those somebody waits for.
    demanded: usize,
    /// To be opened when nobody waits.
    queue: VecDeque<(String, OpenOptions)>,
    is_over: bool,
}

struct Running {
    gauge: Arc<Gauge>,
    began_ns: u64,
}

/// What to do for a log that somebody wants.
pub(crate) enum Turn<'a> {
    Open(Log),
    Failed(Error),
    Begin(Opening<'a>),
}

/// The right to open a log, which ends when this is dropped.
pub(crate) struct Opening<'a> {
    openings: &'a Openings,
    name: String,
    is_demanded: bool,
    pub gauge: Arc<Gauge>,
}

impl Openings {
    /// The log if it is open, also by then if somebody is opening it; else the right to open it.
    pub fn begin(&self, name: &str, clock: &dyn Clock, is_demanded: bool) -> Turn<'_> {
        let mut names = self.names.lock();
        names.queue.retain(|(queued, _)| queued != name);
        while names.opening.contains_key(name) {
            self.changed.wait(&mut names);
        }
        if let Some(log) = names.open.get(name) {
            return Turn::Open(log.clone());
        }
        if let Some(error) = names.failed.get(name) {
            return Turn::Failed(error.clone());
        }
        let gauge = Arc::new(Gauge::default());
        names.opening.insert(name.to_owned(), Running { gauge: gauge.clone(), began_ns: clock.monotonic_ns() });
        names.demanded += usize::from(is_demanded);
        Turn::Begin(Opening { openings: self, name: name.to_owned(), is_demanded, gauge })
    }

    pub fn queue(&self, logs: impl IntoIterator<Item = (String, OpenOptions)>) {
        let mut names = self.names.lock();
        names.queue.extend(logs);
        self.changed.notify_all();
    }

    /// The next log that is to be opened while nobody waits for another; `None` if there is none.
    pub fn next_queued(&self) -> Option<(String, OpenOptions)> {
        let mut names = self.names.lock();
        while names.demanded > 0 && !names.is_over && !names.queue.is_empty() {
            self.changed.wait(&mut names);
        }
        if names.is_over { None } else { names.queue.pop_front() }
    }

    /// Nothing more is taken from the queue.
    pub fn stop(&self) {
        self.names.lock().is_over = true;
        self.changed.notify_all();
    }

    pub fn open(&self) -> Vec<Log> {
        self.names.lock().open.values().cloned().collect()
    }

    pub fn take_all(&self) -> BTreeMap<String, Log> {
        std::mem::take(&mut self.names.lock().open)
    }

    pub fn progress(&self, clock: &dyn Clock) -> Vec<RecoveryProgress> {
        let now_ns = clock.monotonic_ns();
        let names = self.names.lock();
        let progress = |(name, running): (&String, &Running)| {
            let (done_bytes, total_bytes) = running.gauge.bytes();
            let elapsed = Duration::from_nanos(now_ns.saturating_sub(running.began_ns));
            let left = total_bytes.saturating_sub(done_bytes) as f64;
            let expected = (done_bytes > 0).then(|| elapsed.mul_f64(left / done_bytes as f64));
            RecoveryProgress { log: name.clone(), done_bytes, total_bytes, elapsed, expected }
        };
        names.opening.iter().map(progress).collect()
    }
}

impl Opening<'_> {
    pub fn finish(self, log: Log) {
        self.openings.names.lock().open.insert(self.name.clone(), log);
    }

    /// The opening has failed. Where the device did, it is not tried again in this life of the engine: what failed
    /// would not be made good by a second call that succeeds.
    pub fn fail(self, error: Error) -> Error {
        let failure = match error {
            Error::Device(failure) if failure.is_failure() => failure,
            Error::Storage(failure) => failure,
            other => return other,
        };
        let error = Error::Storage(failure);
        self.openings.names.lock().failed.insert(self.name.clone(), error.clone());
        error
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        let mut names = self.openings.names.lock();
        names.opening.remove(&self.name);
        names.demanded -= usize::from(self.is_demanded);
        drop(names);
        self.openings.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_log_that_somebody_waits_for_is_opened_before_those_that_nobody_does() {
        let (openings, clock) = (Openings::default(), oncelog_device::SystemClock::new());
        openings.queue(["a-0", "b-0", "c-0"].map(|name| (name.to_owned(), OpenOptions::default())));
        let Turn::Begin(demanded) = openings.begin("b-0", &clock, true) else { panic!("it is not open") };
        let (sender, opened) = mpsc::channel();
        let waiting = &openings;
        std::thread::scope(|threads| {
            threads.spawn(move || {
                while let Some((name, _)) = waiting.next_queued() {
                    sender.send(name).expect("somebody listens");
                }
            });
            let early = opened.recv_timeout(Duration::from_millis(50));
            // Before anything that may fail, so that the thread ends.
            drop(demanded);
            let names: Vec<String> = opened.iter().collect();
            assert_eq!((early, names), (Err(mpsc::RecvTimeoutError::Timeout), vec!["a-0".into(), "c-0".into()]));
        });
    }
}

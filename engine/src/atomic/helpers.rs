//! Threads that make the parts of a batch durable at the same time.
//!
//! A log's committer is whoever waits for it, so four logs wait for four disk syncs one behind the other if one thread waits
//! for all. Threads are made when they are first needed and stay; an engine without a driver thread has none, and the caller
//! does the work in order, which keeps its runs repeatable.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::error::{Error, Result};
use crate::log::{Ack, Shared};

/// More threads than this are not made: the rest waits its turn.
const MOST: usize = 7;

struct Job {
    log: Arc<Shared>,
    number: u64,
    done: Arc<Done>,
}

/// What the caller waits for.
struct Done {
    state: Mutex<(usize, Option<Error>)>,
    moved: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    stop: bool,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Helpers {
    queue: Arc<(Mutex<Queue>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Helpers {
    /// Makes each of these appends durable; the first failure if there is one, and only when all have come to an end.
    pub fn sync(&self, parts: &[(Arc<Shared>, u64)], with_threads: bool) -> Result<()> {
        let Some(((first, number), others)) = parts.split_first() else { return Ok(()) };
        if others.is_empty() || !with_threads {
            let results: Vec<Result<()>> =
                parts.iter().map(|(log, number)| log.commit(*number, Ack::Durable)).collect();
            return results.into_iter().collect();
        }
        let done = Arc::new(Done { state: Mutex::new((others.len(), None)), moved: Condvar::new() });
        self.hand_out(others, &done)?;
        let own = first.commit(*number, Ack::Durable);
        let mut state = done.state.lock();
        while state.0 > 0 {
            done.moved.wait(&mut state);
        }
        own.and(state.1.take().map_or(Ok(()), Err))
    }

    fn hand_out(&self, parts: &[(Arc<Shared>, u64)], done: &Arc<Done>) -> Result<()> {
        let (queue, bell) = &*self.queue;
        let short = {
            let mut queue = queue.lock();
            let jobs = parts.iter().map(|(log, number)| Job { log: log.clone(), number: *number, done: done.clone() });
            queue.jobs.extend(jobs);
            queue.jobs.len().saturating_sub(queue.idle)
        };
        let mut threads = self.threads.lock();
        for _ in 0..short.min(MOST.saturating_sub(threads.len())) {
            let shared = self.queue.clone();
            let thread = std::thread::Builder::new().name("oncelog-sync".into()).spawn(move || work(&shared));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(_) if !threads.is_empty() => break,
                Err(e) => {
                    self.queue.0.lock().jobs.clear();
                    return Err(Error::InvalidRequest(format!("no thread to sync with can be started: {e}")));
                }
            }
        }
        bell.notify_all();
        Ok(())
    }

    /// Ends the threads, once what they were given is done.
    pub fn stop(&self) {
        self.queue.0.lock().stop = true;
        self.queue.1.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &(Mutex<Queue>, Condvar)) {
    let (queue, bell) = shared;
    loop {
        let job = {
            let mut queue = queue.lock();
            loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.stop {
                    return;
                }
                queue.idle += 1;
                bell.wait(&mut queue);
                queue.idle -= 1;
            }
        };
        let result = job.log.commit(job.number, Ack::Durable);
        let mut state = job.done.state.lock();
        state.0 -= 1;
        if let Err(error) = result {
            state.1.get_or_insert(error);
        }
        if state.0 == 0 {
            job.done.moved.notify_one();
        }
    }
}

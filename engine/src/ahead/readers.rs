//! Threads that read windows. Without any (an engine that its caller drives), whoever asks reads at once.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;

use oncelog_device::DeviceFile;
use oncelog_device::device::Result;

use crate::bytes::Lent;

/// So many transfers at once, of all streams together.
pub(crate) const READERS: usize = 4;

/// See the module.
pub(crate) struct Readers {
    threads: bool,
    queue: Mutex<Queue>,
    bell: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    stopped: bool,
}

/// Blocks of a file to be read into a buffer, from a place in it on.
struct Job {
    file: Arc<dyn DeviceFile>,
    position: u64,
    lent: Lent,
    place: std::ops::Range<usize>,
    outcome: Arc<Outcome>,
}

#[derive(Default)]
struct Outcome {
    landed: Mutex<Option<Result<(Lent, usize)>>>,
    bell: Condvar,
}

/// What is being read.
pub(super) struct Expected(Arc<Outcome>);

impl Expected {
    /// The buffer, and how many bytes came; fewer than asked for only at the end of the file.
    pub fn wait(self) -> Result<(Lent, usize)> {
        let mut landed = self.0.landed.lock();
        loop {
            match landed.take() {
                Some(result) => return result,
                None => self.0.bell.wait(&mut landed),
            }
        }
    }
}

impl Readers {
    pub fn new(threads: bool) -> Self {
        Self { threads, queue: Mutex::default(), bell: Condvar::new() }
    }

    /// Has `place` of the buffer filled from `position` on, both in whole blocks.
    pub(super) fn read(
        &self,
        file: Arc<dyn DeviceFile>,
        position: u64,
        lent: Lent,
        place: std::ops::Range<usize>,
    ) -> Expected {
        let outcome = Arc::<Outcome>::default();
        let expected = Expected(outcome.clone());
        let job = Job { file, position, lent, place, outcome };
        let mut queue = self.queue.lock();
        if self.threads && !queue.stopped {
            queue.jobs.push_back(job);
            drop(queue);
            self.bell.notify_one();
        } else {
            drop(queue);
            job.run();
        }
        expected
    }

    /// The body of a thread.
    pub fn serve(&self) {
        let mut queue = self.queue.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                job.run();
                queue = self.queue.lock();
            } else if queue.stopped {
                return;
            } else {
                self.bell.wait(&mut queue);
            }
        }
    }

    /// Ends the threads once nothing is asked for any more.
    pub fn stop(&self) {
        self.queue.lock().stopped = true;
        self.bell.notify_all();
    }
}

impl Job {
    fn run(self) {
        let Self { file, position, mut lent, place, outcome } = self;
        // Nobody waits for it any more: its stream was given up.
        if Arc::strong_count(&outcome) == 1 {
            return;
        }
        let read = file.read_blocks(position, &mut lent.buffer_mut().as_mut_slice()[place]);
        // A file that may go is not held up by the answer.
        drop(file);
        *outcome.landed.lock() = Some(read.map(|count| (lent, count)));
        outcome.bell.notify_one();
    }
}

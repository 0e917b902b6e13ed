//! Following a log: what is there, and then what comes, without asking again and again.
//!
//! One mechanism for threads and for futures: a waker, stored with the offset behind which its owner wants to see
//! something. Whoever moves the high watermark takes out the wakers that have something to see now, under the log's
//! lock, and wakes them without it; with nobody waiting that is one look at an empty list. A blocked thread is a waker
//! that unparks. A condition variable for all was not chosen: it wakes everyone for everything.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::error::{Error, Result};
use crate::log::{Fetched, Isolation, Log, Read, Shared};

/// Followers that wait, of one log.
#[derive(Default)]
pub(crate) struct Waiting {
    list: Vec<Wait>,
    next_id: u64,
}

struct Wait {
    follower: u64,
    isolation: Isolation,
    /// Woken when more than up to here can be seen.
    beyond: i64,
    waker: Waker,
}

/// Up to where each kind of reader sees.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_end: i64,
}

impl Limits {
    pub fn of(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.high_watermark,
            Isolation::Committed => self.last_stable,
            Isolation::LogEnd => self.log_end,
        }
    }
}

impl Waiting {
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Those that have something to see now.
    pub fn take_due(&mut self, limits: Limits) -> Vec<Waker> {
        self.list.extract_if(.., |wait| limits.of(wait.isolation) > wait.beyond).map(|wait| wait.waker).collect()
    }

    /// All of them: something has happened that each must look at.
    pub fn take_all(&mut self) -> Vec<Waker> {
        self.list.drain(..).map(|wait| wait.waker).collect()
    }

    /// Answers what it replaces. To be dropped without the lock: with its waker a task may go, and a follower with
    /// that.
    #[must_use]
    fn put(&mut self, wait: Wait) -> Option<Wait> {
        let replaced = self.remove(wait.follower);
        self.list.push(wait);
        replaced
    }

    #[must_use]
    fn remove(&mut self, follower: u64) -> Option<Wait> {
        let at = self.list.iter().position(|wait| wait.follower == follower)?;
        Some(self.list.swap_remove(at))
    }
}

/// A reader that goes on as the log grows: see [`Log::follow`].
///
/// As an [`Iterator`] it blocks the thread until there is something, so it suits a thread of its own;
/// [`Follower::fetch`] and [`Follower::poll_fetch`] wait as a future, on any runtime. An item is what [`Log::read`]
/// answers: whole batches of one segment, never none. It ends when the log is closed. After an error it ends too, until
/// [`Follower::seek`].
///
/// A poll that finds something to read reads it on the polling thread; from the disk if the follower lags.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// use oncelog::{Append, Engine, EngineOptions, OpenOptions, Read};
/// use oncelog_formats::{BatchBuilder, Batches};
///
/// let engine = Engine::open(directory.path(), EngineOptions::default())?;
/// let log = engine.log("events-0", OpenOptions::default())?;
/// let follower = log.follow(Read::from(0));
/// let reader = std::thread::spawn(move || {
///     let mut batches = 0;
///     for fetched in follower {
///         batches += Batches::new(&fetched.expect("the log is sound").data).count();
///         if batches == 3 {
///             break; // else it would wait for more until the log is closed
///         }
///     }
///     batches
/// });
/// for number in 0..3 {
///     let batch = BatchBuilder::new().producer(7, 0, number).append(0, None, Some(b"hello"), &[]).build()?;
///     log.append_wait(Append::client(&batch))?;
/// }
/// assert_eq!(reader.join().unwrap(), 3);
/// engine.close()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Follower {
    log: Log,
    id: u64,
    read: Read,
    ended: bool,
}

impl Follower {
    pub(crate) fn new(log: Log, read: Read) -> Self {
        let id = {
            let followers = &mut log.shared.state.lock().followers;
            followers.next_id += 1;
            followers.next_id
        };
        Self { log, id, read, ended: false }
    }

    /// The offset that comes next.
    #[must_use]
    pub fn offset(&self) -> i64 {
        self.read.offset
    }

    /// Goes on from another offset, also after an error.
    pub fn seek(&mut self, offset: i64) {
        self.read.offset = offset;
        self.ended = false;
    }

    /// What comes next, as a future: `None` once the log is closed, or after an error.
    ///
    /// # Errors
    /// As [`Log::read`]: [`Error::OffsetOutOfRange`] when retention or a truncation has taken the offset, for example.
    pub fn fetch(&mut self) -> impl Future<Output = Option<Result<Fetched>>> + '_ {
        poll_fn(|context| self.poll_fetch(context))
    }

    /// What comes next, for those who write futures or streams of their own.
    pub fn poll_fetch(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Fetched>>> {
        while !self.ended {
            let log_end = self.log.log_end_offset();
            match self.log.read(self.read) {
                Err(Error::Closed) => self.ended = true,
                Err(error) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                Ok(fetched) if !fetched.data.is_empty() => {
                    self.read.offset = fetched.next_offset;
                    return Poll::Ready(Some(Ok(fetched)));
                }
                Ok(Fetched { high_watermark, last_stable_offset: last_stable, .. }) => {
                    let seen = Limits { high_watermark, last_stable, log_end }.of(self.read.isolation);
                    if self.wait_beyond(seen, context.waker()) {
                        return Poll::Pending;
                    }
                }
            }
        }
        Poll::Ready(None)
    }

    /// Whether there is something to wait for; else it has come, or the end has.
    fn wait_beyond(&self, beyond: i64, waker: &Waker) -> bool {
        let wait = Wait { follower: self.id, isolation: self.read.isolation, beyond, waker: waker.clone() };
        let mut state = self.log.shared.state.lock();
        if state.check_usable().is_err() || state.limits().of(self.read.isolation) > beyond {
            return false;
        }
        let replaced = state.followers.put(wait);
        drop(state);
        drop(replaced);
        true
    }
}

impl Shared {
    /// Something happened that everyone who waits must look at: a truncation, a new log start, the end of the log.
    pub(crate) fn wake_followers(&self) {
        let waiting = self.state.lock().followers.take_all();
        waiting.into_iter().for_each(Waker::wake);
    }
}

impl Iterator for Follower {
    type Item = Result<Fetched>;

    fn next(&mut self) -> Option<Self::Item> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match self.poll_fetch(&mut context) {
                Poll::Ready(item) => return item,
                // May return early; then the poll finds nothing and waits again.
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let waiting = self.log.shared.state.lock().followers.remove(self.id);
        drop(waiting);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

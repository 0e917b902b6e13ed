//! The promise of an answer: to be waited for by a thread, or awaited by any runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Shared;
use super::state::Awaited;
use super::types::{Ack, Appended};
use crate::error::{Error, Result};

/// An append that is ordered and not yet answered.
///
/// Dropping it cancels nothing: the batch stays in the log and is written with what follows.
#[must_use = "an append is answered when its ticket is waited for"]
#[derive(Debug)]
pub struct Ticket {
    shared: Arc<Shared>,
    number: u64,
    ack: Ack,
    answer: Appended,
    /// Under which number its waker is known.
    registered: Option<u64>,
}

impl Ticket {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, ack: Ack, answer: Appended) -> Self {
        Self { shared, number, ack, answer, registered: None }
    }

    /// What the answer will be, before it is as durable as was asked for.
    #[must_use]
    pub fn expected(&self) -> &Appended {
        &self.answer
    }

    /// Number of the append, for those who wait for it by other means.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Blocks until the append is as durable as was asked for. The calling thread may carry the group to the device.
    ///
    /// # Errors
    /// [`Error::Storage`] when a write or sync failed, [`Error::Closed`] when the engine went away before: whether the
    /// batch survives is known after the log is opened again, where a retry gets the right answer.
    pub fn wait(self) -> Result<Appended> {
        self.shared.commit(self.number, self.ack)?;
        Ok(self.answer)
    }
}

impl Future for Ticket {
    type Output = Result<Appended>;

    /// In an engine with threads the poll only registers; without them it carries the group itself.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ack == Ack::Accepted {
            return Poll::Ready(Ok(self.answer));
        }
        let shared = self.shared.clone();
        let mut state = shared.state.lock();
        if state.reached(self.number, self.ack) {
            return Poll::Ready(Ok(self.answer));
        }
        if let Some(failure) = &state.latch {
            return Poll::Ready(Err(Error::Storage(failure.clone())));
        }
        if state.is_over() {
            return Poll::Ready(Err(Error::Closed));
        }
        if shared.background.is_none() {
            drop(state);
            return Poll::Ready(shared.commit(self.number, self.ack).map(|()| self.answer));
        }
        let progress = &mut state.progress;
        if self.ack == Ack::Durable {
            progress.durable_wanted = progress.durable_wanted.max(self.number);
        }
        let key = *self.registered.get_or_insert_with(|| {
            progress.futures_made += 1;
            progress.futures_made
        });
        let awaited = Awaited { level: self.ack, waker: context.waker().clone() };
        progress.futures.insert((self.number, key), awaited);
        shared.ask_committer(&mut state);
        Poll::Pending
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(key) = self.registered {
            self.shared.state.lock().progress.futures.remove(&(self.number, key));
        }
    }
}

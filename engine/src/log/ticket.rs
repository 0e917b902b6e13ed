//! The promise of an answer: to be waited for by a thread, or awaited by any runtime.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::Shared;
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
}

impl Ticket {
    pub(crate) fn new(shared: Arc<Shared>, number: u64, ack: Ack, answer: Appended) -> Self {
        Self { shared, number, ack, answer }
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
    /// [`Error::Storage`] when a write or sync failed: whether the batch survives is known after the log is opened
    /// again, where a retry gets the right answer.
    pub fn wait(self) -> Result<Appended> {
        self.shared.commit(self.number, self.ack)?;
        Ok(self.answer)
    }
}

impl Future for Ticket {
    type Output = Result<Appended>;

    /// With an engine that has a driver thread the poll only registers; without one it carries the group itself.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.ack == Ack::Accepted {
            return Poll::Ready(Ok(self.answer));
        }
        {
            let mut state = self.shared.state.lock();
            if state.reached(self.number, self.ack) {
                return Poll::Ready(Ok(self.answer));
            }
            if let Some(failure) = &state.latch {
                return Poll::Ready(Err(Error::Storage(failure.clone())));
            }
            if self.shared.has_driver() {
                if self.ack == Ack::Durable {
                    state.progress.durable_wanted = state.progress.durable_wanted.max(self.number);
                }
                state.progress.wakers.push(context.waker().clone());
                drop(state);
                self.shared.kick();
                return Poll::Pending;
            }
        }
        Poll::Ready(self.shared.commit(self.number, self.ack).map(|()| self.answer))
    }
}

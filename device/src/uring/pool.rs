//! A few rings, each lent to one call at a time.

use super::setup::{Ring, build_ring};
use crate::lock::Mutex;
use std::ops::{Deref, DerefMut};

/// More calls than this at once gain nothing: the later ones run on their own threads.
const MAX_RINGS: usize = 16;

pub(super) struct RingPool {
    state: Mutex<State>,
}

struct State {
    idle: Vec<Ring>,
    /// Rings made and not given up, idle or lent.
    made: usize,
}

impl RingPool {
    pub(super) fn new(first: Ring) -> Self {
        let state = State { idle: vec![first], made: 1 };
        Self { state: Mutex::new(state) }
    }

    /// The first ring if it is free; `None` when all are lent, or when the kernel gives no further one. Only the first
    /// has registered memory: the rings count against the same limit, and many that register would leave none for the
    /// others.
    pub(super) fn take(&self) -> Option<Lent<'_>> {
        let mut state = self.state.lock();
        let first = state.idle.iter().position(Ring::is_registered);
        if let Some(ring) = first.map(|at| state.idle.swap_remove(at)).or_else(|| state.idle.pop()) {
            return Some(Lent { pool: self, ring: Some(ring) });
        }
        if state.made == MAX_RINGS {
            return None;
        }
        state.made += 1;
        drop(state);
        match build_ring() {
            Ok((ring, _)) => Some(Lent { pool: self, ring: Some(ring) }),
            Err(error) => {
                tracing::debug!(%error, "no further ring");
                self.state.lock().made -= 1;
                None
            }
        }
    }
}

impl std::fmt::Debug for RingPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RingPool({} rings)", self.state.lock().made)
    }
}

/// A ring with nothing in flight; goes back to the pool if that is still so.
pub(super) struct Lent<'a> {
    pool: &'a RingPool,
    ring: Option<Ring>,
}

impl Deref for Lent<'_> {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        self.ring.as_ref().expect("present until dropped")
    }
}

impl DerefMut for Lent<'_> {
    fn deref_mut(&mut self) -> &mut Ring {
        self.ring.as_mut().expect("present until dropped")
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let Some(mut ring) = self.ring.take() else {
            return;
        };
        // A refused submission leaves entries in the queue that point into a buffer no longer ours: such a ring dies.
        let clean = ring.uring.submission().is_empty() && ring.uring.completion().is_empty();
        let mut state = self.pool.state.lock();
        match clean {
            true => state.idle.push(ring),
            false => state.made -= 1,
        }
    }
}

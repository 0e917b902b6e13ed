//! A few rings, each lent to one call at a time.

use super::setup::{Ring, build_ring};
use crate::arena::Arena;
use parking_lot::Mutex;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// More calls than this at once gain nothing: the later ones run on their own threads.
const MAX_RINGS: usize = 16;

pub(super) struct RingPool {
    state: Mutex<State>,
    /// What each ring registers if it may.
    arena: Option<Arc<Arena>>,
}

struct State {
    idle: Vec<Ring>,
    /// Rings made and not given up, idle or lent.
    made: usize,
}

impl RingPool {
    pub(super) fn new(first: Ring, arena: Option<Arc<Arena>>) -> Self {
        let state = State { idle: vec![first], made: 1 };
        Self { state: Mutex::new(state), arena }
    }

    /// `None` when all are lent, or when the kernel gives no further one.
    pub(super) fn take(&self) -> Option<Lent<'_>> {
        let mut state = self.state.lock();
        if let Some(ring) = state.idle.pop() {
            return Some(Lent { pool: self, ring: Some(ring) });
        }
        if state.made == MAX_RINGS {
            return None;
        }
        state.made += 1;
        drop(state);
        match build_ring() {
            Ok((mut ring, _)) => {
                if let Some(arena) = &self.arena
                    && let Err(error) = ring.register(arena)
                {
                    tracing::debug!(%error, "a further ring, without registered buffers");
                }
                Some(Lent { pool: self, ring: Some(ring) })
            }
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

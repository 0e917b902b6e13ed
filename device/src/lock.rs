//! The standard library's locks, without poisoning: what they guard here is whole between two statements.
//!
//! Every log of an engine comes to the locks of this crate, for a buffer or a ring, and holds them for a moment. Who
//! finds one taken spins and then sleeps until it is free. The locks of `parking_lot` call `sched_yield` in between,
//! and to Linux (EEVDF) that gives up the rest of the turn: with a thread for each of 64 logs on two cores, whoever met
//! another at the buffer pool came back 30 ms later. Where many wait long for the same lock, as at that of one log,
//! `parking_lot` is the better one.

use std::sync::{self, MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

/// One at a time.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits until it is free.
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Many who read, or one who writes.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    /// Waits until nobody writes.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else has it.
    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_poisons_nothing() {
        let both = AssertUnwindSafe((Mutex::new(1), RwLock::new(1)));
        let panicked = catch_unwind(|| {
            let (mutex, shared) = &*both;
            let (mut one, mut other) = (mutex.lock(), shared.write());
            (*one, *other) = (2, 2);
            panic!("under both locks");
        });
        assert!(panicked.is_err());
        let (mutex, shared) = &*both;
        assert_eq!((*mutex.lock(), *shared.read()), (2, 2));
        assert_eq!(*shared.write(), 2);
    }
}

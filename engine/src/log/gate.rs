//! Where callers wait for a flight to land.
//!
//! Who is woken reads here how far the device has come, and is off without the log's lock: dozens who are woken
//! together would otherwise queue up for it in front of the next group. The standard library's condition variable wakes
//! all of them by one call; that of `parking_lot` hands them to the mutex one by one.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::types::Ack;

/// See the module.
#[derive(Default)]
pub(crate) struct Gate {
    landed: Mutex<Landed>,
    bell: Condvar,
}

/// Numbers of appends, as in the log's progress.
#[derive(Default)]
pub(crate) struct Landed {
    written: u64,
    durable: u64,
    waiting: u32,
}

impl Gate {
    /// To be entered with the log's lock, which may be let go of once this is held: no ring of the bell is missed from
    /// then on.
    pub fn enter(&self) -> MutexGuard<'_, Landed> {
        self.landed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the bell; answers whether the append has reached the level. Else there is something to do.
    pub fn wait(&self, mut landed: MutexGuard<'_, Landed>, number: u64, level: Ack) -> bool {
        landed.waiting += 1;
        let mut landed = self.bell.wait(landed).unwrap_or_else(PoisonError::into_inner);
        landed.waiting -= 1;
        match level {
            Ack::Accepted => true,
            Ack::Written => landed.written >= number,
            Ack::Durable => landed.durable >= number,
        }
    }

    /// Tells all who wait here how far the device has come.
    pub fn land(&self, written: u64, durable: u64) {
        let mut landed = self.enter();
        (landed.written, landed.durable) = (landed.written.max(written), landed.durable.max(durable));
        let any = landed.waiting > 0;
        drop(landed);
        if any {
            self.bell.notify_all();
        }
    }

    /// Wakes one of those who wait, to lead.
    pub fn wake_one(&self) {
        let any = self.enter().waiting > 0;
        if any {
            self.bell.notify_one();
        }
    }
}

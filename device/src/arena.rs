//! Memory that stays where it is, so that a ring can have it registered: the kernel then looks up its pages once
//! instead of at every write.
//!
//! Registration pins the pages under an address. A buffer that was freed, and another allocated at the same address,
//! would be written from the old pages; so what is registered is one mapping that nobody frees while a ring has it, and
//! buffers are lent out of it. It is small because it counts against `RLIMIT_MEMLOCK`.
//!
//! Arenas that are not registered lend what the first has no room for, for another reason: the first touch of a page
//! costs more than filling it, and memory that is cut anew for each size is touched once for all.
#![expect(unsafe_code, reason = "lends disjoint parts of a mapping as mutable bytes")]

use crate::huge_pages::HugePages;
use crate::lock::Mutex;
use std::sync::Arc;

/// All of it, bytes.
pub(crate) const ARENA_BYTES: usize = 4 << 20;

/// What is lent is a multiple of this many bytes.
pub(crate) const UNIT_BYTES: usize = ARENA_BYTES / u64::BITS as usize;

/// [`ARENA_BYTES`] of zeroes in huge pages, lent in runs of units.
pub(crate) struct Arena {
    memory: HugePages,
    /// A bit for each unit that is lent.
    lent: Mutex<u64>,
}

impl Arena {
    /// `None` where the kernel gives no such mapping.
    pub(crate) fn new() -> Option<Arc<Self>> {
        let memory = HugePages::new(ARENA_BYTES)?;
        Some(Arc::new(Self { memory, lent: Mutex::new(0) }))
    }

    /// Where it begins; [`ARENA_BYTES`] long.
    pub(crate) fn start(&self) -> *mut u8 {
        self.memory.start()
    }

    /// Whether all of `bytes` lie in here.
    pub(crate) fn holds(&self, bytes: &[u8]) -> bool {
        let within = bytes.as_ptr().addr().wrapping_sub(self.start().addr());
        within < ARENA_BYTES && bytes.len() <= ARENA_BYTES - within
    }

    /// Bytes that nobody has.
    pub(crate) fn idle_bytes(&self) -> usize {
        self.lent.lock().count_zeros() as usize * UNIT_BYTES
    }

    /// Lends `bytes`, a multiple of [`UNIT_BYTES`] but not zero; `None` where no such run is free. Holds whatever its
    /// last user left.
    pub(crate) fn lend(self: &Arc<Self>, bytes: usize) -> Option<Lease> {
        let units = bytes / UNIT_BYTES;
        let run = u64::MAX.checked_shr(u64::BITS.checked_sub(units as u32)?)?;
        let mut lent = self.lent.lock();
        let first = (0..=u64::BITS as usize - units).find(|&first| *lent & (run << first) == 0)?;
        *lent |= run << first;
        Some(Lease { arena: Arc::clone(self), first, run })
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arena({} units lent)", self.lent.lock().count_ones())
    }
}

/// A part of an [`Arena`]; dropping it gives it back.
pub(crate) struct Lease {
    arena: Arc<Arena>,
    first: usize,
    /// A bit for each unit, before it is shifted by `first`.
    run: u64,
}

impl Lease {
    fn place(&self) -> (*mut u8, usize) {
        let (skip, length) = (self.first * UNIT_BYTES, self.run.count_ones() as usize * UNIT_BYTES);
        (self.arena.start().wrapping_add(skip), length)
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        let (start, length) = self.place();
        // SAFETY: the units lie inside the mapping, which `arena` keeps and the kernel handed out initialised. Their
        // bits are set in `lent` until this value is dropped, so no other lease has them, and `self` is borrowed.
        unsafe { std::slice::from_raw_parts(start, length) }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        let (start, length) = self.place();
        // SAFETY: as in `as_slice`; the exclusive borrow rules out aliases.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.arena.lent.lock() &= !(self.run << self.first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_nobody_elses_and_comes_back() {
        let arena = Arena::new().expect("4 MiB");
        assert!(arena.lend(ARENA_BYTES + UNIT_BYTES).is_none());
        let mut parts: Vec<Lease> = (0..16).map(|_| arena.lend(4 * UNIT_BYTES).expect("a sixteenth")).collect();
        for (number, part) in parts.iter_mut().enumerate() {
            part.as_mut_slice().fill(number as u8);
        }
        assert!(arena.lend(UNIT_BYTES).is_none(), "all is lent");
        for (number, part) in parts.iter().enumerate() {
            assert!(part.as_slice().iter().all(|&byte| byte == number as u8) && arena.holds(part.as_slice()));
            assert_eq!(part.as_slice().len(), 4 * UNIT_BYTES);
        }
        parts.remove(7);
        parts.remove(4);
        assert!(arena.lend(5 * UNIT_BYTES).is_none(), "not in one piece");
        assert_eq!(arena.lend(4 * UNIT_BYTES).expect("the gap").as_slice()[0], 4);
        drop(parts);
        let whole = arena.lend(ARENA_BYTES).expect("all is back");
        assert!(arena.holds(whole.as_slice()));
        assert!(!arena.holds(&[0; 64]));
    }
}

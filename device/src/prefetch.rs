//! Memory asked for before it is read.
//!
//! What one producer of a million last did lies in memory that no cache holds. Whoever knows of several that he will
//! look up asks for all of them first: the processor then fetches them side by side.
#![cfg_attr(target_arch = "x86_64", expect(unsafe_code, reason = "the processor's instruction takes an address"))]

/// Bytes that come together.
const LINE_BYTES: usize = 64;

/// Has the processor fetch these words, where it knows how to be asked. Waits for nothing and changes nothing.
#[inline]
pub fn prefetch(words: &[u64]) {
    let step = LINE_BYTES / size_of::<u64>();
    for word in words.iter().step_by(step).chain(words.last()) {
        ask(word);
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn ask(word: &u64) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every processor of this architecture has the instruction, and it reads nothing and faults at no address;
    // this one is of a word that is borrowed.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(word).cast()) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn ask(_word: &u64) {}

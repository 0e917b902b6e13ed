//! One write through a ring: split, kept [`DEPTH`] deep, and never left before the kernel is done with it.
#![expect(unsafe_code, reason = "hands the kernel pointers into the caller's bytes")]

use super::setup::Ring;
use super::{CHUNK_BYTES, DEPTH};
use crate::host_file::Stopped;
use io_uring::{IoUring, opcode, types};
use rustix::io::{Errno, ReadWriteFlags};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

const PAUSE: Duration = Duration::from_micros(50);

/// Passing refusals in a row (10,000 pauses, above half a second) after which one counts as a failure.
const PATIENCE: u32 = 10_000;

pub(super) fn write(
    ring: &mut Ring,
    file: BorrowedFd<'_>,
    position: u64,
    bytes: &[u8],
    dsync: bool,
) -> Result<(), Stopped> {
    let flags = if dsync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
    Transfer {
        registered: ring.has_registered(bytes),
        ring: &mut ring.uring,
        file,
        position,
        bytes,
        flags: flags.bits().cast_signed(),
        pieces: [None; DEPTH],
        in_kernel: 0,
        next: 0,
        stopped: None,
        patience: PATIENCE,
    }
    .run()
}

/// Sends one no-op through and waits for it.
pub(super) fn pass_nop(ring: &mut IoUring) -> io::Result<()> {
    // SAFETY: a no-op refers to no memory.
    let pushed = unsafe { ring.submission().push(&opcode::Nop::new().build()) };
    pushed.map_err(|_full| io::Error::other("the submission queue is full"))?;
    ring.submit_and_wait(1)?;
    match ring.completion().next().map(|entry| entry.result()) {
        Some(0) => Ok(()),
        Some(negative) => Err(io::Error::from_raw_os_error(-negative)),
        None => Err(io::Error::other("no completion")),
    }
}

/// A part of the transfer, of which the first `done` bytes are through.
#[derive(Clone, Copy)]
struct Piece {
    offset: usize,
    length: usize,
    done: usize,
}

/// Borrows the ring, the file and the bytes. `in_kernel` counts what was pushed and has not completed; dropping waits
/// for it, so the borrow cannot end while the kernel holds the pointer, not even by a panic.
struct Transfer<'a> {
    ring: &'a mut IoUring,
    /// All of the bytes lie in the ring's registered memory.
    registered: bool,
    file: BorrowedFd<'a>,
    position: u64,
    bytes: &'a [u8],
    flags: i32,
    pieces: [Option<Piece>; DEPTH],
    in_kernel: usize,
    /// The next byte that no piece covers yet.
    next: usize,
    stopped: Option<Stopped>,
    /// So many more passing refusals in a row are borne.
    patience: u32,
}

impl Transfer<'_> {
    fn run(mut self) -> Result<(), Stopped> {
        loop {
            self.fill();
            if self.in_kernel == 0 {
                break;
            }
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_passing(&error) && self.bear() => {}
                Err(error) => {
                    self.stop(Stopped::Errno(Errno::from_io_error(&error).unwrap_or(Errno::IO)));
                    self.drain();
                    break;
                }
            }
            self.reap();
        }
        match self.stopped.take() {
            Some(stopped) => Err(stopped),
            None => Ok(()),
        }
    }

    /// Puts new pieces into free slots, unless the transfer has stopped.
    fn fill(&mut self) {
        for slot in 0..DEPTH {
            if self.stopped.is_some() || self.next >= self.bytes.len() {
                return;
            }
            if self.pieces[slot].is_none() {
                let length = CHUNK_BYTES.min(self.bytes.len() - self.next);
                let piece = Piece { offset: self.next, length, done: 0 };
                self.next += length;
                self.push(slot, piece);
            }
        }
    }

    fn push(&mut self, slot: usize, piece: Piece) {
        let rest = &self.bytes[piece.offset + piece.done..piece.offset + piece.length];
        let at = self.position + (piece.offset + piece.done) as u64;
        let (file, pointer, length) = (types::Fd(self.file.as_raw_fd()), rest.as_ptr(), rest.len() as u32);
        let entry = match self.registered {
            true => opcode::WriteFixed::new(file, pointer, length, 0).offset(at).rw_flags(self.flags).build(),
            false => opcode::Write::new(file, pointer, length).offset(at).rw_flags(self.flags).build(),
        };
        let entry = entry.user_data(slot as u64);
        // SAFETY: the entry points at `rest`, which `self` borrows, as it does the descriptor. It is counted in
        // `in_kernel`, and neither `run` nor `drop` ends before every counted entry has completed or is known never to
        // have left the queue, after which the pool destroys the ring instead of submitting it again.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        match pushed {
            Ok(()) => {
                self.pieces[slot] = Some(piece);
                self.in_kernel += 1;
            }
            // Cannot be: the queue holds DEPTH entries and a slot has one. Counts as a failure all the same.
            Err(_full) => self.stop(Stopped::Errno(Errno::BUSY)),
        }
    }

    fn reap(&mut self) {
        while let Some(entry) = { self.ring.completion().next() } {
            let slot = usize::try_from(entry.user_data()).unwrap_or(DEPTH);
            let Some(piece) = self.pieces.get_mut(slot).and_then(Option::take) else {
                continue;
            };
            self.in_kernel -= 1;
            self.complete(slot, piece, entry.result());
        }
    }

    fn complete(&mut self, slot: usize, mut piece: Piece, result: i32) {
        let Ok(moved) = usize::try_from(result) else {
            let errno = Errno::from_raw_os_error(-result);
            // Not begun, so begun again. Everything else, a cancelled piece too, is a failure.
            if matches!(errno, Errno::INTR | Errno::AGAIN) && self.stopped.is_none() && self.bear() {
                self.push(slot, piece);
            } else {
                self.stop(Stopped::at(piece.offset + piece.done, errno));
            }
            return;
        };
        self.patience = PATIENCE;
        if moved == 0 {
            self.stop(Stopped::Short(piece.offset + piece.done));
            return;
        }
        piece.done += moved;
        if piece.done < piece.length && self.stopped.is_none() {
            self.push(slot, piece);
        }
    }

    /// Whether to try again after a refusal that should pass; waits a little.
    fn bear(&mut self) -> bool {
        std::thread::sleep(PAUSE);
        self.patience = self.patience.saturating_sub(1);
        self.patience > 0
    }

    /// The first reason counts, except that a reason is worth more than being short.
    fn stop(&mut self, why: Stopped) {
        if !matches!(self.stopped, Some(Stopped::Errno(_))) {
            self.stopped = Some(why);
        }
    }

    /// Waits for what the kernel has taken, without relying on `io_uring_enter`, which has just failed: completions
    /// arrive in shared memory by themselves. What still stands in the submission queue was never taken.
    fn drain(&mut self) {
        while self.in_kernel > self.ring.submission().len() {
            self.reap();
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        self.stop(Stopped::Errno(Errno::CANCELED));
        self.drain();
    }
}

/// Interrupted, or short of memory for a moment while completions are pending.
fn is_passing(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INTR | Errno::AGAIN | Errno::BUSY))
}

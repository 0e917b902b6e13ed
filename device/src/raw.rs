//! A bare ring for baselines: what the kernel gives to a program that does nothing else.
//!
//! Only with the feature `raw`; the engine never uses it. It owns its files and buffers, both registered where the
//! kernel allows it, so that the caller needs no unsafe code and a baseline lacks nothing that a hand-written program
//! would have.
#![expect(unsafe_code, reason = "hands the kernel pointers into buffers that the ring owns or a call borrows")]

use crate::buffers::AlignedBuffer;
use io_uring::{IoUring, opcode, types};
use rustix::io::ReadWriteFlags;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// A ring with its own files and buffers. Everything is named by its place: file 0.., buffer 0...
///
/// Dropping it waits for what the kernel still holds.
pub struct RawRing {
    ring: IoUring,
    files: Vec<File>,
    slots: Vec<Slot>,
    registered: bool,
    in_kernel: usize,
}

struct Slot {
    buffer: AlignedBuffer,
    in_kernel: bool,
}

/// Completions of [`RawRing::write_from`] carry this instead of a buffer's place.
const BORROWED: u64 = u64::MAX;

impl RawRing {
    /// A ring over `files` with `count` buffers of `buffer_bytes` each.
    ///
    /// # Errors
    /// Where the machine gives no ring. Refused registration (`RLIMIT_MEMLOCK`) is none: the ring then works without.
    pub fn new(files: Vec<File>, count: usize, buffer_bytes: usize) -> io::Result<Self> {
        let entries = count.max(8).next_power_of_two() as u32;
        let best = IoUring::builder().setup_submit_all().setup_coop_taskrun().dontfork().build(entries);
        let ring = best.or_else(|_older_kernel| IoUring::new(entries))?;
        let descriptors: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter().register_files(&descriptors)?;
        let new = |_| Slot { buffer: AlignedBuffer::new(buffer_bytes), in_kernel: false };
        let mut slots: Vec<Slot> = (0..count).map(new).collect();
        let vectors: Vec<libc::iovec> = slots.iter_mut().map(|slot| iovec_of(&mut slot.buffer)).collect();
        // SAFETY: the vectors point at the slots' buffers, which are never resized and live as long as the ring: `drop`
        // waits for the kernel, and the ring is dropped before the slots (field order).
        let registered = count > 0 && unsafe { ring.submitter().register_buffers(&vectors) }.is_ok();
        Ok(Self { ring, files, slots, registered, in_kernel: 0 })
    }

    /// The bytes of a buffer.
    ///
    /// # Panics
    /// While the kernel holds it.
    pub fn buffer(&mut self, slot: usize) -> &mut [u8] {
        let slot = &mut self.slots[slot];
        assert!(!slot.in_kernel, "the kernel holds this buffer");
        slot.buffer.as_mut_slice()
    }

    /// Queues a write of the first `length` bytes of a buffer; goes out with the next [`RawRing::submit`] or
    /// [`RawRing::wait`].
    ///
    /// # Panics
    /// While the kernel holds the buffer, or when `length` exceeds it.
    pub fn write(&mut self, slot: usize, file: usize, position: u64, length: usize, durable: bool) {
        let (pointer, length) = self.lend(slot, length);
        let target = types::Fixed(file as u32);
        let flags = flags(durable);
        let entry = if self.registered {
            opcode::WriteFixed::new(target, pointer, length, slot as u16).offset(position).rw_flags(flags).build()
        } else {
            opcode::Write::new(target, pointer, length).offset(position).rw_flags(flags).build()
        };
        self.push(&entry.user_data(slot as u64));
    }

    /// Queues a read of `length` bytes into a buffer; goes out with the next [`RawRing::wait`].
    ///
    /// # Panics
    /// While the kernel holds the buffer, or when `length` exceeds it.
    pub fn read(&mut self, slot: usize, file: usize, position: u64, length: usize) {
        let (pointer, length) = self.lend(slot, length);
        let target = types::Fixed(file as u32);
        let entry = if self.registered {
            opcode::ReadFixed::new(target, pointer, length, slot as u16).offset(position).build()
        } else {
            opcode::Read::new(target, pointer, length).offset(position).build()
        };
        self.push(&entry.user_data(slot as u64));
    }

    /// Sends what is queued without waiting.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn submit(&mut self) -> io::Result<()> {
        self.ring.submit().map(drop)
    }

    /// Sends what is queued, waits for one completion at least and answers (buffer, bytes moved) of each there is.
    ///
    /// # Errors
    /// Of the kernel, or of the first operation that failed.
    pub fn wait(&mut self, mut done: impl FnMut(usize, usize)) -> io::Result<()> {
        if self.in_kernel == 0 {
            return Ok(());
        }
        enter(&self.ring)?;
        let mut failed = None;
        while let Some(entry) = { self.ring.completion().next() } {
            self.in_kernel -= 1;
            let slot = entry.user_data() as usize;
            self.slots[slot].in_kernel = false;
            match usize::try_from(entry.result()) {
                Ok(moved) => done(slot, moved),
                Err(_negative) => failed = Some(io::Error::from_raw_os_error(-entry.result())),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Writes the caller's bytes in one operation and returns when it is done. Needs an idle ring.
    ///
    /// # Errors
    /// Of the kernel; a short write is one too.
    ///
    /// # Panics
    /// While operations are in flight.
    pub fn write_from(&mut self, bytes: &[u8], file: usize, position: u64, durable: bool) -> io::Result<()> {
        assert_eq!(self.in_kernel, 0, "the ring is busy");
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let entry = opcode::Write::new(types::Fixed(file as u32), bytes.as_ptr(), length)
            .offset(position)
            .rw_flags(flags(durable))
            .build();
        // The loop below ends only with the completion, so the kernel never holds `bytes` longer than the borrow.
        self.push(&entry.user_data(BORROWED));
        loop {
            let entered = enter(&self.ring);
            if let Some(entry) = { self.ring.completion().next() } {
                self.in_kernel -= 1;
                return match entry.result() {
                    moved if moved == length.cast_signed() => Ok(()),
                    moved if moved >= 0 => Err(io::ErrorKind::WriteZero.into()),
                    negative => Err(io::Error::from_raw_os_error(-negative)),
                };
            }
            if entered.is_err() {
                // Neither taken nor refused for good: unwinding would free what the kernel may yet read.
                std::process::abort();
            }
        }
    }

    /// Makes everything written to a file durable.
    ///
    /// # Errors
    /// Of the kernel.
    pub fn sync(&self, file: usize) -> io::Result<()> {
        self.files[file].sync_data()
    }

    fn lend(&mut self, slot: usize, length: usize) -> (*mut u8, u32) {
        let slot = &mut self.slots[slot];
        assert!(!slot.in_kernel && length <= slot.buffer.capacity_bytes(), "a free buffer of at least {length} bytes");
        slot.in_kernel = true;
        (slot.buffer.as_mut_slice().as_mut_ptr(), length as u32)
    }

    fn push(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the entry points into a buffer of `slots`, marked as held until its completion, or at bytes that
        // `write_from` borrows until its completion. Files stay open as long as the ring.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("as many entries as buffers");
        self.in_kernel += 1;
    }
}

impl Drop for RawRing {
    fn drop(&mut self) {
        while self.in_kernel > 0 {
            let before = self.in_kernel;
            if self.wait(|_slot, _moved| {}).is_err() && self.in_kernel == before {
                // The kernel does not answer and may still write: the memory stays its own.
                std::mem::forget(std::mem::take(&mut self.slots));
                return;
            }
        }
    }
}

impl std::fmt::Debug for RawRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RawRing({} buffers, registered: {})", self.slots.len(), self.registered)
    }
}

fn iovec_of(buffer: &mut AlignedBuffer) -> libc::iovec {
    let bytes = buffer.as_mut_slice();
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn flags(durable: bool) -> i32 {
    if durable { ReadWriteFlags::DSYNC.bits().cast_signed() } else { 0 }
}

/// Submits and waits for one completion; an interruption is no error.
fn enter(ring: &IoUring) -> io::Result<()> {
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            answered => return answered.map(drop),
        }
    }
}

//! Writes of many files on the way at once, for one thread that looks after all of them.
//!
//! A call that blocks is enough for one log; a thread that serves many would wait for one disk sync after the other.
//! What the kernel reads belongs to the lane until the kernel is done with it, so no buffer and no file can go away
//! underneath. A write that comes back short or is refused in this form is done over on the calling thread: the same
//! bytes at the same place.
#![expect(unsafe_code, reason = "hands the kernel pointers into buffers that the lane owns")]

use crate::buffers::AlignedBuffer;
use crate::device::{DeviceFile, Result, Sync};
use crate::error::DeviceError;
use io_uring::{IoUring, opcode, types};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags, write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// So many writes can be on the way at once.
pub const LANE_DEPTH: usize = 128;

/// Marks the read of the bell among the completions.
const BELL: u64 = u64::MAX;

/// Refusals of `io_uring_enter` in a row, each followed by a short sleep, after which the ring is given up.
const PATIENCE: u32 = 10_000;
const PAUSE: Duration = Duration::from_micros(50);

/// `IORING_ENTER_GETEVENTS` of `linux/io_uring.h`.
const GETEVENTS: u32 = 1;

/// A write, with everything that it needs until it is done.
pub struct LaneWrite {
    /// Whoever pushed it knows by this what has landed.
    pub tag: u64,
    /// To be written to.
    pub file: Arc<dyn DeviceFile>,
    /// In the file, a multiple of the block.
    pub position: u64,
    /// Its first `length` bytes are written.
    pub buffer: AlignedBuffer,
    /// A multiple of the block.
    pub length: usize,
    /// How durable it is when it has landed.
    pub sync: Sync,
}

/// Wakes the thread that waits in [`Lane::wait`].
#[derive(Debug)]
pub struct Bell {
    event: OwnedFd,
    /// The thread waits or is about to.
    awaited: AtomicBool,
}

impl Bell {
    /// To be called behind the change that the thread is to see.
    pub fn ring(&self) {
        if self.awaited.swap(false, Ordering::SeqCst) {
            // Fails only where the counter would overflow, and then it is readable anyway.
            let _rung = write(&self.event, &1_u64.to_ne_bytes());
        }
    }
}

/// See the module.
pub struct Lane {
    ring: IoUring,
    slots: Vec<Option<LaneWrite>>,
    free: Vec<usize>,
    landed: Vec<(LaneWrite, Result<()>)>,
    bell: Arc<Bell>,
    /// Where the bell's counter is read to; `None` while the kernel has it.
    word: Option<Box<[u8; 8]>>,
    lent_word: Option<Box<[u8; 8]>>,
    /// Entries pushed and not completed, the bell's included.
    in_kernel: usize,
    /// Completions come where this thread enters the ring for them, see [`Lane::bind`].
    bound: bool,
    /// The kernel refuses to work: nothing is pushed any more.
    broken: bool,
}

impl Lane {
    /// `None` where the machine gives none.
    pub(super) fn open() -> Option<Self> {
        let entries = (LANE_DEPTH + 1) as u32;
        let best = IoUring::builder().setup_submit_all().setup_coop_taskrun().dontfork().build(entries);
        let ring = best.or_else(|_older_kernel| IoUring::builder().dontfork().build(entries)).ok()?;
        if !ring.params().is_feature_ext_arg() {
            return None;
        }
        let event = eventfd(0, EventfdFlags::CLOEXEC).ok()?;
        Some(Self {
            ring,
            slots: (0..LANE_DEPTH).map(|_| None).collect(),
            free: (0..LANE_DEPTH).rev().collect(),
            landed: Vec::new(),
            bell: Arc::new(Bell { event, awaited: AtomicBool::new(false) }),
            word: Some(Box::new([0; 8])),
            lent_word: None,
            in_kernel: 0,
            bound: false,
            broken: false,
        })
    }

    /// From now on the lane is the calling thread's alone, to the end, where the kernel can make use of that (6.1):
    /// what completes while the thread is at something else does not interrupt it.
    #[must_use]
    pub fn bind(mut self) -> Self {
        let mut builder = IoUring::builder();
        builder.setup_submit_all().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().dontfork();
        if self.in_kernel == 0
            && let Ok(ring) = builder.build((LANE_DEPTH + 1) as u32)
        {
            (self.ring, self.bound) = (ring, true);
        }
        self
    }

    /// What wakes this lane's thread.
    #[must_use]
    pub fn bell(&self) -> Arc<Bell> {
        self.bell.clone()
    }

    /// Whether another write may be pushed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Puts a write on the way; it leaves with the next [`Lane::wait`]. What cannot go this way is written before this
    /// returns, and lands as well.
    ///
    /// # Panics
    /// Without room.
    pub fn push(&mut self, mut write: LaneWrite) {
        let target = write.file.direct_target(write.position, write.buffer.capacity_bytes(), write.length);
        let descriptor = match target {
            Err(error) => return self.landed.push((write, Err(error))),
            Ok(descriptor) => descriptor.filter(|_| !self.broken).map(|descriptor| descriptor.as_raw_fd()),
        };
        let Some(descriptor) = descriptor else { return self.write_here(write) };
        let slot = self.free.pop().expect("room in the lane");
        let flags = if write.sync == Sync::Data { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let pointer = write.buffer.as_mut_slice().as_mut_ptr().cast_const();
        let entry = opcode::Write::new(types::Fd(descriptor), pointer, write.length as u32)
            .offset(write.position)
            .rw_flags(flags.bits().cast_signed())
            .build()
            .user_data(slot as u64);
        self.slots[slot] = Some(write);
        self.enqueue(&entry);
    }

    /// Sends what was pushed and waits until something has landed, the bell was rung or the time is over. Does not
    /// sleep where something has landed already or `is_due` says that there is other work; that is asked when a ring
    /// of the bell is no longer missed.
    pub fn wait(&mut self, timeout: Option<Duration>, is_due: impl FnOnce() -> bool) -> Vec<(LaneWrite, Result<()>)> {
        self.reap();
        self.listen();
        self.bell.awaited.store(true, Ordering::SeqCst);
        let sleeps = self.landed.is_empty() && !self.broken && !is_due();
        self.enter(sleeps, timeout);
        self.bell.awaited.store(false, Ordering::SeqCst);
        self.reap();
        std::mem::take(&mut self.landed)
    }

    /// Has the kernel read the bell.
    fn listen(&mut self) {
        let Some(mut word) = self.word.take().filter(|_| !self.broken) else { return };
        let entry = opcode::Read::new(types::Fd(self.bell.event.as_raw_fd()), word.as_mut_ptr(), 8);
        self.lent_word = Some(word);
        self.enqueue(&entry.build().user_data(BELL));
    }

    fn enqueue(&mut self, entry: &io_uring::squeue::Entry) {
        // SAFETY: the entry points into a buffer of `slots` or at `lent_word`, both kept where they are until its
        // completion has been seen, and names a file that the slot, or the lane, keeps open as long. `drop` waits.
        let pushed = unsafe { self.ring.submission().push(entry) };
        pushed.expect("as many entries as slots, and one");
        self.in_kernel += 1;
    }

    fn enter(&mut self, sleeps: bool, timeout: Option<Duration>) {
        if self.broken {
            return;
        }
        let timespec = timeout.map(types::Timespec::from);
        for _ in 0..PATIENCE {
            let mut arguments = types::SubmitArgs::new();
            if let Some(timespec) = &timespec {
                arguments = arguments.timespec(timespec);
            }
            let entered = match sleeps {
                false => self.ring.submit(),
                true => self.ring.submitter().submit_with_args(1, &arguments),
            };
            match entered.map_err(|error| Errno::from_io_error(&error)) {
                Ok(_) | Err(Some(Errno::TIME | Errno::INTR)) => return,
                Err(Some(Errno::AGAIN | Errno::BUSY)) => std::thread::sleep(PAUSE),
                Err(_) => break,
            }
        }
        self.give_up();
    }

    fn reap(&mut self) {
        while let Some(entry) = { self.ring.completion().next() } {
            self.in_kernel -= 1;
            if entry.user_data() == BELL {
                self.word = self.lent_word.take();
                continue;
            }
            let slot = usize::try_from(entry.user_data()).unwrap_or(LANE_DEPTH);
            let Some(write) = self.slots.get_mut(slot).and_then(Option::take) else { continue };
            self.free.push(slot);
            match usize::try_from(entry.result()) {
                Ok(moved) if moved == write.length => self.landed.push((write, Ok(()))),
                Ok(_short) => self.write_here(write),
                Err(_negative) => match Errno::from_raw_os_error(-entry.result()) {
                    Errno::INVAL | Errno::OPNOTSUPP | Errno::AGAIN | Errno::INTR => self.write_here(write),
                    errno => {
                        let error = DeviceError::io("write", &write.file.path(), errno);
                        self.landed.push((write, Err(error)));
                    }
                },
            }
        }
    }

    fn write_here(&mut self, write: LaneWrite) {
        let result = write.file.write(write.position, &write.buffer, write.length, write.sync);
        self.landed.push((write, result));
    }

    /// What still stands in the queue was never taken, and never will be: it is written here, when what was taken is
    /// done.
    fn give_up(&mut self) {
        self.broken = true;
        self.outlast(|lane| lane.ring.submission().len() + usize::from(lane.lent_word.is_some()));
        for slot in 0..self.slots.len() {
            if let Some(write) = self.slots[slot].take() {
                self.free.push(slot);
                self.write_here(write);
            }
        }
    }

    /// Waits until the kernel has no more than what `left` says. Completions arrive by themselves; those of a bound
    /// lane where its thread enters the ring, and where it may not they never do: what they belong to is failed, and
    /// the memory that the kernel may still look at is nobody's from then on.
    fn outlast(&mut self, left: impl Fn(&mut Self) -> usize) {
        let mut patience = PATIENCE;
        while self.in_kernel > left(self) {
            if self.bound {
                self.collect();
                patience -= 1;
            }
            self.reap();
            if patience == 0 {
                return self.abandon();
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn collect(&self) {
        // SAFETY: submits nothing and passes no argument.
        let _entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 0, GETEVENTS, None) };
    }

    fn abandon(&mut self) {
        self.in_kernel = 0;
        std::mem::forget(self.lent_word.take());
        for slot in 0..self.slots.len() {
            if let Some(mut write) = self.slots[slot].take() {
                std::mem::forget((std::mem::take(&mut write.buffer), write.file.clone()));
                let error = DeviceError::io("write", &write.file.path(), Errno::IO);
                self.landed.push((write, Err(error)));
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.bell.awaited.store(true, Ordering::SeqCst);
        self.bell.ring();
        self.outlast(|lane| {
            if !lane.broken {
                let _entered = lane.ring.submit();
            }
            lane.ring.submission().len()
        });
    }
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lane({} on the way)", LANE_DEPTH - self.free.len())
    }
}

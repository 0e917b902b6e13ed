//! A record lock over a whole file that belongs to the open file.
//!
//! Java's `FileChannel.tryLock`, by which Kafka keeps a second broker out of a data directory, is a POSIX record lock;
//! `flock` and record locks do not see each other. POSIX locks of our own would not do: they belong to the process, so
//! two engines in one would both have it, and closing any descriptor of the file drops it. An open file description
//! lock (Linux 3.15) excludes POSIX locks and its own kind, and lives as long as the open file.
#![expect(unsafe_code, reason = "passes a structure to fcntl")]

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

/// Takes the exclusive lock or answers `EAGAIN` or `EACCES` where somebody has it. Closing `descriptor` releases it.
///
/// Where the system does not know such locks (`EINVAL`, in some sandboxes) it is a `flock`, which keeps engines apart.
pub(crate) fn try_exclusive(descriptor: &OwnedFd) -> Result<(), Errno> {
    match try_record_lock(descriptor) {
        Err(Errno::INVAL) => rustix::fs::flock(descriptor, FlockOperation::NonBlockingLockExclusive),
        answer => answer,
    }
}

fn try_record_lock(descriptor: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: a `flock` is plain integers, for which zero is a value.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    // From byte 0 to the end, wherever that will be; `l_pid` stays 0, as this kind of lock demands.
    whole.l_type = libc::F_WRLCK as libc::c_short;
    whole.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open while borrowed, and the kernel reads `whole` during the call only.
    match unsafe { libc::fcntl(descriptor.as_raw_fd(), libc::F_OFD_SETLK, &raw const whole) } {
        -1 => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
        _ => Ok(()),
    }
}

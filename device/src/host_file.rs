//! A file of the host, as both kernel devices hold it: one descriptor through the page cache, one past it.
//!
//! Two descriptors because small reads want the page cache, at any alignment and with its read-ahead, and the log's
//! writes do not: buffered writes dirty pages whose flush then hits everyone. Large reads go past the cache as well:
//! into huge pages that is faster, and old data evicts nothing. Where the file system refuses direct I/O the buffered
//! descriptor takes the writes too, with the same promises at a higher cost.
//!
//! Everything here runs on the calling thread and is also what the ring falls back to.

use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, OpenMode, Result, Sync};
use crate::error::{DeviceError, DeviceErrorKind};
use crate::lock::RwLock;
use crate::page_cache;
use rustix::fs::{AtFlags, FallocateFlags, FileType, Mode, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags, retry_on_intr};
use std::io::IoSlice;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

/// Zeroes are written from here, by everyone.
static ZEROES: LazyLock<AlignedBuffer> = LazyLock::new(|| AlignedBuffer::new(1 << 20));

/// So many at a time where others are not to feel it: a write that comes meanwhile waits behind one such piece, and its
/// sync takes along what was written of the zeroes. Of durable appends of 64 KiB over rolls one in a thousand took 1.2
/// ms beside pieces of 1 MiB and 0.6 beside these; appends in bulk, which wait for the zeroes, lost about a quarter of
/// their rate (one run).
const GENTLE_BYTES: usize = 256 << 10;

/// The first reason for which direct I/O was not used, told by [`crate::Device::describe`].
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    buffered: OnceLock<String>,
}

impl Remarks {
    fn note_buffered(&self, path: &Path, why: &str) {
        let remark = format!("; buffered writes where direct I/O is refused, first at {}: {why}", path.display());
        if self.buffered.set(remark).is_ok() {
            tracing::info!(path = %path.display(), why, "direct I/O refused, writing through the page cache");
        }
    }

    /// To be put behind the description; empty if direct I/O worked everywhere.
    pub(crate) fn text(&self) -> &str {
        self.buffered.get().map_or("", String::as_str)
    }
}

pub(crate) struct HostFile {
    path: RwLock<PathBuf>,
    writable: bool,
    buffered: OwnedFd,
    direct: Option<OwnedFd>,
    /// It was this long when last looked at, and has not been cut since: most writes need not look.
    seen_length: RwLock<u64>,
    direct_refused: AtomicBool,
    dsync_refused: AtomicBool,
    remarks: Arc<Remarks>,
}

impl HostFile {
    pub(crate) fn open(path: &Path, mode: OpenMode, remarks: &Arc<Remarks>) -> Result<Self> {
        let buffered = open_buffered(path, mode)?;
        let writable = mode != OpenMode::Read;
        let direct = if writable { open_direct(path, &buffered) } else { Ok(None) };
        let direct = match direct {
            Ok(direct) => direct,
            Err(Refusal::Direct(why)) => {
                remarks.note_buffered(path, &why);
                None
            }
            Err(Refusal::Failed(errno)) => {
                if mode == OpenMode::Create {
                    let _best_effort = std::fs::remove_file(path);
                }
                return Err(DeviceError::io("open", path, errno));
            }
        };
        Ok(Self {
            path: RwLock::new(path.to_path_buf()),
            writable,
            buffered,
            direct,
            seen_length: RwLock::new(0),
            direct_refused: AtomicBool::new(false),
            dsync_refused: AtomicBool::new(false),
            remarks: Arc::clone(remarks),
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path.read().clone()
    }

    pub(crate) fn renamed(&self, to: &Path) {
        *self.path.write() = to.to_path_buf();
    }

    pub(crate) fn is_linked_elsewhere(&self) -> Result<bool> {
        let stat = rustix::fs::fstat(&self.buffered).map_err(|errno| self.failed("is_linked_elsewhere", errno))?;
        Ok(stat.st_nlink > 1)
    }

    /// The descriptor for direct transfers, `None` where direct I/O is not to be had.
    pub(crate) fn direct(&self) -> Option<BorrowedFd<'_>> {
        let refused = self.direct_refused.load(Ordering::Relaxed);
        self.direct.as_ref().filter(|_| !refused).map(std::os::fd::AsFd::as_fd)
    }

    /// The descriptor for reads.
    pub(crate) fn buffered(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.buffered)
    }

    /// Asks for the size and nothing else: once somebody has seen a file's times, the kernel gives the next write a
    /// time of its own, and with it a change of the inode and a handle of the journal. That was a quarter of a durable
    /// append.
    pub(crate) fn length(&self) -> Result<u64> {
        match rustix::fs::statx(&self.buffered, "", AtFlags::EMPTY_PATH, StatxFlags::SIZE) {
            Ok(stat) => Ok(stat.stx_size),
            Err(Errno::NOSYS | Errno::PERM) => {
                let stat = rustix::fs::fstat(&self.buffered).map_err(|errno| self.failed("length", errno))?;
                Ok(u64::try_from(stat.st_size).unwrap_or(0))
            }
            Err(errno) => Err(self.failed("length", errno)),
        }
    }

    pub(crate) fn read_some(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        let read = retry_on_intr(|| rustix::io::pread(&self.buffered, &mut *buffer, position));
        read.map_err(|errno| self.failed("read", errno))
    }

    /// Reads whole blocks past the page cache, unless that holds them all: as many bytes as come that way, which may be
    /// none. The rest is for the usual way.
    pub(crate) fn read_direct(&self, position: u64, buffer: &mut [u8]) -> Result<usize> {
        self.check_aligned("read", position, buffer.len() as u64)?;
        let Some(direct) = self.direct() else { return Ok(0) };
        if page_cache::holds(self.buffered(), position, buffer.len() as u64) {
            return Ok(0);
        }
        let mut done = 0;
        while done < buffer.len() && done.is_multiple_of(BLOCK_BYTES) {
            match retry_on_intr(|| rustix::io::pread(direct, &mut buffer[done..], position + done as u64)) {
                Ok(0) | Err(Errno::INVAL) => break,
                Ok(count) => done += count,
                Err(errno) => return Err(self.failed("read", errno)),
            }
        }
        Ok(done)
    }

    /// Refuses a write that is misaligned, longer than its buffer or not inside the file's length: extending a file is
    /// [`HostFile::prepare`]'s business, a write that did it silently would change size and blocks behind an answer.
    pub(crate) fn check_write(&self, position: u64, available: usize, length: usize) -> Result<()> {
        self.check_writable("write")?;
        self.check_aligned("write", position, length as u64)?;
        if length > available {
            return Err(self.invalid("write", format!("{length} bytes of a buffer of {available}")));
        }
        let end = position.checked_add(length as u64);
        if end.is_some_and(|end| end <= *self.seen_length.read()) {
            return Ok(());
        }
        // Held over the look: a cut beside it would leave the old length here.
        let mut seen_length = self.seen_length.write();
        let prepared = self.length()?;
        *seen_length = prepared;
        match end {
            Some(end) if end <= prepared => Ok(()),
            _ => Err(self.invalid("write", format!("{length} bytes at {position}, prepared up to {prepared}"))),
        }
    }

    /// Writes all bytes from the calling thread, with whatever of direct I/O and `RWF_DSYNC` this file allows.
    pub(crate) fn write_bytes(&self, position: u64, bytes: &[u8], sync: Sync) -> Result<()> {
        loop {
            let direct = self.direct();
            let dsync = sync == Sync::Data && !self.dsync_refused.load(Ordering::Relaxed);
            let flags = if dsync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
            match write_all(direct.unwrap_or(self.buffered()), position, bytes, flags) {
                Ok(()) if sync == Sync::Data && !dsync => return self.sync("write"),
                Ok(()) => return Ok(()),
                Err(Stopped::Errno(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS)) if dsync => {
                    self.dsync_refused.store(true, Ordering::Relaxed);
                }
                Err(Stopped::Errno(Errno::INVAL)) if direct.is_some() => {
                    self.direct_refused.store(true, Ordering::Relaxed);
                    self.dsync_refused.store(false, Ordering::Relaxed);
                    self.remarks.note_buffered(&self.path(), "EINVAL from an aligned write");
                }
                Err(Stopped::Errno(errno)) => return Err(self.failed("write", errno)),
                Err(Stopped::Short(done)) => return Err(self.short(done, bytes.len())),
            }
        }
    }

    /// `fdatasync`: the data of completed writes and the size.
    pub(crate) fn sync(&self, op: &'static str) -> Result<()> {
        let descriptor = self.direct().unwrap_or(self.buffered());
        retry_on_intr(|| rustix::fs::fdatasync(descriptor)).map_err(|errno| self.failed(op, errno))
    }

    pub(crate) fn prepare(&self, from: u64, to: u64) -> Result<()> {
        self.prepare_by(from, to, ZEROES.capacity_bytes())
    }

    pub(crate) fn prepare_gently(&self, from: u64, to: u64) -> Result<()> {
        self.prepare_by(from, to, GENTLE_BYTES)
    }

    fn prepare_by(&self, from: u64, to: u64, piece_bytes: usize) -> Result<()> {
        self.check_span("prepare", from, to)?;
        self.unless_full(|| {
            // Whatever the device's refusal was: writing shows what it is worth.
            let zeroed = self.zero_by_device(from, to).or_else(|_refusal| {
                self.extend(to)?;
                self.write_zeroes(from, to, piece_bytes)
            });
            zeroed.and_then(|()| self.sync("prepare"))
        })
    }

    /// Makes the file so long in one step, where that is possible. Each write that extends a file has it to itself, and
    /// a write of the log that comes meanwhile waits; those within its length go side by side.
    fn extend(&self, to: u64) -> Result<()> {
        let length = self.length()?;
        if to <= length {
            return Ok(());
        }
        let extend = || rustix::fs::fallocate(&self.buffered, FallocateFlags::empty(), length, to - length);
        match retry_on_intr(extend) {
            Err(full @ (Errno::NOSPC | Errno::DQUOT)) => Err(self.failed("prepare", full)),
            // As above: the writes extend it then.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// `FALLOC_FL_ZERO_RANGE`: the file system notes that nothing was written there. It tells so of a part until a
    /// write to that part has completed, through any crash; the note goes with the journal, which makes the first
    /// durable write dearer.
    pub(crate) fn allocate(&self, from: u64, to: u64) -> Result<bool> {
        self.check_span("allocate", from, to)?;
        if from == to {
            return Ok(true);
        }
        self.unless_full(|| {
            let zero = || rustix::fs::fallocate(&self.buffered, FallocateFlags::ZERO_RANGE, from, to - from);
            match retry_on_intr(zero) {
                Ok(()) => self.sync("allocate").map(|()| true),
                Err(full @ (Errno::NOSPC | Errno::DQUOT)) => Err(self.failed("allocate", full)),
                // As above.
                Err(_refusal) => Ok(false),
            }
        })
    }

    /// A file that was being extended gets its old length back where the disk was full.
    fn unless_full<T>(&self, extend: impl FnOnce() -> Result<T>) -> Result<T> {
        let old = self.length()?;
        let extended = extend();
        if let Err(error) = &extended
            && error.is_full()
            && self.length()? > old
        {
            self.set_length(old)?;
        }
        extended
    }

    /// `FALLOC_FL_WRITE_ZEROES` (Linux 6.17): the device itself zeroes the range, which then is as good as written. Few
    /// devices can, and only trying tells which.
    pub(crate) fn zero_by_device(&self, from: u64, to: u64) -> std::result::Result<(), Errno> {
        const WRITE_ZEROES: FallocateFlags = FallocateFlags::from_bits_retain(0x80);
        match to - from {
            0 => Ok(()),
            length => rustix::fs::fallocate(&self.buffered, WRITE_ZEROES, from, length),
        }
    }

    fn write_zeroes(&self, from: u64, to: u64, piece_bytes: usize) -> Result<()> {
        let zeroes = &ZEROES.as_slice()[..piece_bytes];
        let mut position = from;
        while position < to {
            let piece = usize::try_from(to - position).map_or(zeroes.len(), |left| left.min(zeroes.len()));
            self.write_bytes(position, &zeroes[..piece], Sync::None)?;
            position += piece as u64;
        }
        Ok(())
    }

    pub(crate) fn set_length(&self, length: u64) -> Result<()> {
        self.check_writable("set_length")?;
        let mut seen_length = self.seen_length.write();
        *seen_length = 0;
        retry_on_intr(|| rustix::fs::ftruncate(&self.buffered, length))
            .map_err(|errno| self.failed("set_length", errno))
    }

    pub(crate) fn failed(&self, op: &'static str, errno: Errno) -> DeviceError {
        DeviceError::io(op, &self.path(), errno)
    }

    pub(crate) fn short(&self, done: usize, length: usize) -> DeviceError {
        DeviceError::new(DeviceErrorKind::ShortWrite, "write", &self.path())
            .with_detail(format!("{done} of {length} bytes"))
    }

    fn invalid(&self, op: &'static str, detail: String) -> DeviceError {
        DeviceError::new(DeviceErrorKind::InvalidRange, op, &self.path()).with_detail(detail)
    }

    fn check_writable(&self, op: &'static str) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        Err(DeviceError::new(DeviceErrorKind::PermissionDenied, op, &self.path()).with_detail("opened for reads"))
    }

    fn check_span(&self, op: &'static str, from: u64, to: u64) -> Result<()> {
        self.check_writable(op)?;
        self.check_aligned(op, from, to)?;
        if from > to {
            return Err(self.invalid(op, format!("{from}..{to}")));
        }
        Ok(())
    }

    fn check_aligned(&self, op: &'static str, one: u64, other: u64) -> Result<()> {
        let block = BLOCK_BYTES as u64;
        if one.is_multiple_of(block) && other.is_multiple_of(block) {
            return Ok(());
        }
        Err(self.invalid(op, format!("{one} and {other} must be multiples of {block}")))
    }
}

/// Opens without blocking on a pipe, and takes nothing but a regular file.
fn open_buffered(path: &Path, mode: OpenMode) -> Result<OwnedFd> {
    let access = match mode {
        OpenMode::Read => OFlags::RDONLY,
        OpenMode::Write => OFlags::RDWR,
        OpenMode::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
    };
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let failed = |errno| DeviceError::io("open", path, errno);
    let descriptor = retry_on_intr(|| rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))).map_err(failed)?;
    let stat = rustix::fs::fstat(&descriptor).map_err(failed)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(DeviceError::new(DeviceErrorKind::IsADirectory, "open", path));
    }
    // Left set, a ring would answer EAGAIN instead of waiting for the disk.
    rustix::fs::fcntl_setfl(&descriptor, OFlags::empty()).map_err(failed)?;
    Ok(descriptor)
}

enum Refusal {
    Direct(String),
    Failed(Errno),
}

fn open_direct(path: &Path, buffered: &OwnedFd) -> std::result::Result<Option<OwnedFd>, Refusal> {
    if let Some((memory, offset)) = direct_alignment(buffered) {
        let fits = |align: u32| align != 0 && (BLOCK_BYTES as u32).is_multiple_of(align);
        if !fits(memory) || !fits(offset) {
            return Err(Refusal::Direct(format!("it needs alignment {memory} in memory, {offset} in the file")));
        }
    }
    let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
    match retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty())) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Err(Refusal::Direct("O_DIRECT refused at open".to_owned())),
        Err(errno) => Err(Refusal::Failed(errno)),
    }
}

/// What `STATX_DIOALIGN` says: alignment in memory and in the file, bytes; zero where direct I/O is not supported;
/// `None` where the kernel or file system does not say.
pub(crate) fn direct_alignment(descriptor: &OwnedFd) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(descriptor, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
    let said = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN);
    said.then_some((stat.stx_dio_mem_align, stat.stx_dio_offset_align))
}

/// Why a transfer did not finish.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The kernel's answer.
    Errno(Errno),
    /// So many bytes, then none.
    Short(usize),
}

impl Stopped {
    /// `errno` after `done` bytes. A short write inside a block is gone on with where it stopped, so that its reason
    /// (no space, mostly) comes to light; where direct I/O refuses such a position, being short is all that is known,
    /// and no reason to give up direct I/O.
    pub(crate) fn at(done: usize, errno: Errno) -> Self {
        match errno {
            Errno::INVAL if !done.is_multiple_of(BLOCK_BYTES) => Self::Short(done),
            errno => Self::Errno(errno),
        }
    }
}

fn write_all(
    descriptor: BorrowedFd<'_>,
    position: u64,
    bytes: &[u8],
    flags: ReadWriteFlags,
) -> std::result::Result<(), Stopped> {
    let mut done = 0;
    while done < bytes.len() {
        let (rest, at) = (&bytes[done..], position + done as u64);
        let written = retry_on_intr(|| match flags.is_empty() {
            true => rustix::io::pwrite(descriptor, rest, at),
            false => rustix::io::pwritev2(descriptor, &[IoSlice::new(rest)], at, flags),
        });
        match written {
            Ok(0) => return Err(Stopped::Short(done)),
            Ok(bytes) => done += bytes,
            Err(errno) => return Err(Stopped::at(done, errno)),
        }
    }
    Ok(())
}

//! Asks whether the page cache holds a part of a file.
//!
//! `cachestat` (Linux 6.5) looks and changes nothing. A read with `RWF_NOWAIT`, which answers nearly the same, was not
//! kept: where pages are missing it has the kernel read ahead, so each direct read behind it went to the disk twice,
//! and sequential reads came at a third of the disk's speed.
#![expect(unsafe_code, reason = "calls a system call that no binding has yet")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// Of x86-64, AArch64 and all others that came later than their common numbering.
const SYS_CACHESTAT: libc::c_long = 451;

const PAGE_BYTES: u64 = 4096;

#[repr(C)]
struct Range {
    offset: u64,
    length: u64,
}

#[repr(C)]
#[derive(Default)]
struct Found {
    cached: u64,
    dirty: u64,
    in_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all of these bytes are there; no, where the kernel does not say.
pub(crate) fn holds(file: BorrowedFd<'_>, offset: u64, length: u64) -> bool {
    let (range, mut found) = (Range { offset, length }, Found::default());
    // SAFETY: the call reads a `struct cachestat_range` and fills a `struct cachestat`, whose layouts these are; both
    // live until it returns, and the descriptor is borrowed for as long.
    let done = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut found, 0_u32) };
    done == 0 && length > 0 && found.cached >= length.div_ceil(PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::AlignedBuffer;
    use crate::device::{DeviceFile, OpenMode, Sync};
    use crate::host_file::HostFile;
    use rustix::fs::{Advice, fadvise};

    #[test]
    fn a_direct_read_leaves_nothing_in_the_cache_and_a_cached_file_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = HostFile::open(&directory.path().join("one"), OpenMode::Create, &std::sync::Arc::default());
        let (file, mut buffer) = (file.expect("a file"), AlignedBuffer::new(1 << 20));
        file.prepare(0, 1 << 20).expect("space");
        file.write(0, &buffer, 1 << 20, Sync::Data).expect("written");
        fadvise(file.buffered(), 0, None, Advice::DontNeed).expect("dropped");
        if file.direct().is_none() || holds(file.buffered(), 0, 4096) {
            println!("skipped: no direct I/O here");
            return;
        }
        assert_eq!(file.read_direct(0, buffer.as_mut_slice()).expect("read"), 1 << 20);
        assert!(!holds(file.buffered(), 0, 4096) && !holds(file.buffered(), 512 << 10, 4096));
        file.read(0, buffer.as_mut_slice()).expect("read");
        if holds(file.buffered(), 0, 4096) {
            assert!(holds(file.buffered(), 0, 1 << 20));
            assert_eq!(file.read_direct(0, buffer.as_mut_slice()).expect("nothing to do"), 0);
        }
    }
}

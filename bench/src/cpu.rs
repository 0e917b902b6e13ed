//! Processor time, with the kernel's workers in.
//!
//! A process's own time misleads here: part of a durable write is done by threads of the kernel, more of it with one
//! way to sync than with another. So theirs is added, to the nanosecond, from `/proc/*/schedstat`. Other processes stay
//! out. Where the kernel's threads cannot be seen (a container with its own process table) only the process counts.

use rustix::time::{ClockId, clock_gettime};
use std::fs;

/// Processor time used so far, ns.
pub(crate) fn used_ns() -> u64 {
    let own = clock_gettime(ClockId::ProcessCPUTime);
    let own = own.tv_sec.cast_unsigned() * 1_000_000_000 + own.tv_nsec.cast_unsigned();
    own + kernel_threads_ns()
}

/// Of all threads whose parent is the kernel's own (process 2).
fn kernel_threads_ns() -> u64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).filter_map(|id| kernel_thread_ns(&id)).sum()
}

fn kernel_thread_ns(id: &str) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?;
    if parent != "2" {
        return None;
    }
    let schedule = fs::read_to_string(format!("/proc/{id}/schedstat")).ok()?;
    schedule.split(' ').next()?.parse().ok()
}

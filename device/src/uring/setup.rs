//! Whether this machine gives us a ring, with which setup, and if not, why.
//!
//! A ring that can be set up may still be forbidden to run (a filter on `io_uring_enter`), so one no-op goes through it.

use super::DEPTH;
use super::transfer::pass_nop;
use io_uring::{IoUring, Probe, opcode};
use std::io;

/// What a ring of this machine can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// The setup flags that the kernel took.
    pub setup: &'static str,
    /// Features that matter to a log, by the kernel's names, and whether they are there.
    pub features: Vec<(&'static str, bool)>,
    /// Operations that matter to a log, by the kernel's names, and whether they are there.
    pub opcodes: Vec<(&'static str, bool)>,
}

/// Why there is no ring, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RingUnavailable(String);

/// Sets up a ring, tries it and lets it go.
pub fn probe() -> Result<RingFeatures, RingUnavailable> {
    open_ring().map(|(_ring, features)| features)
}

pub(super) fn open_ring() -> Result<(IoUring, RingFeatures), RingUnavailable> {
    let (mut ring, setup) = build_ring().map_err(|error| RingUnavailable(why_not(&error)))?;
    pass_nop(&mut ring).map_err(|error| RingUnavailable(format!("io_uring_enter: {error}")))?;
    let mut known = Probe::new();
    ring.submitter()
        .register_probe(&mut known)
        .map_err(|error| RingUnavailable(format!("probing operations: {error}")))?;
    let has = |code| known.is_supported(code);
    if !has(opcode::Read::CODE) || !has(opcode::Write::CODE) {
        return Err(RingUnavailable("this kernel's io_uring has no plain read and write".to_owned()));
    }
    let features = RingFeatures {
        setup,
        features: vec![
            ("NODROP", ring.params().is_feature_nodrop()),
            ("SUBMIT_STABLE", ring.params().is_feature_submit_stable()),
            ("EXT_ARG", ring.params().is_feature_ext_arg()),
            ("NATIVE_WORKERS", ring.params().is_feature_native_workers()),
            ("LINKED_FILE", ring.params().is_feature_linked_file()),
        ],
        opcodes: vec![
            ("READ", has(opcode::Read::CODE)),
            ("WRITE", has(opcode::Write::CODE)),
            ("READ_FIXED", has(opcode::ReadFixed::CODE)),
            ("WRITE_FIXED", has(opcode::WriteFixed::CODE)),
            ("FSYNC", has(opcode::Fsync::CODE)),
            ("FALLOCATE", has(opcode::Fallocate::CODE)),
        ],
    };
    Ok((ring, features))
}

/// Setup flags downward: an older kernel answers `EINVAL` to those that it does not know.
pub(super) fn build_ring() -> io::Result<(IoUring, &'static str)> {
    let entries = DEPTH as u32;
    let best = IoUring::builder().setup_submit_all().setup_coop_taskrun().dontfork().build(entries);
    match best {
        Ok(ring) => Ok((ring, "SUBMIT_ALL|COOP_TASKRUN")),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok((IoUring::builder().dontfork().build(entries)?, "plain"))
        }
        Err(error) => Err(error),
    }
}

fn why_not(error: &io::Error) -> String {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match switch.trim() {
        "2" => format!("kernel.io_uring_disabled is 2 ({error})"),
        "1" => format!("kernel.io_uring_disabled is 1 and this user is not in its group ({error})"),
        _ => format!("io_uring_setup: {error}"),
    }
}

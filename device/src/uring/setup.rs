//! Whether this machine gives us a ring, with which setup, and if not, why.
//!
//! A ring that can be set up may still be forbidden to run (a filter on `io_uring_enter`), so one no-op goes through
//! it.
#![expect(unsafe_code, reason = "registers memory with the kernel")]

use super::DEPTH;
use super::transfer::pass_nop;
use crate::arena::{ARENA_BYTES, Arena};
use io_uring::{IoUring, Probe, opcode};
use std::io;
use std::sync::Arc;

/// What a ring of this machine can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingFeatures {
    /// The setup flags that the kernel took.
    pub setup: &'static str,
    /// Features that matter to a log, by the kernel's names, and whether they are there.
    pub features: Vec<(&'static str, bool)>,
    /// Operations that matter to a log, by the kernel's names, and whether they are there.
    pub opcodes: Vec<(&'static str, bool)>,
    /// How many bytes of buffers are registered with the ring, or why none.
    pub registered_bytes: Result<usize, String>,
}

/// A ring, and the memory that is registered with it, if any is.
pub(super) struct Ring {
    pub(super) uring: IoUring,
    /// Held at least as long as the ring: what is registered stays where it is.
    arena: Option<Arc<Arena>>,
}

impl Ring {
    /// Registers the memory, which counts against `RLIMIT_MEMLOCK`; refused, the ring works without.
    fn register(&mut self, arena: &Arc<Arena>) -> io::Result<()> {
        let whole = libc::iovec { iov_base: arena.start().cast(), iov_len: ARENA_BYTES };
        // SAFETY: the mapping lives as long as `self.arena`, which is dropped after the ring (field order); the pages
        // are pinned, and nothing else is ever mapped at their address meanwhile.
        unsafe { self.uring.submitter().register_buffers(&[whole]) }?;
        self.arena = Some(Arc::clone(arena));
        Ok(())
    }

    /// Whether it has registered memory.
    pub(super) fn is_registered(&self) -> bool {
        self.arena.is_some()
    }

    /// Whether `bytes` lie in what is registered, as buffer 0.
    pub(super) fn has_registered(&self, bytes: &[u8]) -> bool {
        self.arena.as_ref().is_some_and(|arena| arena.holds(bytes))
    }
}

/// Why there is no ring, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RingUnavailable(String);

/// Sets up a ring, tries it and lets it go.
pub fn probe() -> Result<RingFeatures, RingUnavailable> {
    open_ring(Arena::new().as_ref()).map(|(_ring, features)| features)
}

/// The first ring, tried out, with `arena` registered if it may be.
pub(super) fn open_ring(arena: Option<&Arc<Arena>>) -> Result<(Ring, RingFeatures), RingUnavailable> {
    let (mut ring, setup) = build_ring().map_err(|error| RingUnavailable(why_not(&error)))?;
    pass_nop(&mut ring.uring).map_err(|error| RingUnavailable(format!("io_uring_enter: {error}")))?;
    let mut known = Probe::new();
    ring.uring
        .submitter()
        .register_probe(&mut known)
        .map_err(|error| RingUnavailable(format!("probing operations: {error}")))?;
    let has = |code| known.is_supported(code);
    if !has(opcode::Read::CODE) || !has(opcode::Write::CODE) {
        return Err(RingUnavailable("this kernel's io_uring has no plain read and write".to_owned()));
    }
    let registered_bytes = match arena {
        None => Err("no memory to register".to_owned()),
        Some(_) if !has(opcode::WriteFixed::CODE) => Err("this kernel's io_uring has no WRITE_FIXED".to_owned()),
        Some(arena) => ring.register(arena).map(|()| ARENA_BYTES).map_err(|error| told(&error)),
    };
    let params = ring.uring.params();
    let features = RingFeatures {
        setup,
        features: vec![
            ("NODROP", params.is_feature_nodrop()),
            ("SUBMIT_STABLE", params.is_feature_submit_stable()),
            ("EXT_ARG", params.is_feature_ext_arg()),
            ("NATIVE_WORKERS", params.is_feature_native_workers()),
            ("LINKED_FILE", params.is_feature_linked_file()),
        ],
        opcodes: vec![
            ("READ", has(opcode::Read::CODE)),
            ("WRITE", has(opcode::Write::CODE)),
            ("WRITE_FIXED", has(opcode::WriteFixed::CODE)),
            ("FSYNC", has(opcode::Fsync::CODE)),
            ("FALLOCATE", has(opcode::Fallocate::CODE)),
        ],
        registered_bytes,
    };
    Ok((ring, features))
}

/// Setup flags downward: an older kernel answers `EINVAL` to those that it does not know.
pub(super) fn build_ring() -> io::Result<(Ring, &'static str)> {
    let entries = DEPTH as u32;
    let bare = |uring| Ring { uring, arena: None };
    let best = IoUring::builder().setup_submit_all().setup_coop_taskrun().dontfork().build(entries);
    match best {
        Ok(ring) => Ok((bare(ring), "SUBMIT_ALL|COOP_TASKRUN")),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            Ok((bare(IoUring::builder().dontfork().build(entries)?), "plain"))
        }
        Err(error) => Err(error),
    }
}

/// Rings and registered memory both count against `RLIMIT_MEMLOCK`.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::OutOfMemory => format!("over the limit of locked memory ({error})"),
        _ => error.to_string(),
    }
}

fn why_not(error: &io::Error) -> String {
    let switch = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    match switch.trim() {
        "2" => format!("kernel.io_uring_disabled is 2 ({error})"),
        "1" => format!("kernel.io_uring_disabled is 1 and this user is not in its group ({error})"),
        _ => format!("io_uring_setup: {}", told(error)),
    }
}

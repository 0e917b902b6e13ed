//! Where the kernel denies the ring, as many containers do, the blocking device takes over and says why. What else may be
//! refused, `RWF_DSYNC` and direct I/O, has a way around too, and leaves the same bytes.
#![expect(unsafe_code, reason = "installs a system call filter, in a child process")]

use super::{assert_passed, child_argument, in_child, pattern};
use oncelog_device::{DeviceErrorKind as Kind, DeviceKind, MachineReport, OpenMode, Sync, open_device};
use std::ffi::{c_int, c_ulong};

#[repr(C)]
struct Instruction {
    code: u16,
    jump_true: u8,
    jump_false: u8,
    value: u32,
}

#[repr(C)]
struct Program {
    length: u16,
    instructions: *const Instruction,
}

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

/// Answers `errno` to the system call `number`, or only where its second argument has a bit of `mask`; for this process
/// and for good.
fn deny(number: u32, mask: Option<u32>, errno: u32) {
    const PR_SET_NO_NEW_PRIVS: c_int = 38;
    const PR_SET_SECCOMP: c_int = 22;
    const MODE_FILTER: c_ulong = 2;
    let step = |code, jump_false, value| Instruction { code, jump_true: 0, jump_false, value };
    let masked = match mask {
        Some(mask) => step(0x45, 1, mask),
        None => step(0x35, 1, 0), // at least 0: always
    };
    let instructions = [
        step(0x20, 0, 0),                   // load the number of the call
        step(0x15, 3, number),              // if it is not the one, go to the last
        step(0x20, 0, 24),                  // load the second argument's lower half
        masked,                             // if it has no bit of the mask, go to the last
        step(0x06, 0, 0x0005_0000 | errno), // return this error
        step(0x06, 0, 0x7fff_0000),         // allow
    ];
    let program = Program { length: 6, instructions: instructions.as_ptr() };
    // SAFETY: the first call takes plain numbers. The second reads a `sock_fprog`, whose layout `Program` repeats, and the
    // instructions behind it, both alive here; the kernel copies them before it returns.
    let denied = unsafe {
        let (one, zero): (c_ulong, c_ulong) = (1, 0);
        prctl(PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) == 0
            && prctl(PR_SET_SECCOMP, MODE_FILTER, std::ptr::from_ref(&program)) == 0
    };
    assert!(denied, "{}", std::io::Error::last_os_error());
}

fn assert_falls_back() {
    let device = open_device(DeviceKind::Auto).expect("a device");
    assert_eq!(device.kind(), DeviceKind::Blocking);
    let line = device.describe();
    assert!(line.contains("no io_uring: ") && !line.contains('\n'), "{line}");
    let error = open_device(DeviceKind::Uring).map(|_device| ()).expect_err("none here");
    assert_eq!(error.kind(), Kind::Unsupported);
    let report = MachineReport::inspect(&[], 1);
    assert_eq!(report.auto, DeviceKind::Blocking);
    assert!(report.ring.is_err());
    let directory = tempfile::tempdir().expect("a directory");
    let file = device.open(&directory.path().join("a.log"), OpenMode::Create).expect("created");
    file.prepare(0, 4096).expect("prepared");
    file.write(0, &pattern(4096, 1), 4096, Sync::Data).expect("written");
}

const IO_URING_SETUP: u32 = 425;
const IO_URING_ENTER: u32 = 426;
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

#[test]
fn a_denied_setup_makes_auto_choose_blocking() {
    match child_argument().as_deref() {
        None => {
            for errno in [EPERM, ENOSYS] {
                assert_passed(&in_child("denied_ring::a_denied_setup_makes_auto_choose_blocking", &errno.to_string()));
            }
        }
        Some(errno) => {
            deny(IO_URING_SETUP, None, errno.parse().expect("a number"));
            assert_falls_back();
        }
    }
}

#[test]
fn a_ring_that_can_be_set_up_but_not_entered_is_no_ring() {
    match child_argument() {
        None => assert_passed(&in_child("denied_ring::a_ring_that_can_be_set_up_but_not_entered_is_no_ring", "-")),
        Some(_) => {
            deny(IO_URING_ENTER, None, EPERM);
            assert_falls_back();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod refused {
    use super::super::{assert_passed, child_argument, in_child, same_bytes};
    use super::{ENOSYS, deny};

    const OPEN: u32 = 2;
    const PWRITEV2: u32 = 328;
    const O_DIRECT: u32 = 0x4000;
    const EINVAL: u32 = 22;
    const EOPNOTSUPP: u32 = 95;

    #[test]
    fn refused_dsync_writes_become_a_write_and_a_sync() {
        match child_argument().as_deref() {
            None => {
                for errno in [EOPNOTSUPP, ENOSYS] {
                    let name = "denied_ring::refused::refused_dsync_writes_become_a_write_and_a_sync";
                    assert_passed(&in_child(name, &errno.to_string()));
                }
            }
            Some(errno) => {
                deny(PWRITEV2, None, errno.parse().expect("a number"));
                same_bytes::run_script();
            }
        }
    }

    #[test]
    fn refused_direct_writes_go_through_the_page_cache_and_that_is_said() {
        match child_argument() {
            None => {
                let name = "denied_ring::refused::refused_direct_writes_go_through_the_page_cache_and_that_is_said";
                assert_passed(&in_child(name, "-"));
            }
            Some(_) => {
                deny(OPEN, Some(O_DIRECT), EINVAL);
                for line in same_bytes::run_script() {
                    assert!(line.contains("O_DIRECT refused at open"), "{line}");
                }
            }
        }
    }
}

//! Where the kernel denies the ring, as many containers do, the blocking device takes over and says why. What else may
//! be refused, `RWF_DSYNC` and direct I/O, has a way around too, and leaves the same bytes.

use super::{assert_passed, child_argument, in_child, pattern};
use oncelog_device::{
    Device, DeviceErrorKind as Kind, DeviceKind, LaneWrite, MachineReport, OpenMode, Sync, UringDevice, open_device,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

/// Answers `errno` to the system call `number`, or only where its second argument has the bit `mask`; for this thread
/// and what it starts, and for good.
fn deny(number: i64, mask: Option<u64>, errno: u32) {
    let masked = |mask| {
        let condition = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(mask), mask);
        SeccompRule::new(vec![condition.expect("a second argument")]).expect("one condition")
    };
    let rules = [(number, mask.map(masked).into_iter().collect())].into();
    let architecture = std::env::consts::ARCH.try_into().expect("one that filters are made for");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), architecture);
    let program: BpfProgram = filter.expect("a filter").try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("the kernel takes it");
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

const IO_URING_SETUP: i64 = 425;
const IO_URING_ENTER: i64 = 426;
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

/// What is on the way then may never be heard of again: it has failed. What comes later goes another way.
#[test]
fn a_lane_that_may_be_entered_no_more_answers_for_every_write() {
    match child_argument() {
        None => {
            assert_passed(&in_child("denied_ring::a_lane_that_may_be_entered_no_more_answers_for_every_write", "-"))
        }
        Some(_) => {
            let Ok(device) = UringDevice::new() else { return };
            let directory = tempfile::tempdir().expect("a directory");
            let mut lane = device.lane().expect("a lane beside a ring").bind();
            let file = device.open(&directory.path().join("a.log"), OpenMode::Create).expect("created");
            file.prepare(0, 10 * 4096).expect("prepared");
            let write = |tag: u64| {
                let (file, buffer) = (file.clone(), pattern(4096, tag));
                LaneWrite { tag, file, position: tag * 4096, buffer, length: 4096, sync: Sync::Data }
            };
            (0..8).for_each(|tag| lane.push(write(tag)));
            let mut landed = lane.wait(None, || true);
            deny(IO_URING_ENTER, None, EPERM);
            lane.push(write(8));
            let started = std::time::Instant::now();
            while landed.len() < 9 {
                assert!(started.elapsed().as_secs() < 20, "{} of 9", landed.len());
                landed.extend(lane.wait(None, || false));
            }
            lane.push(write(9));
            landed.extend(lane.wait(None, || false));
            assert!(matches!(landed.last(), Some((write, Ok(()))) if write.tag == 9));
            drop(lane);
            for (write, _) in landed.iter().filter(|(_, result)| result.is_ok()) {
                let mut stored = [0; 4096];
                file.read(write.position, &mut stored).expect("readable");
                assert!(stored[..] == write.buffer.as_slice()[..4096], "write {}", write.tag);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod refused {
    use super::super::{assert_passed, child_argument, in_child, same_bytes};
    use super::{ENOSYS, deny};

    const OPEN: i64 = 2;
    const PWRITEV2: i64 = 328;
    const O_DIRECT: u64 = 0x4000;
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

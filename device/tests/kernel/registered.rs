//! Buffers registered with the ring: used where locked memory allows, done without where it does not, the same bytes.

use super::{assert_passed, child_argument, in_child, same_bytes};
use oncelog_device::{DeviceKind, MachineReport, UringDevice, open_device};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

/// For this thread and for good: no more than `bytes` of locked memory, for root too.
fn limit_locked_memory(bytes: u64) {
    let mut sets = capabilities(None).expect("known");
    sets.effective.remove(CapabilitySet::IPC_LOCK);
    set_capabilities(None, sets).expect("less is always allowed");
    setrlimit(Resource::Memlock, Rlimit { current: Some(bytes), maximum: Some(bytes) }).expect("lowered");
}

#[test]
fn buffers_are_registered_where_locked_memory_allows() {
    if let Err(why) = UringDevice::new() {
        println!("skipped: {why}");
        return;
    }
    let name = "registered::buffers_are_registered_where_locked_memory_allows";
    let Some(limit_bytes) = child_argument() else {
        assert_passed(&in_child(name, "1048576"));
        // The user's other processes count too, so what is allowed may be taken.
        match getrlimit(Resource::Memlock).current {
            Some(bytes) if bytes < 64 << 20 && !rustix::process::geteuid().is_root() => {
                println!("skipped the half with registered buffers: {bytes} bytes of locked memory");
            }
            _ => assert_passed(&in_child(name, "unlimited")),
        }
        return;
    };
    let limited = limit_bytes.parse().map(limit_locked_memory).is_ok();
    let line = open_device(DeviceKind::Auto).expect("a device").describe();
    let registered = MachineReport::inspect(&[], 1).ring.map(|ring| ring.registered_bytes);
    if !limited {
        assert!(line.contains("4194304 bytes of registered buffers"), "{line}");
        assert_eq!(registered, Ok(Ok(4 << 20)));
    } else if rustix::process::geteuid().is_root() {
        assert!(line.contains("no registered buffers: over the limit of locked memory"), "{line}");
        assert!(matches!(registered, Ok(Err(_))), "{registered:?}");
    } else {
        // Another user's other processes count too: there may be no room for a ring at all.
        assert!(line.contains("over the limit of locked memory"), "{line}");
    }
    same_bytes::run_script();
}

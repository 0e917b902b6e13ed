//! Out of space: typed, nothing half done left behind, and work goes on when space returns.
#![expect(unsafe_code, reason = "sets a signal's disposition, in a child process")]

use super::{BLOCK, assert_passed, child_argument, devices, in_child, pattern};
use oncelog_device::{Device, OpenMode, Sync};
use std::ffi::c_int;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

fn prepare_until_full(device: &dyn Device, directory: &Path, too_much: u64) {
    let path = directory.join("a.log");
    let file = device.open(&path, OpenMode::Create).expect("created");
    file.prepare(0, 16 * BLOCK).expect("fits");
    file.write(0, &pattern(4096, 3), 4096, Sync::Data).expect("written");
    let error = file.prepare(16 * BLOCK, too_much).expect_err("does not fit");
    assert!(error.is_full(), "{error}");
    assert_eq!(file.length().expect("known"), 16 * BLOCK, "back at its old length");
    file.prepare(16 * BLOCK, 32 * BLOCK).expect("what fits, fits again");
    let mut read = vec![0; 4096];
    assert_eq!(file.read(0, &mut read).expect("read"), 4096);
    assert!(read == *pattern(4096, 3).as_slice(), "what stood there stands");
    device.remove(&path).expect("removed");
}

#[test]
fn a_full_tmpfs_is_no_failure() {
    let directory = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=8m", "none"]).arg(directory.path()).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs to be mounted here: {mounted:?}");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        for device in devices() {
            prepare_until_full(device.as_ref(), directory.path(), 64 << 20);
            let error = device.write_small(&directory.path().join("big"), &vec![1; 16 << 20]).expect_err("full");
            assert!(error.is_full(), "{error}");
            assert!(device.list(directory.path()).expect("listed").is_empty(), "no temporary is left");
        }
    });
    let unmounted = Command::new("umount").arg(directory.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    outcome.expect("the story holds");
}

unsafe extern "C" {
    fn signal(number: c_int, handler: usize) -> usize;
}

/// For this process and for good: a write beyond `bytes` answers `EFBIG`.
fn limit_file_size(bytes: u64) {
    const SIGXFSZ: c_int = 25;
    const IGNORE: usize = 1;
    // SAFETY: sets a signal's disposition to "ignore"; installs no handler, touches no memory.
    unsafe { signal(SIGXFSZ, IGNORE) };
    let limit = rustix::process::Rlimit { current: Some(bytes), maximum: Some(bytes) };
    rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).expect("lowered");
}

#[test]
fn a_file_size_limit_is_like_a_full_disk() {
    let Some(directory) = child_argument() else {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().to_str().expect("UTF-8");
        assert_passed(&in_child("full::a_file_size_limit_is_like_a_full_disk", name));
        return;
    };
    limit_file_size(8 << 20);
    for device in devices() {
        prepare_until_full(device.as_ref(), Path::new(&directory), 64 << 20);
    }
}

/// Lowers the limit below the prepared length: of the pieces in flight some succeed, one comes up short, the rest fail.
#[test]
fn a_large_write_of_which_some_pieces_fail_is_a_failed_write() {
    let Some(directory) = child_argument() else {
        let directory = tempfile::tempdir().expect("a directory");
        let name = directory.path().to_str().expect("UTF-8");
        assert_passed(&in_child("full::a_large_write_of_which_some_pieces_fail_is_a_failed_write", name));
        return;
    };
    let open = |(number, device): (usize, Arc<dyn Device>)| {
        let path = Path::new(&directory).join(format!("{number}.log"));
        let file = device.open(&path, OpenMode::Create).expect("created");
        file.prepare(0, 8 << 20).expect("prepared");
        file
    };
    let files: Vec<_> = devices().into_iter().enumerate().map(open).collect();
    limit_file_size((1 << 20) + 8192 + 512);
    for file in files {
        for (position, sync) in [(0, Sync::None), (0, Sync::Data), (1 << 20, Sync::None), (3 << 20, Sync::Data)] {
            let error = file.write(position, &pattern(4 << 20, 7), 4 << 20, sync).expect_err("not all of it");
            assert!(error.is_full(), "{error}");
        }
        // The ring is as good as new.
        file.write(0, &pattern(1 << 20, 8), 1 << 20, Sync::Data).expect("below the limit");
        let mut read = vec![0; 1 << 20];
        assert_eq!(file.read(0, &mut read).expect("read"), 1 << 20);
        assert!(read == *pattern(1 << 20, 8).as_slice());
    }
}

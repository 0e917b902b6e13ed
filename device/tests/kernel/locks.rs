//! One holder at a time, between processes and within one.

use super::{child_argument, devices, in_child};
use oncelog_device::{BlockingDevice, Device, DeviceErrorKind as Kind};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_lock_excludes_within_the_process_until_it_is_dropped() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(".lock");
        let held = device.lock(&path).expect("free");
        let started = Instant::now();
        assert_eq!(device.lock(&path).expect_err("held").kind(), Kind::Locked);
        let patience = started.elapsed();
        assert!(patience >= Duration::from_millis(900) && patience < Duration::from_secs(10), "{patience:?}");
        drop(held);
        device.lock(&path).expect("free again");
    }
}

/// In the child: takes the lock, says so, keeps it until its input ends.
#[test]
fn the_holder() {
    let Some(path) = child_argument() else { return };
    let _held = BlockingDevice::new().lock(Path::new(&path)).expect("free");
    println!("held");
    std::io::stdout().flush().expect("told");
    let _end = std::io::stdin().lines().count();
}

#[test]
fn a_lock_excludes_other_processes_and_a_killed_one_frees_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(".lock");
    let mut holder = Command::new(std::env::current_exe().expect("this binary"))
        .args(["locks::the_holder", "--exact", "--nocapture"])
        .env(super::CHILD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(holder.stdout.take().expect("piped")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("held"))));
    let device = BlockingDevice::new();
    assert_eq!(device.lock(&path).expect_err("held by the child").kind(), Kind::Locked);
    let refused = in_child("locks::the_holder", path.to_str().expect("UTF-8"));
    assert!(!refused.status.success(), "a second child must not get it");
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        holder.kill().expect("killed");
        holder.wait().expect("gone");
    });
    device.lock(&path).expect("free within the patience, once the holder is dead");
    killer.join().expect("killed");
}

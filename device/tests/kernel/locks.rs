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

/// Takes the lock as Kafka's `org.apache.kafka.server.util.FileLock` does, says whether it has it, keeps it until its
/// input ends.
const KAFKAS_LOCK: &str = r#"
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import static java.nio.file.StandardOpenOption.*;

class KafkasLock {
    public static void main(String[] arguments) throws Exception {
        try (var channel = FileChannel.open(Path.of(arguments[0]), CREATE, READ, WRITE)) {
            System.out.println(channel.tryLock() == null ? "refused" : "held");
            while (System.in.read() >= 0) {}
        }
    }
}
"#;

/// Java with a lock file as its argument; answers what it said and the process.
fn java(directory: &Path, lock: &Path) -> (String, std::process::Child) {
    let source = directory.join("KafkasLock.java");
    std::fs::write(&source, KAFKAS_LOCK).expect("written");
    let mut child = Command::new("java")
        .arg(&source)
        .arg(lock)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Java starts");
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut said).expect("text");
    (said.trim_end().to_owned(), child)
}

#[test]
fn a_kafka_broker_and_an_engine_keep_each_other_out() {
    // `javac` tells that Java can run a source file.
    if !Command::new("javac").arg("-version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no Java that runs source files");
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(".lock");
    let device = BlockingDevice::new();
    let ours = device.lock(&path).expect("free");
    // Another descriptor of the file comes and goes; a POSIX lock of ours would go with it.
    drop(std::fs::File::open(&path).expect("readable"));
    let (said, mut kafka) = java(directory.path(), &path);
    assert_eq!(said, "refused");
    drop(kafka.stdin.take());
    assert!(kafka.wait().expect("ended").success());
    drop(ours);

    let (said, mut kafka) = java(directory.path(), &path);
    assert_eq!(said, "held");
    assert_eq!(device.lock(&path).expect_err("Kafka has it").kind(), Kind::Locked);
    kafka.kill().expect("killed");
    device.lock(&path).expect("free within the patience, once Kafka is dead");
    kafka.wait().expect("gone");
}

//! Where io_uring is denied, the command says so, works as well, and leaves the same bytes.

mod common;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const IO_URING_SETUP: i64 = 425;
const EPERM: u32 = 1;
/// Turns the test into its own child process.
const CHILD: &str = "ONCELOG_TEST_CHILD";

/// For this thread and what it starts, for good.
fn deny_rings() {
    let rules = [(IO_URING_SETUP, Vec::new())].into();
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(EPERM), architecture).unwrap();
    let program: BpfProgram = filter.try_into().unwrap();
    seccompiler::apply_filter(&program).unwrap();
}

/// The device that `auto` takes here, and why.
fn chosen(root: &Path) -> (String, String) {
    let doctor = Command::new(env!("CARGO_BIN_EXE_oncelog")).args(["doctor", "--json"]).arg(root).output().unwrap();
    assert!(doctor.status.success());
    let report: Value = serde_json::from_slice(&doctor.stdout).unwrap();
    (report["device"].as_str().unwrap().to_owned(), report["device_reason"].as_str().unwrap().to_owned())
}

/// Rolls, a transaction, a truncation, a moved log start, a kill, a clean close. Batches large enough that a ring
/// splits their group.
fn workload(root: &Path) {
    let batch = |producer: i64, sequence: i64, transactional: bool, bytes: usize| {
        let record = json!({"value": "v".repeat(bytes), "timestamp": 1000});
        json!({"op": "append", "as": "client", "batches": [{"producer_id": producer, "producer_epoch": 0,
               "base_sequence": sequence, "transactional": transactional, "records": [record]}]})
    };
    let config = json!({"segment_bytes": 1 << 20, "transaction_partition_verification_enable": false,
        "high_watermark_follows_end": true});
    let mut script = vec![json!({"op": "clock", "ms": 1000}), json!({"op": "open", "dir": "t-0", "config": config})];
    script.extend((0..12).map(|sequence| batch(1, sequence, false, if sequence % 4 == 3 { 700_000 } else { 500 })));
    script.push(batch(2, 0, true, 100));
    script.push(json!({"op": "append", "as": "coordinator",
        "batches": [{"control": "abort", "producer_id": 2, "producer_epoch": 0, "timestamp": 1000}]}));
    script.push(json!({"op": "truncate_to", "offset": 13}));
    script.push(json!({"op": "sync"}));
    script.push(json!({"op": "delete_records", "before_offset": 2}));
    script.push(json!({"op": "kill"}));
    script.push(json!({"op": "open", "dir": "t-0", "config": config}));
    script.extend((12..20).map(|sequence| batch(1, sequence, false, 300_000)));
    script.push(json!({"op": "close"}));
    common::play(root, "auto", &script);
}

fn files(directory: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>, root: &Path) {
    for entry in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            files(&entry, into, root);
        } else {
            into.insert(entry.strip_prefix(root).unwrap().to_owned(), std::fs::read(&entry).unwrap());
        }
    }
}

#[test]
fn a_denied_ring_changes_no_byte() {
    if let Ok(root) = std::env::var(CHILD) {
        deny_rings();
        let (device, why) = chosen(Path::new(&root));
        assert!(device == "blocking" && why.contains("no io_uring"), "{device}: {why}");
        return workload(Path::new(&root));
    }
    let (here, denied) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    println!("with: {:?}", chosen(here.path()));
    workload(here.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["a_denied_ring_changes_no_byte", "--exact", "--nocapture"])
        .env(CHILD, denied.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    files(here.path(), &mut ours, here.path());
    files(denied.path(), &mut theirs, denied.path());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    assert!(ours.len() > 10, "{:?}", ours.keys());
    for (name, bytes) in &ours {
        assert!(bytes == &theirs[name], "{} differs", name.display());
    }
}

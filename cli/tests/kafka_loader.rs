//! Directories that oncelog wrote, as Kafka's own loader sees them: after a clean close and as after a crash.
//!
//! Needs Java, Maven (for Kafka's jars, fetched once) and Python; says why it is skipped where one is missing.

mod common;
mod kafka;

use kafka::{missing, testdata};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const SEGMENT_BYTES: u64 = 1500;

/// Four producers, one without an id, two with transactions, over several segments and leader epochs. All records are
/// of one time: Kafka's snapshots keep a marker's time instead of the batch's own.
fn workload(end: &str) -> Vec<Value> {
    let config = json!({"segment_bytes": SEGMENT_BYTES, "transaction_partition_verification_enable": false});
    let mut script = vec![json!({"op": "clock", "ms": 1000}), json!({"op": "open", "dir": "t-0", "config": config})];
    let mut sequences = BTreeMap::new();
    for round in 0..12 {
        let leader_epoch = round / 5;
        let append = |origin: &str, batch: Value| json!({"op": "append", "as": origin, "leader_epoch": leader_epoch, "batches": [batch]});
        for (id, count, transactional) in [(1, 2, false), (2, 3, true), (3, 1, true)] {
            let sequence = sequences.entry(id).or_insert(0);
            let records: Vec<Value> = (0..count)
                .map(|i| json!({"key": format!("k{i}"), "value": format!("value-{round}"), "timestamp": 1000}))
                .collect();
            let batch = json!({"producer_id": id, "producer_epoch": 0, "base_sequence": *sequence, "transactional": transactional, "records": records});
            *sequence += count;
            script.push(append("client", batch));
        }
        script.push(append("client", json!({"records": [{"value": "plain", "timestamp": 1000}]})));
        let mut finish = |id: i64, control: &str| {
            script.push(append(
                "coordinator",
                json!({"control": control, "producer_id": id, "producer_epoch": 0, "timestamp": 1000}),
            ));
        };
        if round % 3 == 2 {
            finish(2, if round % 2 == 1 { "abort" } else { "commit" });
        }
        if round == 3 || round == 7 {
            finish(3, "abort");
        }
        if round == 6 {
            script.push(json!({"op": "sync"}));
        }
    }
    script.push(json!({"op": end}));
    script
}

/// What Kafka's loader says of a copy of the directory.
fn load(partition: &Path, arguments: &[&str], to: &Path) -> Value {
    let output = Command::new(testdata().join("verify/verify.sh"))
        .args(["--config", &format!("internal.segment.bytes={SEGMENT_BYTES}")])
        .args(arguments)
        .arg(partition)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut document: Value = serde_json::from_slice(&output.stdout).unwrap();
    // How the loader was told that the log was closed, not what it found.
    document.as_object_mut().unwrap().remove("clean");
    std::fs::write(to, document.to_string()).unwrap();
    document
}

fn compare(partition: &Path, loaded: &Path) {
    let dump = Command::new(env!("CARGO_BIN_EXE_oncelog")).args(["dump", "--json"]).arg(partition).output().unwrap();
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let ours = loaded.with_extension("ours.json");
    std::fs::write(&ours, &dump.stdout).unwrap();
    let checked = Command::new("python3")
        .arg(testdata().join("tools/check.py"))
        .arg("--compare")
        .arg(loaded)
        .arg(&ours)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn kafkas_loader_sees_what_was_written() {
    if let Some(reason) = missing("verify/verify.sh") {
        println!("skipped: {reason}");
        return;
    }
    for end in ["close", "kill"] {
        let root = tempfile::tempdir().unwrap();
        common::play(root.path(), "blocking", &workload(end));
        let partition = root.path().join("t-0");
        let unclean = root.path().join("unclean.json");
        let loaded = load(&partition, &["--unclean", "--recovery-point", "0"], &unclean);
        assert!(loaded["segments"].as_array().unwrap().len() > 2, "{end}");
        compare(&partition, &unclean);
        if end == "close" {
            let clean = root.path().join("clean.json");
            load(&partition, &[], &clean);
            compare(&partition, &clean);
        }
    }
}

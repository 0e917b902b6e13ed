//! A transaction that nobody ends is seen, explained, found and ended by hand.

mod common;

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

const BEGAN_MS: i64 = 1_000_000;

fn oncelog(arguments: &[&str], dir: &Path) -> (i32, Value) {
    let (command, rest) = arguments.split_first().unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_oncelog")).arg(command).arg(dir).args(rest).arg("--json").output().unwrap();
    let code = output.status.code().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(code == 2 || errors.is_empty(), "{errors}");
    (code, serde_json::from_slice(&output.stdout).unwrap_or(Value::String(errors)))
}

/// Producer 7 has a transaction open from offset 1 on, in epoch 3; producer 8 committed one behind its start.
fn write(root: &Path, end: &str) {
    let txn = |id: i64, epoch: i64| {
        json!({"op": "append", "as": "client", "batches": [{"producer_id": id, "producer_epoch": epoch, "base_sequence": 0,
               "transactional": true, "records": [{"value": "v"}]}]})
    };
    let commit = json!({"op": "append", "as": "coordinator", "batches": [{"control": "commit", "producer_id": 8, "producer_epoch": 0}]});
    let config = json!({"transaction_partition_verification_enable": false, "high_watermark_follows_end": true});
    let script = [
        json!({"op": "clock", "ms": BEGAN_MS}),
        json!({"op": "open", "dir": "t-0", "config": config}),
        json!({"op": "append", "as": "client", "batches": [{"records": [{"value": "plain"}]}]}),
        txn(7, 3),
        txn(8, 0),
        commit,
        json!({"op": end}),
    ];
    common::play(root, "blocking", &script);
}

#[test]
fn from_seen_to_ended_by_hand() {
    for end in ["close", "kill"] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), end);
        let dir = root.path().join("t-0");
        let now = |later_ms: i64| (BEGAN_MS + later_ms).to_string();

        let (code, listed) = oncelog(&["transactions", "--now", &now(5_000)], &dir);
        assert_eq!(code, 0);
        let open = listed["transactions"].as_array().unwrap();
        assert_eq!(open.len(), 1, "{listed}");
        let shown = ["producer_id", "producer_epoch", "first_offset", "age_ms", "idle_ms"].map(|name| &open[0][name]);
        assert_eq!(shown, [&json!(7), &json!(3), &json!(1), &json!(5_000), &json!(5_000)]);
        // Two batches of one record with one byte, and a marker.
        assert_eq!(open[0]["bytes_held_back"], 2 * 69 + 78);

        let (code, why) = oncelog(&["explain", "--now", &now(5_000)], &dir);
        assert_eq!((code, &why["held_by"]["producer_id"]), (0, &json!(7)));
        assert_eq!((&why["last_stable_offset"], &why["high_watermark"]), (&json!(1), &json!(4)));
        assert_eq!(why["transaction"]["age_ms"], 5_000);
        assert!(why["released_by"].as_str().unwrap().contains("producer 7"), "{why}");

        let limit = ["--max-transaction-timeout-ms", "60000"];
        let find = |later_ms| oncelog(&["find-hanging", limit[0], limit[1], "--now", &now(later_ms)], &dir);
        assert_eq!(find(60_000), (0, json!({"hanging": []})));
        let (code, found) = find(60_001);
        assert_eq!((code, &found["hanging"][0]["producer_id"]), (1, &json!(7)));

        let (code, text) = oncelog(&["abort", "--producer-id", "8"], &dir);
        assert_eq!(code, 2, "{text}");
        let (code, done) = oncelog(&["abort", "--producer-id", "7"], &dir);
        assert_eq!(code, 0, "{done}");
        assert_eq!((&done["first_offset"], &done["marker_offset"]), (&json!(1), &json!(4)));
        assert_eq!((&done["producer_epoch"], &done["last_stable_offset"]), (&json!(3), &json!(5)));

        let (code, why) = oncelog(&["explain"], &dir);
        assert_eq!((code, &why["held_by"], &why["last_stable_offset"]), (0, &Value::Null, &json!(5)));
        let read = Command::new(env!("CARGO_BIN_EXE_oncelog")).arg("read").arg(&dir).arg("--values").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&read.stdout), "plain\nv\n", "only what was committed");
    }
}

/// Kafka's own directory with a transaction left open: found without a broker.
#[test]
fn a_transaction_that_kafka_left_open_is_found() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka/golden");
    let partition = golden.join("txn-mixed/txn-mixed-0");
    let (code, found) = oncelog(&["find-hanging"], &partition);
    assert_eq!(code, 1);
    assert_eq!(found["hanging"].as_array().unwrap().len(), 1);
    assert_eq!(found["hanging"][0]["first_offset"], 1395);
    let (code, why) = oncelog(&["explain"], &partition);
    assert_eq!((code, &why["last_stable_offset"]), (0, &json!(1395)));
}

/// Every file below a directory with what is in it.
fn files(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => found.extend(files(&entry)),
            false => drop(found.insert(entry.clone(), std::fs::read(&entry).unwrap())),
        }
    }
    found
}

#[test]
fn an_abort_that_is_refused_changes_nothing() {
    let abort = |root: &Path, arguments: &[&str], reason: &str| {
        let before = files(root);
        let (code, text) = oncelog(&[&["abort"], arguments].concat(), &root.join("t-0"));
        assert_eq!(code, 2, "{text}");
        assert!(text.as_str().unwrap().contains(reason), "{text}");
        let is_new = |(path, bytes): &(PathBuf, Vec<u8>)| before.get(path) != Some(bytes);
        let changed: Vec<PathBuf> = files(root).into_iter().filter(is_new).map(|(path, _)| path).collect();
        assert_eq!((changed, before.len()), (Vec::new(), files(root).len()), "{arguments:?}: {text}");
    };
    for end in ["close", "kill"] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), end);
        abort(root.path(), &["--producer-id", "8"], "producer 8 has no transaction open in");
        abort(root.path(), &["--producer-id", "7", "--transaction-version", "3"], "--transaction-version");
        {
            let _engine = oncelog::Engine::open(root.path(), oncelog::EngineOptions::default()).unwrap();
            abort(root.path(), &["--producer-id", "7"], "already open");
        }
        // The first batch of the open transaction.
        let log = root.path().join("t-0/00000000000000000000.log");
        let sound = std::fs::read(&log).unwrap();
        let mut bytes = sound.clone();
        let at = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        bytes[at + 65] ^= 1;
        std::fs::write(&log, bytes).unwrap();
        // Behind a crash nothing says that this batch was durable, so recovery would cut it off.
        let reason = if end == "close" { "damaged log" } else { "no transaction open" };
        abort(root.path(), &["--producer-id", "7"], reason);
        std::fs::write(&log, sound).unwrap();
        let (code, done) = oncelog(&["abort", "--producer-id", "7"], &root.path().join("t-0"));
        assert_eq!((code, &done["first_offset"]), (0, &json!(1)), "{done}");
    }
}

//! Scripts whose answers Apache Kafka's own classes gave, and what `play` itself promises.

mod rules;

use rules::Rules;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka")
}

/// Runs the command over a script.
fn play(arguments: &[&str], script: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oncelog"))
        .arg("play")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A run that ends early (exit 2) closes its end.
    let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
    child.wait_with_output().unwrap()
}

fn lines(text: &[u8]) -> Vec<Value> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
}

fn script(operations: &[Value]) -> String {
    operations.iter().map(|operation| format!("{operation}\n")).collect()
}

/// Answers to a script that runs to its end.
fn answers(arguments: &[&str], operations: &[Value]) -> Vec<Value> {
    let output = play(arguments, &script(operations));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers = lines(&output.stdout);
    assert_eq!(answers.len(), operations.len());
    answers
}

/// Names of the scripts with expected answers.
fn names() -> Vec<String> {
    let entries = std::fs::read_dir(testdata().join("play")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> =
        names.filter_map(|name| name.strip_suffix(".expected.jsonl").map(str::to_owned)).collect();
    names.sort();
    names
}

/// Answers of every script, to the directory if there is one.
fn check_all(device: &str) -> Vec<String> {
    let mut failed = Vec::new();
    for name in names() {
        let file = |suffix: &str| testdata().join("play").join(format!("{name}{suffix}"));
        let text = std::fs::read_to_string(file(".jsonl")).unwrap();
        let expected = lines(&std::fs::read(file(".expected.jsonl")).unwrap());
        let output = play(&["--device", device], &text);
        let (operations, got) = (lines(text.as_bytes()), lines(&output.stdout));
        if got.len() != expected.len() {
            let stderr = String::from_utf8_lossy(&output.stderr);
            failed.push(format!("{name}: {} answers of {}: {stderr}", got.len(), expected.len()));
            continue;
        }
        let mut rules = Rules::default();
        for (i, op) in operations.iter().enumerate() {
            if let Err(why) = rules.answer(op, &expected[i], &got[i]) {
                failed.push(format!("{name}, line {}: {why}", i + 1));
                break;
            }
        }
    }
    failed
}

#[test]
fn answers_are_those_of_kafka() {
    assert!(names().len() > 50);
    assert_eq!(check_all("blocking"), Vec::<String>::new());
}

#[test]
fn answers_in_memory_are_the_same() {
    assert_eq!(check_all("memory"), Vec::<String>::new());
}

#[test]
fn the_comparison_in_python_agrees() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    for name in names() {
        let script = testdata().join("play").join(format!("{name}.jsonl"));
        let output = play(&["--device", "blocking"], &std::fs::read_to_string(&script).unwrap());
        let got = root.path().join("got.jsonl");
        std::fs::write(&got, &output.stdout).unwrap();
        let compared = Command::new("python3")
            .arg(testdata().join("tools/compare.py"))
            .arg(&script)
            .arg(testdata().join("play").join(format!("{name}.expected.jsonl")))
            .arg(&got)
            .output()
            .unwrap();
        assert!(compared.status.success(), "{name}: {}", String::from_utf8_lossy(&compared.stdout));
    }
}

#[test]
fn a_line_that_cannot_be_followed_ends_the_run_with_its_number() {
    let good = json!({"op": "clock", "ms": 5}).to_string();
    for (bad, named) in [
        (r#"{"op":"clock","mss":5}"#, "line 3: unknown field 'mss' in clock"),
        (r#"{"op":"clocks"}"#, "line 3: unknown operation 'clocks'"),
        (r#"{"op":"clock"}"#, "line 3: field 'ms' of clock is missing"),
        (r#"{"op":"open","dir":"t-0","config":{"segment_byte":1}}"#, "line 3: unknown setting 'segment_byte'"),
        (r#"{"op":"#, "line 3: no JSON"),
    ] {
        let output = play(&[], &format!("{good}\n\n{bad}\n{good}\n"));
        assert_eq!(output.status.code(), Some(2), "{bad}");
        assert_eq!(lines(&output.stdout), [json!({"ok": {}})], "{bad}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with(named), "{stderr}");
    }
}

fn record(value: &str) -> Value {
    json!({"op": "append", "as": "client", "batches": [{"records": [{"value": value, "timestamp": 1}]}]})
}

#[test]
fn operations_answer_where_no_log_is_open_or_one_is() {
    let open = json!({"op": "open", "dir": "t-0"});
    let file = json!({"op": "file", "action": "exists", "name": "leader-epoch-checkpoint"});
    let got =
        answers(&[], &[record("v"), file.clone(), open.clone(), open, file, json!({"op": "power_cut", "seed": 1})]);
    let names: Vec<&str> = got.iter().map(|answer| answer["error"].as_str().unwrap_or("")).collect();
    let wanted = ["NOT_OPEN", "NOT_OPEN", "", "ALREADY_OPEN", "ALREADY_OPEN", "INVALID_REQUEST"];
    assert_eq!(names, wanted);
}

#[test]
fn what_is_durable_survives_a_power_cut_and_a_kill() {
    for seed in 0..8 {
        let mut accepted = record("b");
        accepted["ack"] = json!("accepted");
        let got = answers(
            &["--device", "memory"],
            &[
                json!({"op": "open", "dir": "t-0"}),
                record("a"),
                accepted,
                json!({"op": "power_cut", "seed": seed}),
                json!({"op": "open", "dir": "t-0"}),
                record("c"),
                json!({"op": "kill"}),
                json!({"op": "open", "dir": "t-0"}),
            ],
        );
        let end = got[4]["ok"]["log_end_offset"].as_i64().unwrap();
        assert!((1..=2).contains(&end), "seed {seed}: {end}");
        assert_eq!(got[7]["ok"]["log_end_offset"], json!(end + 1), "seed {seed}");
    }
}

#[test]
fn a_failed_write_latches_the_log_until_it_is_opened_again() {
    let got = answers(
        &["--device", "memory"],
        &[
            json!({"op": "open", "dir": "t-0"}),
            record("a"),
            json!({"op": "fail", "device_op": "sync"}),
            record("b"),
            record("c"),
            json!({"op": "kill"}),
            json!({"op": "open", "dir": "t-0"}),
            record("d"),
        ],
    );
    assert_eq!(got[3]["error"], "KAFKA_STORAGE_ERROR", "{}", got[3]);
    assert_eq!(got[4]["error"], "KAFKA_STORAGE_ERROR", "{}", got[4]);
    assert_eq!(got[7]["ok"]["outcome"], "appended", "{}", got[7]);
}

#[test]
fn the_log_start_stays_as_answered_through_a_kill() {
    let got = answers(
        &[],
        &[
            json!({"op": "open", "dir": "t-0"}),
            record("a"),
            record("b"),
            json!({"op": "set_high_watermark", "offset": 2}),
            json!({"op": "delete_records", "before_offset": 1}),
            json!({"op": "kill"}),
            json!({"op": "open", "dir": "t-0"}),
        ],
    );
    assert_eq!(got[4], json!({"ok": {"log_start_offset": 1}}));
    assert_eq!(got[6]["ok"]["log_start_offset"], 1);
}

#[test]
fn damage_to_a_killed_log_counts_from_the_end_of_its_data() {
    let segment = "00000000000000000000.log";
    let got = answers(
        &["--device", "blocking"],
        &[
            json!({"op": "open", "dir": "t-0"}),
            record("a"),
            record("b"),
            json!({"op": "kill"}),
            json!({"op": "file", "action": "truncate", "name": segment, "size": -1}),
            json!({"op": "open", "dir": "t-0", "recovery_point": 0}),
        ],
    );
    assert_eq!(got[5]["ok"]["log_end_offset"], 1, "{}", got[5]);
}

#[test]
fn bytes_come_back_as_text_or_hex() {
    let records =
        json!([{"key": {"hex": "ff00"}, "value": "é", "headers": [["h", null], ["i", {"hex": "0a"}]], "timestamp": 3}]);
    let got = answers(
        &[],
        &[
            json!({"op": "open", "dir": "t-0"}),
            json!({"op": "append", "as": "client", "batches": [{"records": records, "compression": "zstd"}]}),
            json!({"op": "read", "offset": 0, "isolation": "log_end"}),
        ],
    );
    let batch = &got[2]["ok"]["batches"][0];
    assert_eq!(batch["compression"], "zstd");
    let record = json!({"offset": 0, "timestamp": 3, "key": {"hex": "ff00"}, "value": "é", "headers": [["h", null], ["i", {"hex": "0a"}]]});
    assert_eq!(batch["records"], json!([record]));
}

#[test]
fn explain_names_the_transaction_that_holds_readers_back() {
    let txn = |sequence: i32| {
        json!({"op": "append", "as": "client", "batches": [{"producer_id": 7, "producer_epoch": 2, "base_sequence": sequence,
               "transactional": true, "records": [{"value": "v", "timestamp": 1}]}]})
    };
    let commit = json!({"op": "append", "as": "coordinator", "batches": [{"control": "commit", "producer_id": 7, "producer_epoch": 2}]});
    let explain = json!({"op": "explain", "what": "last_stable_offset"});
    let raise = |offset: i64| json!({"op": "set_high_watermark", "offset": offset});
    let config = json!({"transaction_partition_verification_enable": false});
    let got = answers(
        &[],
        &[
            json!({"op": "open", "dir": "t-0", "config": config}),
            record("a"),
            txn(0),
            raise(2),
            explain.clone(),
            commit,
            explain.clone(),
            raise(3),
            explain,
            json!({"op": "explain", "what": "producer", "producer_id": 7}),
        ],
    );
    let held = |i: usize| &got[i]["ok"]["held_by"];
    assert_eq!(
        (&held(4)["producer_id"], &held(4)["first_offset"], &held(4)["epoch"]),
        (&json!(7), &json!(1), &json!(2))
    );
    assert_eq!(got[4]["ok"]["last_stable_offset"], 1);
    assert_eq!((&held(6)["state"], &held(6)["marker_offset"]), (&json!("decided"), &json!(2)));
    assert_eq!((held(8), &got[8]["ok"]["last_stable_offset"]), (&Value::Null, &json!(3)));
    assert_eq!(got[9]["ok"]["epoch"], 2);
}

#[test]
fn the_same_script_gives_the_same_bytes() {
    let text = std::fs::read_to_string(testdata().join("play/load-12-reopen-then-truncate.jsonl")).unwrap();
    assert_eq!(play(&[], &text).stdout, play(&[], &text).stdout);
}

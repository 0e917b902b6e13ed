//! Committed reads over the same files by Kafka's own log classes and by oncelog, whoever wrote them: the same batches,
//! the same list of aborted transactions, and so the same records.
//!
//! Needs Java, Maven (for Kafka's jars, fetched once) and Python; says why it is skipped where one is missing.

mod kafka;

use kafka::{missing, testdata};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const PRODUCERS: i64 = 4;
const ROUNDS: usize = 150;

/// Steps of xorshift: the same story for both writers.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn config() -> Value {
    json!({"segment_bytes": 2500, "index_interval_bytes": 300, "transaction_partition_verification_enable": false})
}

/// Transactions that overlap each other and the ends of segments, with plain records between them; answers what becomes
/// committed, by the order of the log. The last transaction stays open.
fn workload(dir: &Path, seed: u64, end: &str) -> (Vec<Value>, Vec<String>) {
    let open = json!({"op": "open", "dir": dir.join("t-0"), "config": config()});
    let mut script = vec![json!({"op": "clock", "ms": 1000}), open];
    let (mut chance, mut sequences) = (seed, BTreeMap::<i64, i64>::new());
    let mut open: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
    let mut values: Vec<(String, bool)> = Vec::new();
    let mut append = |origin: &str, batch: Value| {
        script.push(json!({"op": "append", "as": origin, "batches": [batch]}));
    };
    let end_txn =
        |control: &str, id: i64| json!({"control": control, "producer_id": id, "producer_epoch": 0, "timestamp": 1000});
    for round in 0..ROUNDS {
        let id = (next(&mut chance) % (PRODUCERS as u64 + 1)) as i64;
        if id == PRODUCERS {
            values.push((format!("plain-{round}"), true));
            append("client", json!({"records": [{"value": format!("plain-{round}"), "timestamp": 1000}]}));
        } else if open.contains_key(&id) && next(&mut chance).is_multiple_of(3) {
            let commits = next(&mut chance).is_multiple_of(2);
            append("coordinator", end_txn(if commits { "commit" } else { "abort" }, id));
            open.remove(&id).into_iter().flatten().for_each(|at| values[at].1 = commits);
        } else {
            let count = 1 + (next(&mut chance) % 3) as i64;
            let texts: Vec<String> = (0..count).map(|number| format!("{id}-{round}-{number}")).collect();
            let records: Vec<Value> = texts.iter().map(|text| json!({"value": text, "timestamp": 1000})).collect();
            let sequence = sequences.entry(id).or_default();
            append(
                "client",
                json!({"producer_id": id, "producer_epoch": 0, "base_sequence": *sequence, "transactional": true, "records": records}),
            );
            *sequence += count;
            let first = values.len();
            values.extend(texts.into_iter().map(|text| (text, false)));
            open.entry(id).or_default().extend(first..values.len());
        }
    }
    for (id, texts) in open {
        append("coordinator", end_txn("abort", id));
        texts.into_iter().for_each(|at| values[at].1 = false);
    }
    append(
        "client",
        json!({"producer_id": 9, "producer_epoch": 0, "base_sequence": 0, "transactional": true, "records": [{"value": "open"}]}),
    );
    append("client", json!({"records": [{"value": "behind"}]}));
    script.push(json!({"op": "sync"}));
    script.push(json!({"op": end}));
    (script, values.into_iter().filter_map(|(text, committed)| committed.then_some(text)).collect())
}

/// Reads from every offset on, by several sizes.
fn reads(dir: &Path, end: i64) -> Vec<Value> {
    let open = json!({"op": "open", "dir": dir.join("t-0"), "config": config()});
    let mut script = vec![json!({"op": "clock", "ms": 1000}), open, json!({"op": "set_high_watermark", "offset": end})];
    for offset in 0..end {
        for max_bytes in [1, 500, 1 << 20] {
            script.push(json!({"op": "read", "offset": offset, "max_bytes": max_bytes, "isolation": "committed"}));
        }
    }
    script
}

fn run(program: &mut Command, script: &[Value], folder: &Path) -> Vec<Value> {
    let (input, output) = (folder.join("in.jsonl"), folder.join("out.jsonl"));
    std::fs::write(&input, script.iter().map(|operation| format!("{operation}\n")).collect::<String>()).unwrap();
    let ran = program.stdin(std::fs::File::open(&input).unwrap()).stdout(std::fs::File::create(&output).unwrap());
    assert!(ran.status().unwrap().success());
    let text = std::fs::read_to_string(&output).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), script.len());
    answers
}

fn ours(script: &[Value], folder: &Path) -> Vec<Value> {
    run(Command::new(env!("CARGO_BIN_EXE_oncelog")).args(["play", "--device", "blocking"]), script, folder)
}

fn kafkas(script: &[Value], folder: &Path) -> Vec<Value> {
    run(&mut Command::new(testdata().join("oracle/play-oracle")), script, folder)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in std::fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

/// The batches of a read with their records, without what only one of the two says of them.
fn batches(answer: &Value) -> Vec<Value> {
    let mut batches = answer["ok"]["batches"].as_array().cloned().unwrap_or_default();
    for batch in batches.iter_mut().flat_map(Value::as_object_mut) {
        ["valid", "delete_horizon", "attributes", "records_sha"].into_iter().for_each(|name| drop(batch.remove(name)));
    }
    batches
}

/// What a consumer that reads from the front and keeps to the lists is left with.
fn consumed(answers: &[Value]) -> Vec<String> {
    let (mut values, mut offset) = (Vec::new(), 0);
    // The third of every three reads is the largest.
    while let Some(read) = answers.get(3 + 3 * offset as usize + 2).map(|answer| &answer["ok"]) {
        let batches = read["batches"].as_array().unwrap();
        let mut ahead: Vec<(i64, i64)> = read["aborted"]
            .as_array()
            .unwrap()
            .iter()
            .map(|txn| (txn["first_offset"].as_i64().unwrap(), txn["producer_id"].as_i64().unwrap()))
            .collect();
        ahead.sort_unstable();
        let (mut ahead, mut dropped) = (ahead.into_iter().peekable(), Vec::new());
        for batch in batches {
            let number = |name: &str| batch[name].as_i64().unwrap();
            while let Some((_, id)) = ahead.next_if(|(first, _)| *first <= number("last_offset")) {
                dropped.push(id);
            }
            if batch["control"] == json!(true) {
                dropped.retain(|id| *id != number("producer_id"));
            } else if !dropped.contains(&number("producer_id")) || batch["transactional"] != json!(true) {
                let records = batch["records"].as_array().unwrap();
                values.extend(records.iter().map(|record| record["value"].as_str().unwrap().to_owned()));
            }
            offset = number("last_offset") + 1;
        }
        if batches.is_empty() {
            break;
        }
    }
    values
}

#[test]
fn committed_reads_over_the_same_files_are_the_same() {
    if let Some(reason) = missing("oracle/play-oracle") {
        println!("skipped: {reason}");
        return;
    }
    for (seed, end) in [(1, "close"), (2, "close"), (3, "kill")] {
        for writer in [ours, kafkas] {
            let root = tempfile::tempdir().unwrap();
            let written = root.path().join("written");
            std::fs::create_dir(&written).unwrap();
            let (script, committed) = workload(&written, 0x9e37_79b9 * seed, end);
            let answers = writer(&script, root.path());
            let stored = answers.iter().filter_map(|answer| answer["ok"]["last_offset"].as_i64());
            let log_end = stored.max().unwrap() + 1;
            let seen = [(ours as fn(&[Value], &Path) -> _, "ours"), (kafkas, "kafkas")].map(|(reader, name)| {
                let dir = root.path().join(name);
                copy(&written, &dir);
                reader(&reads(&dir, log_end), root.path())
            });
            let segments = std::fs::read_dir(written.join("t-0")).unwrap().map(|entry| entry.unwrap().path());
            assert!(segments.filter(|path| path.extension().is_some_and(|e| e == "log")).count() > 5);
            for (at, (ours, kafkas)) in seen[0].iter().zip(&seen[1]).enumerate().skip(3) {
                assert_eq!(batches(ours), batches(kafkas), "seed {seed}, {end}, read {at}");
                assert_eq!(ours["ok"]["aborted"], kafkas["ok"]["aborted"], "seed {seed}, {end}, read {at}");
                assert_eq!(ours["error"], kafkas["error"], "seed {seed}, {end}, read {at}");
                assert_eq!(ours["ok"]["last_stable_offset"], kafkas["ok"]["last_stable_offset"]);
            }
            assert!(seen[0].iter().any(|answer| answer["ok"]["aborted"].as_array().is_some_and(|list| list.len() > 2)));
            assert_eq!(consumed(&seen[1]), committed, "seed {seed}, {end}");
            let values = Command::new(env!("CARGO_BIN_EXE_oncelog"))
                .arg("read")
                .arg(written.join("t-0"))
                .arg("--values")
                .output();
            let values = String::from_utf8(values.unwrap().stdout).unwrap();
            assert_eq!(values.lines().collect::<Vec<_>>(), committed, "seed {seed}, {end}");
        }
    }
}

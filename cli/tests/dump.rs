//! Directories that a real Apache Kafka broker wrote, and what Kafka's own loader says of them.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka/golden")
}

fn cases() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(golden()).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn dump(arguments: &[&str], directory: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oncelog")).arg("dump").args(arguments).arg(directory).output().unwrap()
}

/// The partition directory of a case.
fn partition(case: &str) -> PathBuf {
    golden().join(case).join(format!("{case}-0"))
}

#[test]
fn documents_are_those_of_kafkas_loader() {
    if Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: there is no python3");
        return;
    }
    assert!(cases().len() > 10);
    let checked = Command::new("python3")
        .arg(golden().join("../tools/check.py"))
        .arg(env!("CARGO_BIN_EXE_oncelog"))
        .args(cases())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}

#[test]
fn offsets_and_digests_without_python() {
    for case in cases() {
        let name = case.file_name().unwrap().to_str().unwrap().to_owned();
        let want: Value = serde_json::from_slice(&std::fs::read(case.join("expected.json")).unwrap()).unwrap();
        let output = dump(&["--json"], &case.join(want["partition"].as_str().unwrap()));
        let got: Value = serde_json::from_slice(&output.stdout).unwrap();
        for field in [
            "clean",
            "log_start_offset",
            "log_end_offset",
            "last_stable_offset",
            "first_unstable_offset",
            "leader_epochs",
            "read_uncommitted",
            "read_committed",
            "max_timestamp",
        ] {
            assert_eq!(got[field], want[field], "{name}: {field}");
        }
    }
}

/// Its name is not always that of the case.
fn directory_in(case: &Path) -> PathBuf {
    std::fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap()
}

#[test]
fn verify_finds_nothing_wrong_where_nothing_was_injured() {
    for case in cases() {
        let name = case.file_name().unwrap().to_str().unwrap();
        let mut verify = Command::new(env!("CARGO_BIN_EXE_oncelog"));
        let output = verify.arg("verify").arg(directory_in(&case)).output().unwrap();
        let expected = if name == "damaged-half-batch" { 1 } else { 0 };
        assert_eq!(output.status.code(), Some(expected), "{name}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn the_summary_names_the_figures() {
    let output = dump(&[], &partition("txn-mixed"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("5 segments") && text.contains("7 producers") && text.contains("28 aborted transactions"),
        "{text}"
    );
}

#[test]
fn no_directory_is_no_answer() {
    let output = dump(&["--json"], Path::new("no/such-0"));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}

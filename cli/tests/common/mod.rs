//! What several suites start.

use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Has `oncelog play` do these operations in directories under `root`; each must be answered with success.
#[track_caller]
pub fn play(root: &Path, device: &str, script: &[Value]) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_oncelog"))
        .args(["play", "--device", device, "--root"])
        .arg(root)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let text: String = script.iter().map(|operation| format!("{operation}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    let answers = String::from_utf8(output.stdout).unwrap();
    assert_eq!(answers.lines().count(), script.len());
    for answer in answers.lines() {
        assert!(answer.starts_with(r#"{"ok""#), "{answer}");
    }
}

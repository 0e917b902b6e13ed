//! Random scripts through Apache Kafka's own storage classes and through `play`: the same answers, but for the
//! differences that are named in `docs/differences.md`.
//!
//! Without compression, because two encoders need not make the same bytes.
//!
//! `ONCELOG_DIFFERENTIAL_SEEDS` names other seeds than the few of every run, `1..2001` for the whole run. Needs Java,
//! Maven (for Kafka's jars, fetched once) and Python; says why it is skipped where one is missing.

mod kafka;

use kafka::{missing, testdata};
use std::process::Command;

/// As many as a minute bears on two cores, Kafka's start included.
const SEEDS_OF_EVERY_RUN: &str = "1..121";

#[test]
fn random_scripts_are_answered_as_kafka_answers_them() {
    let seeds = std::env::var("ONCELOG_DIFFERENTIAL_SEEDS").unwrap_or_else(|_| SEEDS_OF_EVERY_RUN.to_owned());
    if let Some(reason) = missing("oracle/play-oracle") {
        println!("skipped: {reason}");
        return;
    }
    let ran = Command::new(testdata().join("tools/differential.py"))
        .args(["--oncelog", env!("CARGO_BIN_EXE_oncelog"), "--seeds", &seeds, "--plain"])
        .args(["--device", "blocking", "--device", "memory"])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{stdout}");
    assert!(ran.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("rules used: "), "nothing was compared: {stdout}");
}

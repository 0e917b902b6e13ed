//! Random scripts through Apache Kafka's own storage classes and through `play`: the same answers, but for the differences
//! that are named in `docs/differences.md`.
//!
//! `ONCELOG_DIFFERENTIAL_SEEDS` names the seeds, `1..2001` for the whole run; without it nothing is asked. Needs Java, Maven
//! (for Kafka's jars, fetched once) and Python; says why it is skipped where one is missing.

mod kafka;

use kafka::{missing, testdata};
use std::process::Command;

#[test]
fn random_scripts_are_answered_as_kafka_answers_them() {
    let Ok(seeds) = std::env::var("ONCELOG_DIFFERENTIAL_SEEDS") else {
        println!("skipped: ONCELOG_DIFFERENTIAL_SEEDS names no seeds");
        return;
    };
    if let Some(reason) = missing("oracle/play-oracle") {
        println!("skipped: {reason}");
        return;
    }
    let ran = Command::new(testdata().join("tools/differential.py"))
        .args(["--oncelog", env!("CARGO_BIN_EXE_oncelog"), "--seeds", &seeds])
        .args(["--device", "blocking", "--device", "memory"])
        .output()
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    println!("{stdout}");
    assert!(ran.status.success(), "{stdout}{stderr}");
    assert!(stdout.contains("rules used: "), "nothing was compared: {stdout}");
}

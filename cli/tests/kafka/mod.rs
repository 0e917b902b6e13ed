//! What the tests that ask Apache Kafka itself share.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Files that Kafka wrote, scripts that it answered, and the programs that ask it.
pub fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka")
}

/// Why Kafka cannot be asked here through `program`, which fetches the jars and compiles at `--fetch`.
pub fn missing(program: &str) -> Option<String> {
    for (tool, argument) in [("java", "-version"), ("mvn", "-version"), ("python3", "--version")] {
        if Command::new(tool).arg(argument).output().is_err() {
            return Some(format!("there is no {tool}"));
        }
    }
    match Command::new(testdata().join(program)).arg("--fetch").output() {
        Ok(output) if output.status.success() => None,
        _ => Some("Kafka's jars cannot be fetched".into()),
    }
}

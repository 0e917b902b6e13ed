//! The example of the same name: killed at random, it stays exactly-once.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Cargo builds the examples with the tests, beside them.
fn example() -> PathBuf {
    let mut dir = std::env::current_exe().expect("the test's own program");
    dir.pop();
    assert!(dir.ends_with("deps"));
    dir.pop();
    dir.join("examples/consume_process_produce")
}

#[test]
fn a_worker_that_is_killed_again_and_again_counts_every_order_once() {
    let program = example();
    if !Path::new(&program).exists() {
        println!(
            "skipped: {} is not built (cargo test builds it unless it is asked for some tests only)",
            program.display()
        );
        return;
    }
    let output = Command::new(program).args(["600", "12"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("600 orders, 12 kills: 0 lost, 0 doubled, 0 wrong totals"), "{text}");
}

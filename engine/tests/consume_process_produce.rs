//! The example of the same name: killed at random, it stays exactly-once.

use std::path::PathBuf;
use std::process::Command;

const NAME: &str = "consume_process_produce";

/// Cargo builds the examples with the tests, beside them; where it was asked for some tests only, it is asked again
/// here.
fn example() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own program");
    let profile = test.ancestors().nth(2).expect("the folder above deps");
    let program = profile.join("examples").join(NAME);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--locked", "-p", "oncelog", "--example", NAME, "--target-dir"]);
        cargo.arg(profile.parent().expect("the target folder"));
        cargo.args(profile.ends_with("release").then_some("--release"));
        let built = cargo.output().expect("cargo starts");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    program
}

#[test]
fn a_worker_that_is_killed_again_and_again_counts_every_order_once() {
    let output = Command::new(example()).args(["600", "12"]).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("600 orders, 12 kills: 0 lost, 0 doubled, 0 wrong totals"), "{text}");
}

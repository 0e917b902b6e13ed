//! `oncelog append` imports a file exactly once, however often it is killed.

use oncelog::{Clock, Engine, EngineOptions, ManualClock, OpenOptions, SystemClock};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const LINES: u64 = 150_000;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[test]
fn an_import_killed_again_and_again_stores_its_input_exactly_once() {
    let place = Place::new();
    let input = place.file("input", &lines(0..LINES));
    let mut chance = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64 | 1;
    println!("seed {chance}");
    let mut kills = 0;
    loop {
        let mut import = place.start(
            "import",
            &input,
            &["--batch-lines", "40", "--in-flight", "3", "--config", "segment_bytes=1000000"],
        );
        // Longer and longer, so that a machine where opening takes its time gets there too.
        std::thread::sleep(Duration::from_micros(next(&mut chance) % (40_000 + kills * 2_000)));
        match import.try_wait().expect("a child") {
            None => import.kill().expect("a kill"),
            Some(status) => {
                assert!(status.success(), "{status}");
                break;
            }
        }
        import.wait().expect("a child");
        kills += 1;
    }
    println!("{kills} kills");
    assert!(kills >= 5, "killed only {kills} times: make the input longer");
    assert!(place.values() == lines(0..LINES), "not the input");
    assert_eq!(place.import("import", &input)["lines_added"], 0);
    assert!(place.values() == lines(0..LINES), "the same input again added something");
}

#[test]
fn a_grown_input_goes_on_and_a_changed_or_shorter_one_is_refused() {
    let place = Place::new();
    let half = place.file("half", &lines(0..500));
    let whole = place.file("whole", &lines(0..1000));
    let other = place.file("other", &lines(1..1001));
    assert_eq!(place.import("a", &half)["lines_added"], 500);
    assert_eq!(place.import("a", &whole)["lines_added"], 500);
    for (input, reason) in [(&half, "ends after 500 lines"), (&other, "not the ones stored")] {
        let refused = place.run("a", input, &[]);
        assert_eq!(refused.status.code(), Some(2));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(reason), "{said}");
    }
    assert!(place.values() == lines(0..1000));
}

#[test]
fn two_names_in_one_log_do_not_disturb_each_other() {
    let place = Place::new();
    let (first, second) = (place.file("first", &lines(0..300)), place.file("second", &lines(300..700)));
    assert_eq!(place.import("first", &first)["lines_added"], 300);
    assert_eq!(place.import("second", &second)["lines_added"], 400);
    assert_eq!(place.import("first", &first)["lines_added"], 0);
    assert_eq!(place.import("second", &second)["lines_added"], 0);
    assert!(place.values() == lines(0..700));
}

#[test]
fn an_import_whose_producer_has_expired_still_adds_nothing() {
    let place = Place::new();
    let input = place.file("input", &lines(0..100));
    place.import("a", &input);
    let clock = Arc::new(ManualClock::new(SystemClock::new().now_ms() + 30 * DAY_MS));
    let options = EngineOptions { clock: Some(clock), driver: false, ..EngineOptions::default() };
    let engine = Engine::open(place.scratch.path(), options).expect("an engine");
    let log = engine.log("events-0", OpenOptions::default()).expect("a log");
    log.expire_producers().expect("an expiry");
    assert!(log.describe().expect("a state").producers.is_empty(), "the producer is still remembered");
    drop(log);
    engine.close().expect("a clean close");
    assert_eq!(place.import("a", &input)["lines_added"], 0);
    let longer = place.file("longer", &lines(0..150));
    assert_eq!(place.import("a", &longer)["lines_added"], 50);
    assert!(place.values() == lines(0..150));
}

#[test]
fn lines_come_back_byte_for_byte() {
    let place = Place::new();
    let mut text = b"plain\n\n\r\nwith\ttab\r\n\xff\xfe no UTF-8\n".to_vec();
    text.extend(vec![b'x'; 300_000]);
    text.extend(b"\nthe last one without a newline");
    let input = place.file("input", &text);
    place.import("a", &input);
    text.push(b'\n');
    assert!(place.values() == text);
    let compressed = place.run("b", &input, &["--compression", "zstd"]);
    assert!(compressed.status.success());
    assert!(place.values() == [&text[..], &text[..]].concat());
}

#[test]
fn a_log_that_is_being_written_reads_as_a_prefix_and_has_nothing_wrong() {
    let place = Place::new();
    let input = place.file("input", &lines(0..LINES));
    let options = ["--batch-lines", "20", "--in-flight", "2", "--config", "segment_bytes=500000"];
    let mut import = place.start("import", &input, &options);
    let whole = lines(0..LINES);
    let mut looks = 0;
    while import.try_wait().expect("a child").is_none() {
        if !place.directory().join("00000000000000000000.log").exists() {
            continue;
        }
        let found = place.values();
        assert!(whole.starts_with(&found) && found.last().is_none_or(|byte| *byte == b'\n'), "no prefix");
        let verify = place.command("verify").output().expect("a look");
        assert_eq!(verify.status.code(), Some(0), "{}", String::from_utf8_lossy(&verify.stdout));
        looks += 1;
    }
    println!("{looks} looks");
    assert!(looks >= 2, "the import was over too soon: make the input longer");
    assert!(place.values() == whole);
}

#[test]
fn a_reader_that_follows_sees_what_another_process_writes() {
    let place = Place::new();
    place.import("a", &place.file("first", b"1\n2\n"));
    let mut follow = place.command("read");
    follow.args(["--values", "--follow", "--max", "5"]).stdout(Stdio::piped());
    let mut reader = follow.spawn().expect("a reader");
    let mut lines = BufReader::new(reader.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
    assert_eq!(lines.by_ref().take(2).collect::<Vec<_>>(), ["1", "2"]);
    place.import("b", &place.file("second", b"3\n4\n"));
    assert_eq!(lines.by_ref().take(2).collect::<Vec<_>>(), ["3", "4"]);
    place.import("c", &place.file("third", b"5\n6\n"));
    assert_eq!(lines.collect::<Vec<_>>(), ["5"], "no more than it asked for");
    assert!(reader.wait().expect("ended").success());
}

struct Place {
    scratch: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { scratch: tempfile::tempdir().expect("a directory") }
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("events-0")
    }

    fn file(&self, name: &str, text: &[u8]) -> PathBuf {
        let path = self.scratch.path().join(name);
        std::fs::write(&path, text).expect("an input");
        path
    }

    fn start(&self, name: &str, input: &Path, options: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_oncelog"))
            .arg("append")
            .arg(self.directory())
            .args(["--json", "--producer", name])
            .args(options)
            .stdin(File::open(input).expect("an input"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("an import")
    }

    fn run(&self, name: &str, input: &Path, options: &[&str]) -> Output {
        self.start(name, input, options).wait_with_output().expect("an import")
    }

    fn import(&self, name: &str, input: &Path) -> Value {
        let output = self.run(name, input, &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
        command.arg(name).arg(self.directory());
        command
    }

    fn values(&self) -> Vec<u8> {
        let read = self.command("read").arg("--values").output().expect("a reader");
        assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
        read.stdout
    }
}

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Lines of different lengths, all different, some of them almost empty.
fn lines(numbers: std::ops::Range<u64>) -> Vec<u8> {
    let mut text = Vec::new();
    for number in numbers {
        let padding = "-".repeat((number * 7 % 61) as usize);
        text.extend_from_slice(format!("{number}{padding}\n").as_bytes());
    }
    text
}

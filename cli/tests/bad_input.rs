//! Bad input gives a clear error with file and offset, and changes nothing on disk.

use oncelog::{Append, Engine, EngineOptions, OpenOptions};
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::{BatchBuilder, Compression};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The commands that only look.
const LOOKING: [&[&str]; 4] = [&["verify"], &["read", "--values"], &["producers"], &["dump", "--json"]];
/// Position of the checksum in a batch, and of what it covers.
const CRC_AT: usize = 17;
const CRC_FROM: usize = 21;

#[test]
fn a_directory_that_is_not_there_is_named() {
    let scratch = tempfile::tempdir().expect("a directory");
    let missing = scratch.path().join("missing-0");
    for command in LOOKING.iter().copied().chain([&["recover"][..]]) {
        let said = refused(command, &missing, scratch.path());
        assert!(said.contains("missing-0"), "{command:?}: {said}");
    }
}

#[test]
fn a_file_or_a_wrong_name_for_a_directory_is_named() {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("file-0");
    std::fs::write(&file, "not a directory").expect("a file");
    let wrong = scratch.path().join("nopartition");
    std::fs::create_dir(&wrong).expect("a directory");
    for command in LOOKING.iter().copied().chain([&["recover"][..], &["append", "--producer", "a"]]) {
        for directory in [&file, &wrong] {
            let output = look(command, directory, scratch.path());
            assert_ne!(output.status.code(), Some(0), "{command:?}");
            let said = text(&output);
            let name = directory.file_name().expect("a name").to_str().expect("UTF-8");
            assert!(said.contains(name), "{command:?}: {said}");
        }
    }
}

#[test]
fn an_empty_directory_is_no_log_to_verify() {
    let scratch = tempfile::tempdir().expect("a directory");
    let directory = scratch.path().join("events-0");
    std::fs::create_dir(&directory).expect("a directory");
    assert!(refused(&["verify"], &directory, scratch.path()).contains("holds no segment"));
    for command in LOOKING {
        look(command, &directory, scratch.path());
    }
}

#[test]
fn a_directory_without_permission_is_named() {
    if rustix::process::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let log = Fixture::new();
    let log_file = log.first_segment();
    std::fs::set_permissions(&log_file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("a change of mode");
    for command in LOOKING {
        let output = run(command, &log.directory());
        assert_ne!(output.status.code(), Some(0), "{command:?}");
        assert!(text(&output).contains("00000000000000000000.log"), "{command:?}: {}", text(&output));
    }
}

#[test]
fn a_truncated_log_is_reported_with_file_byte_and_offset() {
    let log = Fixture::new();
    let file = log.first_segment();
    let bytes = std::fs::read(&file).expect("a segment");
    std::fs::write(&file, &bytes[..bytes.len() - 10]).expect("a shorter segment");
    let said = log.verify_finds_a_problem();
    assert!(said.contains("00000000000000000000.log, byte ") && said.contains(", offset "), "{said}");
    log.all_look();
}

#[test]
fn every_flipped_bit_of_a_segment_is_found() {
    let log = Fixture::new();
    let file = log.first_segment();
    let bytes = std::fs::read(&file).expect("a segment");
    for position in (0..bytes.len()).step_by(bytes.len() / 60) {
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (position % 8);
        std::fs::write(&file, flipped).expect("a flipped bit");
        let said = log.verify_finds_a_problem();
        assert!(said.contains("00000000000000000000."), "bit at {position}: {said}");
        log.all_look();
    }
}

#[test]
fn a_damaged_batch_in_the_middle_is_an_error_of_a_read_not_a_gap() {
    let log = Fixture::new();
    let file = log.first_segment();
    let mut bytes = std::fs::read(&file).expect("a segment");
    let batch = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize + 12;
    bytes[2 * batch + 70] ^= 1;
    std::fs::write(&file, bytes).expect("a flipped bit");
    let output = run(&["read", "--values"], &log.directory());
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("00000000000000000000.log") && said.contains("offset 20"), "{said}");
    assert!(said.contains("value 19\n") && !said.contains("value 20"), "{said}");
}

#[test]
fn random_bytes_are_no_log_and_no_panic() {
    let mut state = 42;
    for length in [1, 16, 17, 60, 61, 100, 5000, 100_000] {
        let log = Fixture::new();
        let random: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
        std::fs::write(log.first_segment(), &random).expect("random bytes");
        log.verify_finds_a_problem();
        log.all_look();
    }
}

#[test]
fn gigantic_lengths_are_refused_without_the_memory_for_them() {
    for (what, change) in gigantic_changes() {
        let log = Fixture::new();
        let file = log.first_segment();
        let mut bytes = std::fs::read(&file).expect("a segment");
        change(&mut bytes);
        std::fs::write(&file, bytes).expect("a changed segment");
        let said = log.verify_finds_a_problem();
        assert!(said.contains("00000000000000000000.log, byte 0"), "{what}: {said}");
        log.all_look();
    }
}

type Change = fn(&mut Vec<u8>);

fn gigantic_changes() -> [(&'static str, Change); 4] {
    [
        ("batch length", |bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())),
        ("negative batch length", |bytes| bytes[8..12].copy_from_slice(&i32::MIN.to_be_bytes())),
        ("record count under a right checksum", |bytes| {
            bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
            seal_first_batch(bytes);
        }),
        ("record length under a right checksum", |bytes| {
            // The longest zigzag varint of 32 bits: -2^31.
            bytes[61..66].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
            seal_first_batch(bytes);
        }),
    ]
}

fn seal_first_batch(bytes: &mut [u8]) {
    let end = u32::from_be_bytes(bytes[8..12].try_into().expect("four bytes")) as usize + 12;
    let crc = crc32c(&bytes[CRC_FROM..end]);
    bytes[CRC_AT..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn damaged_side_files_are_named() {
    for extension in ["index", "timeindex", "snapshot"] {
        let log = Fixture::new();
        let file = log.last_of(extension);
        let mut bytes = std::fs::read(&file).expect("a side file");
        let last = bytes.len() - 1;
        bytes[last] ^= 0x10;
        std::fs::write(&file, bytes).expect("a flipped bit");
        let said = log.verify_finds_a_problem();
        let name = file.file_name().expect("a name").to_str().expect("UTF-8");
        assert!(said.contains(name), "{extension}: {said}");
        log.all_look();
    }
    let log = Fixture::new();
    std::fs::write(log.directory().join("leader-epoch-checkpoint"), "no\nnumbers\n").expect("a bad checkpoint");
    assert!(log.verify_finds_a_problem().contains("leader-epoch-checkpoint"));
    log.all_look();
}

#[test]
fn a_missing_segment_is_found() {
    let log = Fixture::new();
    let segments = log.files("log");
    assert!(segments.len() > 2);
    std::fs::remove_file(&segments[1]).expect("a removed segment");
    let said = log.verify_finds_a_problem();
    assert!(said.contains("a segment is missing"), "{said}");
    log.all_look();
}

#[test]
fn an_undamaged_log_has_nothing_wrong() {
    let log = Fixture::new();
    let output = log.look(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// A cleanly closed log of several segments.
struct Fixture {
    scratch: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a directory");
        let engine = Engine::open(scratch.path(), EngineOptions { driver: false, ..EngineOptions::default() })
            .expect("an engine");
        let mut options = OpenOptions::default();
        options.config.segment_bytes = 3000;
        options.config.index_interval_bytes = 500;
        let log = engine.log("events-0", options).expect("a log");
        for batch in 0..30 {
            let codec = if batch < 4 { Compression::None } else { Compression::ALL[batch % 5] };
            let mut builder = BatchBuilder::new().producer(7, 0, batch as i32 * 10).compression(codec);
            for record in 0..10 {
                let value = format!("{:40}value {}", "", batch * 10 + record);
                builder.append(1_700_000_000_000 + batch as i64, None, Some(value.as_bytes()), &[]);
            }
            let bytes = builder.build().expect("a batch");
            log.append(Append::client(&bytes)).and_then(oncelog::Ticket::wait).expect("an append");
        }
        drop(log);
        engine.close().expect("a clean close");
        Self { scratch }
    }

    fn directory(&self) -> PathBuf {
        self.scratch.path().join("events-0")
    }

    fn files(&self, extension: &str) -> Vec<PathBuf> {
        let entries =
            std::fs::read_dir(self.directory()).expect("a listing").map(|entry| entry.expect("an entry").path());
        let mut files: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
        files.sort();
        files
    }

    fn first_segment(&self) -> PathBuf {
        self.files("log").remove(0)
    }

    /// The last file of this kind that holds something.
    fn last_of(&self, extension: &str) -> PathBuf {
        let holds = |path: &PathBuf| path.metadata().expect("a file").len() > 0;
        self.files(extension).into_iter().rfind(holds).expect("a file that holds something")
    }

    fn look(&self, command: &[&str]) -> Output {
        look(command, &self.directory(), self.scratch.path())
    }

    fn all_look(&self) {
        for command in LOOKING {
            self.look(command);
        }
    }

    fn verify_finds_a_problem(&self) -> String {
        let output = self.look(&["verify"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    }
}

/// Runs a command that must not change anything and must not panic.
fn look(command: &[&str], directory: &Path, tree: &Path) -> Output {
    let before = hash(tree);
    let output = run(command, directory);
    assert_eq!(hash(tree), before, "{command:?} changed something");
    output
}

/// As [`look`], for a command that cannot run: exit code 2 and one line on standard error, which is returned.
fn refused(command: &[&str], directory: &Path, tree: &Path) -> String {
    let output = look(command, directory, tree);
    assert_eq!(output.status.code(), Some(2), "{command:?}: {}", text(&output));
    String::from_utf8(output.stderr).expect("UTF-8")
}

fn run(command: &[&str], directory: &Path) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_oncelog"));
    let output =
        program.arg(command[0]).arg(directory).args(&command[1..]).stdin(Stdio::null()).output().expect("a run");
    assert!(output.status.code().is_some_and(|code| code <= 2), "{command:?}: {} {}", output.status, text(&output));
    assert!(!text(&output).contains("panicked"), "{command:?}: {}", text(&output));
    output
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

/// Of every name and every byte below a directory.
fn hash(tree: &Path) -> [u8; 32] {
    let mut hasher = Sha256::new();
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(tree).expect("a listing").map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    for path in entries {
        hasher.update(path.to_str().expect("UTF-8"));
        if path.is_dir() {
            hasher.update(hash(&path));
        } else {
            hasher.update(std::fs::read(&path).expect("a file"));
        }
    }
    hasher.finalize().into()
}

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

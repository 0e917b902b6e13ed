//! Bad input gives a clear error with file and offset, and changes nothing on disk.

use oncelog::{Append, Engine, EngineOptions, OpenOptions};
use oncelog_formats::crc32c::crc32c;
use oncelog_formats::{BatchBuilder, Compression};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// No command needs this long for what it is given here.
const PATIENCE: Duration = Duration::from_secs(60);

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
            let said = refused(command, directory, scratch.path());
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
    let log = Fixture::new();
    let log_file = log.first_segment();
    std::fs::set_permissions(&log_file, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("a change of mode");
    let refused = |command: &&[&str]| {
        let output = run(command, &log.directory());
        assert_eq!(output.status.code(), Some(2), "{command:?}");
        assert!(text(&output).contains("00000000000000000000.log"), "{command:?}: {}", text(&output));
    };
    // What this thread starts may not do without permissions, root's processes too.
    let without_privilege = || {
        for capability in [CapabilitySet::DAC_OVERRIDE, CapabilitySet::DAC_READ_SEARCH] {
            let _not_ours_anyway = remove_capability_from_bounding_set(capability);
        }
        LOOKING.iter().chain([&["recover"][..]].iter()).for_each(refused);
    };
    std::thread::scope(|scope| scope.spawn(without_privilege).join()).expect("each is refused");
}

#[test]
fn a_pipe_or_a_directory_in_a_files_place_is_named_and_not_waited_for() {
    let kinds = ["log", "index", "timeindex", "snapshot"].map(|extension| Fixture::new().last_of(extension));
    let beside = ["leader-epoch-checkpoint", "../recovery-point-offset-checkpoint", "../topic.properties"];
    let names = kinds.iter().map(|path| path.file_name().expect("a name").to_str().expect("UTF-8")).chain(beside);
    for name in names {
        for make in ["mkfifo", "mkdir"] {
            let log = Fixture::new();
            let path = log.directory().join(name);
            let _there_or_not = std::fs::remove_file(&path);
            let made = Command::new(make).arg(&path).status().expect("a program of every system");
            assert!(made.success(), "{make} {name}");
            let plain = path.file_name().expect("a name").to_str().expect("UTF-8");
            let said = LOOKING.map(|command| (command, run(command, &log.directory())));
            assert!(path.exists() && !path.is_file(), "{make} {name} was touched");
            // A directory of a segment's name is none; that the segment is missing is said.
            let named =
                said.iter().any(|(_, output)| text(output).contains(plain) || text(output).contains("promised"));
            assert!(named, "{make} {name}: nobody names it");
        }
    }
}

/// Files that Kafka wrote, damaged by chance: `ONCELOG_BAD_INPUT_SEEDS` sets how many times.
#[test]
fn random_damage_to_any_file_is_no_panic_and_changes_nothing() {
    let seeds = std::env::var("ONCELOG_BAD_INPUT_SEEDS").map_or(60, |text| text.parse().expect("a number"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka/golden");
    for seed in 0..seeds {
        let mut chance = (seed + 1_u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let case = ["txn-mixed", "epochs", "unclean", "recompressed"][next(&mut chance) as usize % 4];
        let scratch = tempfile::tempdir().expect("a directory");
        let mut files = copy(&golden.join(case), scratch.path());
        files.sort();
        let file = &files[next(&mut chance) as usize % files.len()];
        let what = damage(file, &mut chance);
        for command in LOOKING.iter().copied().chain([&["transactions"][..], &["explain"]]) {
            println!("{seed}: {command:?} {what} {}", file.display());
            look(command, &scratch.path().join(format!("{case}-0")), scratch.path());
        }
    }
}

fn copy(from: &Path, to: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for path in std::fs::read_dir(from).expect("a listing").map(|entry| entry.expect("an entry").path()) {
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            std::fs::create_dir(&target).expect("a directory");
            files.extend(copy(&path, &target));
        } else if path.extension().is_none_or(|extension| extension != "json") {
            std::fs::copy(&path, &target).expect("a copy");
            files.push(target);
        }
    }
    files
}

fn damage(file: &Path, chance: &mut u64) -> String {
    let mut bytes = std::fs::read(file).expect("a file");
    let at = next(chance) as usize % bytes.len().max(1);
    let what = match next(chance) % 5 {
        0 => {
            bytes.truncate(at);
            format!("cut at {at}")
        }
        1 if !bytes.is_empty() => {
            bytes[at] ^= 1 << (at % 8);
            format!("a bit flipped at {at}")
        }
        2 if bytes.len() >= 4 => {
            let gigantic = [0x7fff_ffff_u32, 0xffff_ffff, 0x8000_0000, 0x4000_0000][at % 4];
            let at = at.min(bytes.len() - 4);
            bytes[at..at + 4].copy_from_slice(&gigantic.to_be_bytes());
            format!("{gigantic:#x} at {at}")
        }
        3 => {
            bytes.iter_mut().for_each(|byte| *byte = next(chance) as u8);
            "random bytes".to_owned()
        }
        _ => {
            bytes.clear();
            "emptied".to_owned()
        }
    };
    std::fs::write(file, bytes).expect("written");
    what
}

#[test]
fn an_import_onto_a_full_disk_says_so_and_goes_on_when_there_is_space() {
    let disk = tempfile::tempdir().expect("a directory");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "none"]).arg(disk.path()).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs to be mounted here: {mounted:?}");
        return;
    }
    let story = std::panic::catch_unwind(|| {
        let lines: String =
            (0..100_000).map(|line| format!("line {line}, of about fifty bytes as lines go here\n")).collect();
        let scratch = tempfile::tempdir().expect("a directory");
        let input = scratch.path().join("lines");
        std::fs::write(&input, &lines).expect("written");
        let directory = disk.path().join("events-0");
        let append = || {
            let stdin = std::fs::File::open(&input).expect("there");
            let mut command = Command::new(env!("CARGO_BIN_EXE_oncelog"));
            command.arg("append").arg(&directory).args(["--producer", "a"]).stdin(stdin).output().expect("a run")
        };
        let full = append();
        assert_eq!(full.status.code(), Some(2), "{}", text(&full));
        let said = text(&full);
        assert!(said.contains("no space left") && said.contains("00000000000000000000.log"), "{said}");
        let read = run(&["read", "--values"], &directory);
        assert!(!read.stdout.is_empty() && lines.as_bytes().starts_with(&read.stdout), "what is stored stays readable");
        assert_eq!(run(&["verify"], &directory).status.code(), Some(0));
        let grown = Command::new("mount").args(["-o", "remount,size=64m"]).arg(disk.path()).status();
        assert!(grown.is_ok_and(|status| status.success()));
        let done = append();
        assert_eq!(done.status.code(), Some(0), "{}", text(&done));
        assert!(run(&["read", "--values"], &directory).stdout == lines.as_bytes(), "each line once");
    });
    let unmounted = Command::new("umount").arg(disk.path()).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    story.expect("the story holds");
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
fn side_files_that_lost_everything_are_named() {
    let log = Fixture::new();
    let file = log.last_of("timeindex");
    std::fs::write(&file, []).expect("emptied");
    let said = log.verify_finds_a_problem();
    assert!(said.contains(file.file_name().expect("a name").to_str().expect("UTF-8")), "{said}");
    log.all_look();
    // After an unclean stop nobody relies on it.
    for name in [".kafka_cleanshutdown", "recovery-point-offset-checkpoint"] {
        std::fs::remove_file(log.scratch.path().join(name)).expect("removed");
    }
    let output = log.look(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("makes it anew"), "{}", text(&output));
    let log = Fixture::new();
    std::fs::remove_file(log.directory().join("leader-epoch-checkpoint")).expect("removed");
    assert!(log.verify_finds_a_problem().contains("leader epoch 0 is not in leader-epoch-checkpoint"));
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
    // Without its first segment a log looks like one that begins later, but for the indexes.
    let log = Fixture::new();
    std::fs::remove_file(log.first_segment()).expect("a removed segment");
    let said = log.verify_finds_a_problem();
    assert!(said.contains("without 00000000000000000000.log: a segment is missing"), "{said}");
    // Without its last segment a log ends early, which no reader may take for its end.
    let log = Fixture::new();
    std::fs::remove_file(log.files("log").pop().expect("a segment")).expect("a removed segment");
    log.verify_finds_a_problem();
    let output = log.look(&["read", "--values"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("was promised") && !output.stdout.is_empty(), "{}", text(&output));
}

#[test]
fn a_damaged_checkpoint_of_the_log_is_found() {
    let log = Fixture::new();
    let engine = Engine::open(log.scratch.path(), EngineOptions { driver: false, ..EngineOptions::default() });
    let engine = engine.expect("an engine");
    let mut options = OpenOptions::default();
    // So short that each step writes a checkpoint.
    options.config.recovery_budget_ms = 1;
    let open = engine.log("events-0", options).expect("a log");
    for producer in 100..103 {
        let batch = BatchBuilder::new().producer(producer, 0, 0).append(0, None, Some(b"more"), &[]).build();
        open.append(Append::client(&batch.expect("a batch"))).and_then(oncelog::Ticket::wait).expect("an append");
        open.drive().expect("a step");
    }
    engine.kill();
    let files = log.files("checkpoint-oncelog");
    assert!(files.len() > 1, "{files:?}");
    let output = log.look(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for (at, path) in files.iter().enumerate() {
        let whole = std::fs::read(path).expect("a checkpoint");
        for byte in [0, 30, 100, 180, whole.len() - 100, whole.len() - 1] {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            std::fs::write(path, damaged).expect("damaged");
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            let said = log.verify_finds_a_problem();
            assert!(said.contains(&format!("problem: {name}")), "file {at}, byte {byte}: {said}");
        }
        std::fs::write(path, &whole).expect("mended");
    }
    std::fs::remove_file(&files[0]).expect("removed");
    let output = log.look(&["verify"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("which it continues, cannot be used"), "{}", text(&output));
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
    program.arg(command[0]).arg(directory).args(&command[1..]).stdin(Stdio::null());
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a child");
    let id = Pid::from_child(&child);
    let (finished, waiting) = mpsc::channel::<()>();
    // One that waits for something for ever is ended, and fails by its status.
    let watch = std::thread::spawn(move || {
        if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill_process(id, Signal::KILL).expect("it still runs");
        }
    });
    let (mut stdout, mut stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let errors = std::thread::spawn(move || drain(&mut stderr));
    let stdout = drain(&mut stdout);
    let stderr = errors.join().expect("read");
    let status = child.wait().expect("ended");
    drop(finished);
    watch.join().expect("watched");
    let output = Output { status, stdout, stderr };
    assert!(output.status.code().is_some_and(|code| code <= 2), "{command:?}: {} {}", output.status, text(&output));
    assert!(!text(&output).contains("panicked"), "{command:?}: {}", text(&output));
    output
}

fn drain(from: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("read");
    bytes
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

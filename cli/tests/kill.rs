//! A kill at any moment under load loses nothing that was answered `Written` or `Durable`, doubles nothing, keeps each
//! producer's order, and remembers the last five batches of each: real processes, SIGKILL, both devices.
//!
//! Each round starts the demo's writer, kills it at a random moment (also while it recovers), opens the log here and
//! holds what is stored against every answer that the writer got out before it died. `ONCELOG_KILL_ROUNDS` sets the
//! number of rounds for each device.

use oncelog::{Append, DeviceKind, Engine, EngineOptions, Isolation, Log, OpenOptions, Outcome, Read};
use oncelog_formats::{BatchBuilder, Batches};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DEFAULT_ROUNDS: u64 = 200;
const PRODUCERS: usize = 4;
/// As the writer numbers and sizes them.
const FIRST_PRODUCER_ID: i64 = 1000;
const BATCH_RECORDS: u64 = 20;
/// Rounds before a new directory is begun, so that the log stays small and new directories are killed too.
const ROUNDS_A_DIRECTORY: u64 = 25;
const WINDOW: usize = 5;
const DECODE_LIMIT_BYTES: usize = 1 << 24;

#[test]
fn a_killed_writer_loses_and_doubles_nothing_blocking() {
    rounds("blocking");
}

#[test]
fn a_killed_writer_loses_and_doubles_nothing_uring() {
    if let Err(why) = oncelog_device::open_device(DeviceKind::Uring) {
        eprintln!("skipped: {why}");
        return;
    }
    rounds("uring");
}

fn rounds(device: &str) {
    let rounds =
        std::env::var("ONCELOG_KILL_ROUNDS").map_or(DEFAULT_ROUNDS, |text| text.parse().expect("a number of rounds"));
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    println!("{device}: seed {seed}");
    let mut chance = seed | 1;
    let (mut answers, mut duplicates, mut retries) = (0, 0, 0);
    let mut left = rounds;
    while left > 0 {
        let scratch = tempfile::tempdir().expect("a directory");
        let mut story =
            Story { device, scratch, stored: vec![Vec::new(); PRODUCERS], answered: vec![0; PRODUCERS], read_to: 0 };
        for _ in 0..left.min(ROUNDS_A_DIRECTORY) {
            let told = story.live_and_die(&mut chance);
            answers += told.len();
            duplicates += told.iter().filter(|answer| answer.duplicate).count();
            retries += story.hold_against(&told, next(&mut chance).is_multiple_of(4));
            left -= 1;
        }
        story.read_all_again();
    }
    println!("{device}: {answers} answers, {duplicates} of them duplicates, {retries} retries after a restart");
    assert!(answers > 0 && duplicates > 0 && retries > 0, "the load was no load");
}

/// xorshift64.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[derive(Debug)]
struct Answer {
    producer: usize,
    batch: usize,
    offset: i64,
    duplicate: bool,
}

struct Story<'a> {
    device: &'a str,
    scratch: tempfile::TempDir,
    /// For each producer the first offsets of its batches as read back, in order.
    stored: Vec<Vec<i64>>,
    /// For each producer how many batches were answered.
    answered: Vec<usize>,
    read_to: i64,
}

impl Story<'_> {
    fn data(&self) -> &Path {
        self.scratch.path()
    }

    fn open(&self) -> Engine {
        let device_kind = if self.device == "uring" { DeviceKind::Uring } else { DeviceKind::Blocking };
        Engine::open(self.data(), EngineOptions { device_kind, driver: false, ..EngineOptions::default() })
            .expect("an engine")
    }

    /// Runs a writer for a random time, kills it, and gives every answer that came out.
    fn live_and_die(&self, chance: &mut u64) -> Vec<Answer> {
        let mut writer = Command::new(env!("CARGO_BIN_EXE_oncelog"))
            .arg("demo-writer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a writer");
        let mut plan = writer.stdin.take().expect("its input");
        let answered: Vec<u64> = self.answered.iter().map(|count| *count as u64).collect();
        let directory = self.data().join("load-0");
        let line = json!({
            "dir": directory.to_str().expect("UTF-8"), "device": self.device, "seed": 1, "ack": "mixed",
            "segment_bytes": 200_000 + next(chance) % 2_000_000, "next": answered,
        });
        writeln!(plan, "{line}").expect("a writer that listens");
        let stdout = writer.stdout.take().expect("its output");
        let (opened, is_open) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout);
            let (mut line, mut answers) = (String::new(), Vec::new());
            while lines.read_line(&mut line).expect("lines") > 0 {
                if line.starts_with("open ") {
                    let _ = opened.send(());
                }
                answers.extend(parse(&line));
                line.clear();
            }
            answers
        });
        let early = next(chance).is_multiple_of(4);
        if early {
            std::thread::sleep(Duration::from_micros(next(chance) % 40_000));
        } else {
            is_open.recv_timeout(Duration::from_secs(30)).expect("a writer that opens its log");
            std::thread::sleep(Duration::from_micros(next(chance) % 150_000));
        }
        let alive = writer.try_wait().expect("a child").is_none();
        assert!(alive, "the writer stopped by itself");
        writer.kill().expect("a kill");
        writer.wait().expect("a child");
        reader.join().expect("its answers")
    }

    /// Opens the log, reads what is new, and checks every answer and every retry. Gives the number of retries.
    fn hold_against(&mut self, answers: &[Answer], clean: bool) -> usize {
        let engine = self.open();
        let log = engine.log("load-0", OpenOptions::default()).expect("a log");
        assert!(log.report().damage.is_empty(), "{:?}", log.report().damage);
        self.read_to = read_back(&log, self.read_to, &mut self.stored);
        for answer in answers {
            let stored = self.stored[answer.producer].get(answer.batch);
            assert_eq!(stored, Some(&answer.offset), "answered, and lost or elsewhere: {answer:?}");
            self.answered[answer.producer] = self.answered[answer.producer].max(answer.batch + 1);
        }
        let retries = self.retry_the_last_five(&log);
        if clean {
            drop(log);
            engine.close().expect("a clean close");
        }
        retries
    }

    fn retry_the_last_five(&self, log: &Log) -> usize {
        let mut retries = 0;
        for (producer, offsets) in self.stored.iter().enumerate() {
            for (batch, offset) in offsets.iter().enumerate().skip(offsets.len().saturating_sub(WINDOW)) {
                let retry = retry_of(producer, batch as u64);
                let answer = log.append(Append::client(&retry)).and_then(oncelog::Ticket::wait);
                let answer =
                    answer.unwrap_or_else(|e| panic!("retry of batch {batch} of producer {producer} refused: {e}"));
                assert_eq!(
                    (answer.outcome, answer.base_offset),
                    (Outcome::Duplicate, *offset),
                    "producer {producer}, batch {batch}"
                );
                retries += 1;
            }
        }
        retries
    }

    /// What was read once must read the same again.
    fn read_all_again(&self) {
        let engine = self.open();
        let log = engine.log("load-0", OpenOptions::default()).expect("a log");
        let mut again = vec![Vec::new(); PRODUCERS];
        assert_eq!(read_back(&log, 0, &mut again), self.read_to);
        assert_eq!(again, self.stored);
    }
}

fn parse(line: &str) -> Option<Answer> {
    let words: Vec<&str> = line.strip_suffix('\n')?.split(' ').collect();
    assert_ne!(words[0], "bad", "an append that had to succeed did not: {line}");
    let [word @ ("ack" | "dup"), producer, batch, offset] = words[..] else { return None };
    let number = |text: &str| text.parse::<i64>().expect("a number");
    let (producer, batch) = (number(producer) as usize, number(batch) as usize);
    Some(Answer { producer, batch, offset: number(offset), duplicate: word == "dup" })
}

/// Reads on from an offset; every batch must be its producer's next one, with its own records. Gives the offset behind
/// it.
fn read_back(log: &Log, from: i64, stored: &mut [Vec<i64>]) -> i64 {
    let mut offset = from;
    loop {
        let read = Read { isolation: Isolation::LogEnd, max_bytes: 4 << 20, ..Read::from(offset) };
        let fetched = log.read(read).expect("a read");
        if fetched.data.is_empty() {
            return offset;
        }
        for batch in Batches::new(&fetched.data) {
            let batch = batch.expect("a batch");
            let header = *batch.header();
            batch.verify_crc().expect("its checksum");
            assert_eq!(header.base_offset, offset, "no offset is skipped");
            let producer = usize::try_from(header.producer_id - FIRST_PRODUCER_ID).expect("a producer of ours");
            let first_record = stored[producer].len() as u64 * BATCH_RECORDS;
            assert_eq!(header.base_sequence as u64, first_record, "producer {producer}: lost, doubled or out of order");
            let records = batch.decode(DECODE_LIMIT_BYTES).expect("records");
            for (place, record) in records.records().enumerate() {
                let value = record.expect("a record").value.expect("a value");
                let numbers = [producer as u64, first_record + place as u64].map(u64::to_be_bytes).concat();
                assert_eq!(value[..16], numbers, "producer {producer}: somebody else's record");
            }
            stored[producer].push(header.base_offset);
            offset = header.next_offset();
        }
    }
}

/// The sequences of a batch are what makes a retry; its records do not matter.
fn retry_of(producer: usize, batch: u64) -> Vec<u8> {
    let first_sequence = i32::try_from(batch * BATCH_RECORDS).expect("a short run");
    let mut builder = BatchBuilder::new().producer(FIRST_PRODUCER_ID + producer as i64, 0, first_sequence);
    for _ in 0..BATCH_RECORDS {
        builder.append(0, None, Some(b"retry"), &[]);
    }
    builder.build().expect("a batch")
}

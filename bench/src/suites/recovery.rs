//! `recovery`: from the opening to the first durable append behind it, after a kill, with cold caches.
//!
//! One process fills a log and kills itself, another opens it. The log keeps its default budget of 200 ms, so the tail
//! behind its newest checkpoint is what the pace of checkpoints leaves, whatever the history. `rebuild` opens a log
//! that has lost every checkpoint, snapshot and index, beside a program that only reads the same files.

use oncelog::{Ack, Append, Engine, EngineOptions, Log, OpenOptions};
use oncelog_formats::BatchBuilder;
use oncelog_formats::crc32c::crc32c;
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::Suite;
use super::tables::scatter;
use crate::Failure;
use crate::bench::Bench;
use crate::options::Options;
use crate::report::Metric;

pub(super) const SUITE: Suite = Suite {
    name: "recovery",
    about: "from the opening to the first durable append after a kill, cold; and a rebuild without side files",
    systems: &["oncelog", RAW],
    run,
};

pub(super) const FILL: &str = "recovery-fill";
pub(super) const OPEN: &str = "recovery-open";
/// Reads the segments from end to end with direct reads, 4 MiB at a time.
const RAW: &str = "raw-read";

const NAME: &str = "bench-0";
const LARGE_BYTES: usize = 64 << 10;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let histories: &[u64] = bench.options.amount(&[64 << 20, 1 << 30, 8 << 30], &[64 << 20, 1 << 30]);
    let producers: &[u64] = if bench.options.brief() { &[1, 1_000_000] } else { &[1, 10_000, 1_000_000] };
    for &history in histories {
        for &producers in producers {
            let case = format!("history={history} producers={producers}");
            bench.compare_some(
                &case,
                |system| system != RAW,
                |_, turn| {
                    let folder = turn.folder(2 * history + (2 << 30))?;
                    fill(folder.path(), &case)?;
                    cool(folder.path())?;
                    Ok(vec![(Metric::Ms, child_number(OPEN, folder.path(), &case)?)])
                },
            )?;
        }
    }
    rebuild(bench)
}

fn rebuild(bench: &mut Bench) -> Result<(), Failure> {
    let history: u64 = bench.options.amount(2 << 30, 1 << 29);
    let case = format!("history={history} producers=10000 files=log");
    bench.compare(&case, |name, turn| {
        let folder = turn.folder(2 * history)?;
        fill(folder.path(), &case)?;
        let log = folder.path().join(NAME);
        for path in files(&log)?.into_iter().filter(|path| path.extension().is_none_or(|e| e != "log")) {
            fs::remove_file(path)?;
        }
        let bytes: u64 = files(&log)?.iter().map(|path| path.metadata().map(|m| m.len())).sum::<Result<_, _>>()?;
        cool(folder.path())?;
        let ms = match name {
            RAW => read_raw(&log)?,
            _ => child_number(OPEN, folder.path(), &case)?,
        };
        Ok(vec![(Metric::Ms, ms), (Metric::MbPerS, bytes as f64 / ms / 1e3)])
    })
}

fn fill(dir: &Path, case: &str) -> Result<(), Failure> {
    // It ends by a kill of its own: only what it says counts.
    let output = super::child(FILL)?.args(["--case", case, "--dir"]).arg(dir).output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if said.trim() == "full" { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned().into()) }
}

fn child_number(task: &str, dir: &Path, case: &str) -> Result<f64, Failure> {
    let output = super::child(task)?.args(["--case", case, "--dir"]).arg(dir).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim().parse().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned().into())
}

/// Nothing of it is in the page cache any more.
fn cool(dir: &Path) -> Result<(), Failure> {
    rustix::fs::syncfs(File::open(dir)?)?;
    for path in files(dir)?.into_iter().chain(files(&dir.join(NAME))?) {
        fadvise(File::open(path)?, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn files(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_raw(log: &Path) -> Result<f64, Failure> {
    let mut block = oncelog_device::AlignedBuffer::new(4 << 20);
    let started = Instant::now();
    for path in files(log)? {
        let flags = OFlags::RDONLY | OFlags::DIRECT;
        let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
        let mut position = 0;
        loop {
            let got = file.read_at(block.as_mut_slice(), position)?;
            position += got as u64;
            if got < block.as_slice().len() {
                break;
            }
        }
    }
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

fn number(case: &str, key: &str) -> Result<u64, Failure> {
    let value = case.split(' ').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
    Ok(value.ok_or("a part of the case is missing")?.parse()?)
}

/// Fills a log, says so, and kills its process.
pub(super) fn fill_child(options: &Options) -> Result<(), Failure> {
    let (dir, case) = (options.dir.as_deref().ok_or("no folder")?, options.case.as_deref().ok_or("no case")?);
    let (history, producers) = (number(case, "history")?, number(case, "producers")?);
    let engine = Engine::open(dir, EngineOptions::default())?;
    let log = engine.log(NAME, OpenOptions::default())?;
    let mut sent = vec![0; producers as usize];
    let mut small = template(8)?;
    let mut written = 0;
    for producer in 0..producers {
        written += send(&log, &mut small, producer, &mut sent, Ack::Accepted)?;
    }
    let mut large = template(LARGE_BYTES)?;
    for turn in 0_u64.. {
        if written >= history {
            break;
        }
        written += send(&log, &mut large, scatter(turn) % producers, &mut sent, Ack::Written)?;
    }
    log.append_wait(Append::client(&with(&mut small, 0, sent[0])[..]))?;
    println!("full");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
    Ok(())
}

/// Prints how long it took until an append was durable, in ms.
pub(super) fn open_child(options: &Options) -> Result<(), Failure> {
    let dir = options.dir.as_deref().ok_or("no folder")?;
    let mut small = template(8)?;
    let bytes = with(&mut small, 1 << 40, 0).to_vec();
    let started = Instant::now();
    let engine = Engine::open(dir, EngineOptions::default())?;
    let log = engine.log(NAME, OpenOptions::default())?;
    let opened = started.elapsed();
    log.append_wait(Append::client(&bytes))?;
    println!("{}", started.elapsed().as_secs_f64() * 1e3);
    eprintln!("opened after {opened:?}: {:?}", log.report());
    drop(engine);
    Ok(())
}

pub(super) fn template(value_bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut builder = BatchBuilder::new().producer(0, 0, 0);
    builder.append(0, None, Some(&vec![0x5a; value_bytes]), &[]);
    Ok(builder.build()?)
}

/// The batch as this producer would send it.
pub(super) fn with(batch: &mut Vec<u8>, producer: u64, sequence: i32) -> &Vec<u8> {
    batch[43..51].copy_from_slice(&producer.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn send(log: &Log, batch: &mut Vec<u8>, producer: u64, sent: &mut [i32], ack: Ack) -> Result<u64, Failure> {
    let bytes = with(batch, producer, sent[producer as usize]);
    sent[producer as usize] += 1;
    log.append_wait(Append::client(bytes).ack(ack))?;
    Ok(bytes.len() as u64)
}

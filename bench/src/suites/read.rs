//! `read`: from the front with a cold cache, and the tail just written.
//!
//! The log is written once for a case; everyone reads it, the raw programs its very segment files. Cold: the engine
//! checks each batch's checksum, the raw programs check nothing, and the cache is dropped in front of each run. Tail:
//! whoever reads checks every batch, because a slice of memory alone is no figure.

use oncelog::{Ack, Append, DeviceKind, Engine, EngineOptions, Log, OpenOptions, Read};
use oncelog_device::AlignedBuffer;
use oncelog_device::raw::RawRing;
use oncelog_formats::Batches;
use rustix::fs::{Advice, OFlags, fadvise};
use std::fs::{self, File, OpenOptions as FileOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::Bench;
use crate::report::Metric;

pub(super) const SUITE: Suite = Suite {
    name: "read",
    about: "sequential reads with a cold cache, and of the tail",
    systems: &["oncelog", "oncelog-blocking", RING, DIRECT, BUFFERED],
    run,
};

const RING: &str = "raw-uring";
/// Direct, one call at a time.
const DIRECT: &str = "raw-pread";
/// Through the page cache.
const BUFFERED: &str = "raw-pread-cached";

const SIZE_BYTES: usize = 65536;
const PIECE_BYTES: usize = 1 << 20;
const DEPTH: usize = 8;
const TAIL_BYTES: u64 = 16 << 20;
const LOG_NAME: &str = "bench-0";

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let bytes = bench.options.amount(4 << 30, 1 << 30);
    let case = format!("bytes={bytes} cold=1");
    if bench.wants_case(&case) {
        let folder = bench.folder(2 * bytes)?;
        write(folder.path(), bytes)?;
        folder.settle()?;
        // The first pass over new files is slower for whoever it is.
        read_by_ring(folder.path())?;
        bench.compare(&case, |name, _turn| {
            forget(folder.path())?;
            let took = match name {
                RING => read_by_ring(folder.path())?,
                DIRECT => read_by_calls(folder.path(), true)?,
                BUFFERED => read_by_calls(folder.path(), false)?,
                _ => read_log(folder.path(), kind_of(name), bytes)?,
            };
            Ok(vec![(Metric::MbPerS, bytes as f64 / 1e6 / took.as_secs_f64())])
        })?;
    }
    let case = format!("bytes={TAIL_BYTES} cold=0");
    let from_memory = |name: &str| name.starts_with("oncelog") || name == BUFFERED;
    bench.compare_some(&case, from_memory, |name, turn| {
        let folder = turn.folder(1 << 30)?;
        let took = match name {
            BUFFERED => read_cached_tail(folder.path())?,
            _ => read_tail(folder.path(), kind_of(name))?,
        };
        Ok(vec![(Metric::MbPerS, TAIL_BYTES as f64 / 1e6 / took.as_secs_f64())])
    })
}

fn kind_of(name: &str) -> DeviceKind {
    if name == "oncelog" { DeviceKind::Auto } else { DeviceKind::Blocking }
}

fn open(dir: &Path, device_kind: DeviceKind) -> Result<(Engine, Log), Failure> {
    let engine = Engine::open(dir, EngineOptions { device_kind, ..EngineOptions::default() })?;
    let log = engine.log(LOG_NAME, OpenOptions::default())?;
    Ok((engine, log))
}

fn append(log: &Log, bytes: u64) -> Result<i64, Failure> {
    let from = log.log_end_offset();
    let mut source = BatchSource::new(0, SIZE_BYTES)?;
    for _ in 0..bytes / SIZE_BYTES as u64 {
        log.append_wait(Append::client(source.next()).ack(Ack::Accepted))?;
    }
    log.sync()?;
    Ok(from)
}

fn write(dir: &Path, bytes: u64) -> Result<(), Failure> {
    let (engine, log) = open(dir, DeviceKind::Auto)?;
    append(&log, bytes)?;
    drop(log);
    Ok(engine.close()?)
}

fn read_log(dir: &Path, device_kind: DeviceKind, bytes: u64) -> Result<Duration, Failure> {
    let (engine, log) = open(dir, device_kind)?;
    let started = Instant::now();
    let read = read_from(&log, 0, take)?;
    let took = started.elapsed();
    drop(log);
    engine.close()?;
    if read == bytes { Ok(took) } else { Err(format!("read {read} of {bytes} bytes").into()) }
}

/// Writes the tail and reads it right away; the best of several, because memory is what is asked after.
fn read_tail(dir: &Path, device_kind: DeviceKind) -> Result<Duration, Failure> {
    let (engine, log) = open(dir, device_kind)?;
    let from = append(&log, TAIL_BYTES)?;
    let took = best_of_five(|| read_from(&log, from, check), TAIL_BYTES)?;
    drop(log);
    engine.close()?;
    Ok(took)
}

/// The same bytes through the page cache.
fn read_cached_tail(dir: &Path) -> Result<Duration, Failure> {
    write(dir, TAIL_BYTES)?;
    let mut buffer = AlignedBuffer::new(PIECE_BYTES);
    let paths = segments(dir)?;
    let read = || {
        let mut bytes = 0;
        for path in &paths {
            let (file, mut position) = (File::open(path)?, 0);
            loop {
                let read = file.read_at(buffer.as_mut_slice(), position)?;
                if read == 0 {
                    break;
                }
                check(&buffer.as_slice()[..read])?;
                position += read as u64;
            }
            bytes += position;
        }
        Ok(bytes)
    };
    best_of_five(read, TAIL_BYTES)
}

fn best_of_five(mut read: impl FnMut() -> Result<u64, Failure>, bytes: u64) -> Result<Duration, Failure> {
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let read = read()?;
        best = best.min(started.elapsed());
        if read != bytes {
            return Err(format!("read {read} of {bytes} bytes").into());
        }
    }
    Ok(best)
}

/// Reads to the end and lets `look` have everything; answers bytes read.
fn read_from(log: &Log, from: i64, look: fn(&[u8]) -> Result<(), Failure>) -> Result<u64, Failure> {
    let (mut offset, mut bytes) = (from, 0);
    loop {
        let fetched = log.read(Read::from(offset))?;
        if fetched.data.is_empty() {
            return Ok(bytes);
        }
        look(&fetched.data)?;
        bytes += fetched.data.len() as u64;
        // One record a batch, all of one size.
        offset += (fetched.data.len() / SIZE_BYTES) as i64;
    }
}

/// What a consumer does with batches that it did not get from a checking reader: without it a slice of memory is handed
/// out and nothing is measured.
fn check(data: &[u8]) -> Result<(), Failure> {
    for batch in Batches::new(data) {
        batch?.verify_crc()?;
    }
    Ok(())
}

/// The engine has checked already.
fn take(_data: &[u8]) -> Result<(), Failure> {
    Ok(())
}

fn segments(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = fs::read_dir(dir.join(LOG_NAME))?.collect::<Result<Vec<_>, _>>()?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    paths.sort();
    Ok(paths)
}

fn forget(dir: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(dir.join(LOG_NAME))? {
        let file = File::open(entry?.path())?;
        file.sync_all()?;
        fadvise(&file, 0, None, Advice::DontNeed)?;
    }
    Ok(())
}

fn open_direct(path: &Path) -> Result<File, Failure> {
    Ok(FileOptions::new().read(true).custom_flags(OFlags::DIRECT.bits().cast_signed()).open(path)?)
}

fn read_by_calls(dir: &Path, direct: bool) -> Result<Duration, Failure> {
    let mut buffer = AlignedBuffer::new(PIECE_BYTES);
    let started = Instant::now();
    for path in segments(dir)? {
        let file = if direct { open_direct(&path)? } else { File::open(&path)? };
        let mut position = 0;
        loop {
            match file.read_at(buffer.as_mut_slice(), position)? {
                0 => break,
                read => position += read as u64,
            }
        }
    }
    Ok(started.elapsed())
}

fn read_by_ring(dir: &Path) -> Result<Duration, Failure> {
    let started = Instant::now();
    for path in segments(dir)? {
        let length = fs::metadata(&path)?.len();
        let mut ring = RawRing::new(vec![open_direct(&path)?], DEPTH, PIECE_BYTES)?;
        let mut idle: Vec<usize> = (0..DEPTH).collect();
        let (mut position, mut read) = (0, 0);
        while read < length {
            while position < length
                && let Some(slot) = idle.pop()
            {
                ring.read(slot, 0, position, PIECE_BYTES);
                position += PIECE_BYTES as u64;
            }
            ring.wait(|slot, moved| {
                idle.push(slot);
                read += moved as u64;
            })?;
        }
    }
    Ok(started.elapsed())
}

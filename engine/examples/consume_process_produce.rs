//! Reads one log, writes another, keeps its position in a third, is killed at random, and stays exactly-once.
//!
//! The parent fills the log `orders-0` and starts itself again as a worker, which it kills with SIGKILL again and
//! again. The worker adds up: for each order it writes the running total to `totals-0` and the position behind the
//! order to `positions-0`, in one atomic batch. The parent then reads what is there: one total for each order, each the
//! right one.
//!
//!     cargo run --release -p oncelog --example consume_process_produce -- [orders] [kills]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use oncelog::formats::BatchBuilder;
use oncelog::{Append, Engine, EngineOptions, Log, OpenOptions};

type Failure = Box<dyn std::error::Error>;

/// Orders that go into one atomic batch at most.
const AT_ONCE: usize = 8;

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, dir] = &arguments[..]
        && mode == "worker"
    {
        work(Path::new(dir))?;
        return Ok(ExitCode::SUCCESS);
    }
    let number = |at: usize, usual: u64| arguments.get(at).map_or(Ok(usual), |text| text.parse());
    let (orders, kills) = (number(0, 2_000)?, number(1, 20)?);
    let temporary = tempfile::tempdir()?;
    run(temporary.path(), orders, kills)
}

fn run(dir: &Path, orders: u64, kills: u64) -> Result<ExitCode, Failure> {
    fill(dir, orders)?;
    let mut chance = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let mut killed = 0;
    loop {
        let mut worker = start(dir)?;
        if killed < kills {
            // Once it works, at a random moment of its work.
            let mut line = String::new();
            BufReader::new(worker.stdout.take().ok_or("no output")?).read_line(&mut line)?;
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_micros(chance >> 50));
            worker.kill()?;
            worker.wait()?;
            killed += 1;
        } else if worker.wait()?.success() {
            break;
        }
    }
    check(dir, orders, killed)
}

fn start(dir: &Path) -> Result<Child, Failure> {
    Ok(Command::new(std::env::current_exe()?).arg("worker").arg(dir).stdout(Stdio::piped()).spawn()?)
}

/// Orders with amounts from 1 up.
fn fill(dir: &Path, orders: u64) -> Result<(), Failure> {
    let engine = Engine::open(dir, EngineOptions::default())?;
    let log = engine.log("orders-0", OpenOptions::default())?;
    for (sequence, first) in (1..=orders).step_by(100).enumerate() {
        let mut builder = BatchBuilder::new().producer(1, 0, sequence as i32 * 100);
        for amount in first..=orders.min(first + 99) {
            builder.append(0, None, Some(amount.to_string().as_bytes()), &[]);
        }
        log.append_wait(Append::client(&builder.build()?))?;
    }
    Ok(engine.close()?)
}

/// The worker: goes on where the last one stopped, by what the logs say.
fn work(dir: &Path) -> Result<(), Failure> {
    let engine = Engine::open(dir, EngineOptions::default())?;
    let open = |name| engine.log(name, OpenOptions::default());
    let (orders, totals, positions) = (open("orders-0")?, open("totals-0")?, open("positions-0")?);
    let (mut position, mut total) = match newest(&positions)? {
        None => (0, 0),
        Some(text) => {
            let (position, total) = text.split_once(' ').ok_or("a position and a total")?;
            (position.parse()?, total.parse::<u64>()?)
        }
    };
    println!("at order {position}");
    loop {
        let todo: Vec<(i64, String)> = committed(&orders, position)?.into_iter().take(AT_ONCE).collect();
        let Some((last, _)) = todo.last() else { break };
        let mut results = BatchBuilder::new();
        for (_, amount) in &todo {
            total += amount.parse::<u64>()?;
            results.append(0, None, Some(total.to_string().as_bytes()), &[]);
        }
        position = last + 1;
        let mut place = BatchBuilder::new();
        place.append(0, None, Some(format!("{position} {total}").as_bytes()), &[]);

        let mut batch = engine.begin()?;
        batch.append(&totals, results)?;
        batch.append(&positions, place)?;
        batch.commit()?;
    }
    Ok(engine.close()?)
}

/// The newest committed record of all. What a crash left of a batch lies behind it or before it, and does not count.
fn newest(log: &Log) -> Result<Option<String>, Failure> {
    let (mut offset, mut newest) = (log.log_start_offset(), None);
    while let Some((last, text)) = committed(log, offset)?.pop() {
        (offset, newest) = (last + 1, Some(text));
    }
    Ok(newest)
}

/// Offsets and values of the committed records from `offset` on, as far as one read sees.
fn committed(log: &Log, offset: i64) -> Result<Vec<(i64, String)>, Failure> {
    let (mut from, mut found) = (offset, Vec::new());
    while found.is_empty() {
        let read = log.read_committed(from, 1 << 16)?;
        for batch in read.batches() {
            for record in batch?.decode(1 << 20)?.records() {
                let record = record?;
                if record.offset >= offset {
                    let text = String::from_utf8(record.value.unwrap_or_default().to_vec())?;
                    found.push((record.offset, text));
                }
            }
        }
        if read.next_offset() == from {
            break;
        }
        from = read.next_offset();
    }
    Ok(found)
}

/// One total for each order, in order, and each the sum of the orders up to it.
fn check(dir: &Path, orders: u64, killed: u64) -> Result<ExitCode, Failure> {
    let engine = Engine::open(PathBuf::from(dir), EngineOptions::default())?;
    let totals = engine.log("totals-0", OpenOptions::default())?;
    let (mut offset, mut seen, mut wrong) = (0, 0, 0);
    loop {
        let records = committed(&totals, offset)?;
        let Some((last, _)) = records.last() else { break };
        offset = last + 1;
        for (_, text) in &records {
            seen += 1;
            wrong += u64::from(text.parse::<u64>()? != seen * (seen + 1) / 2);
        }
    }
    let (lost, doubled) = (orders.saturating_sub(seen), seen.saturating_sub(orders));
    println!("{orders} orders, {killed} kills: {lost} lost, {doubled} doubled, {wrong} wrong totals");
    engine.close()?;
    Ok(if (lost, doubled, wrong) == (0, 0, 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

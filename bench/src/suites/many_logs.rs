//! `many-logs`: many logs in one process, each with one small durable batch on the way.
//!
//! The raw ring is one thread with one write in flight for each file; by calls it takes a thread for each.

use oncelog_device::raw::RawRing;
use oncelog_formats::BatchView;
use oncelog_formats::batch::stamp;
use std::time::Instant;

use super::Suite;
use crate::Failure;
use crate::batches::BatchSource;
use crate::bench::{Bench, Turn};
use crate::clients::{self, Answers, Load};
use crate::place::Folder;
use crate::report::Measured;
use crate::systems::{self, Plan, raw};

pub(super) const SUITE: Suite = Suite {
    name: "many-logs",
    about: "64 logs with a durable batch of 4 KiB on the way in each",
    systems: &["oncelog", "oncelog-blocking", RING, CALLS, "raft-engine", "fjall"],
    run,
};

const RING: &str = "raw-uring";
const CALLS: &str = "raw-pwritev2";
const LOGS: usize = 64;
const SIZE_BYTES: usize = 4096;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let case = |writers: usize| format!("logs={LOGS} bytes={SIZE_BYTES} writers={writers}");
    bench.compare(&case(LOGS), |name, turn| measure(name, turn, false))?;
    let on_one_thread = |system: &str| system.starts_with("oncelog") || system == RING;
    bench.compare_some(&case(1), on_one_thread, |name, turn| measure(name, turn, true))
}

fn measure(name: &str, turn: &Turn<'_>, one_thread: bool) -> Result<Measured, Failure> {
    let budget_bytes = turn.options.amount(1 << 30, 256 << 20);
    let load = Load::new(SIZE_BYTES, turn.options.span(), budget_bytes);
    // The budget is everyone's; one log may run ahead of the others by half.
    let file_bytes = (budget_bytes / LOGS as u64 * 3 / 2).next_multiple_of(1 << 20);
    let folder = turn.folder(3 * budget_bytes)?;
    let answers = match name {
        RING => by_ring(&folder, load, file_bytes)?,
        CALLS => by_calls(&folder, load, file_bytes)?,
        _ => {
            let plan = Plan { bytes: budget_bytes, writers: LOGS, logs: LOGS, ..Plan::default() };
            let system = systems::open(name, &folder, &plan)?;
            folder.settle()?;
            let answers = match one_thread {
                true => clients::futures(&*system, load, LOGS)?,
                false => clients::threads(&*system, load, LOGS)?,
            };
            system.close()?;
            answers
        }
    };
    answers.measured()
}

fn by_ring(folder: &Folder, load: Load, file_bytes: u64) -> Result<Answers, Failure> {
    let file = |log| raw::prepared_file(&folder.path().join(format!("{log}.log")), file_bytes);
    let files = (0..LOGS).map(file).collect::<Result<Vec<_>, _>>()?;
    let mut ring = RawRing::new(files, LOGS, SIZE_BYTES)?;
    let mut sources = (0..LOGS).map(|log| BatchSource::new(log as i64, SIZE_BYTES)).collect::<Result<Vec<_>, _>>()?;
    folder.settle()?;
    clients::driven(load, |goes_on, answered| {
        let mut sent = [Instant::now(); LOGS];
        let mut count = [0_u64; LOGS];
        let (mut on_the_way, mut idle) = (0, (0..LOGS).collect::<Vec<_>>());
        loop {
            while let Some(log) = idle.pop() {
                if goes_on() {
                    sent[log] = Instant::now();
                    put(ring.buffer(log), sources[log].next(), count[log])?;
                    let position = count[log] * SIZE_BYTES as u64 % file_bytes;
                    ring.write(log, log, position, SIZE_BYTES, true);
                    count[log] += 1;
                    on_the_way += 1;
                }
            }
            if on_the_way == 0 {
                return Ok(());
            }
            ring.wait(|log, _moved| {
                answered(sent[log]);
                on_the_way -= 1;
                idle.push(log);
            })?;
        }
    })
}

/// Checked, copied and stamped, as every log does.
fn put(buffer: &mut [u8], batch: &[u8], offset: u64) -> Result<(), Failure> {
    BatchView::new(batch)?.verify_crc()?;
    buffer[..batch.len()].copy_from_slice(batch);
    Ok(stamp(buffer, offset.cast_signed(), 0)?)
}

fn by_calls(folder: &Folder, load: Load, file_bytes: u64) -> Result<Answers, Failure> {
    let plan = Plan { bytes: file_bytes, retention_bytes: Some(file_bytes), ..Plan::default() };
    let open = |log: usize| raw::Raw::open_named(&folder.path().join(format!("{log}.log")), raw::Way::Dsync, &plan);
    let logs = Apart((0..LOGS).map(open).collect::<Result<_, _>>()?);
    folder.settle()?;
    clients::threads(&logs, load, LOGS)
}

/// One raw log for each writer.
struct Apart(Vec<raw::Raw>);

impl systems::System for Apart {
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.0[writer].append(0, batch)
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.0[writer].accept(0, batch)
    }

    fn sync(&self) -> Result<(), Failure> {
        self.0.iter().try_for_each(systems::System::sync)
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

//! `busy`: durable answers while every core is taken by other work.
//!
//! The work is one spinning process for each core, of the same session, so that the scheduler sees what it would see
//! beside a busy application. Answers count from one second after it began: a way to sync that collapses under load
//! must have been left by then.

use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use super::Suite;
use crate::Failure;
use crate::bench::{Bench, Turn};
use crate::clients::{self, Load};
use crate::options::Options;
use crate::report::Measured;
use crate::systems::{self, Plan};

pub(super) const SUITE: Suite = Suite {
    name: "busy",
    about: "durable answers while every core is taken by other work",
    systems: &["oncelog", "oncelog-blocking", "raw-uring", "raw-pwritev2", "raw-pwrite-fdatasync"],
    run,
};

pub(super) const CHILD: &str = "spin";

const SIZES_BYTES: [usize; 2] = [65536, 4096];
const WRITERS: &[usize] = &[1, 4, 16];
const WRITERS_IN_BRIEF: &[usize] = &[4];
/// Without other work, then with it, before answers count.
const QUIET: Duration = Duration::from_millis(200);
const GRACE: Duration = Duration::from_secs(1);

fn run(bench: &mut Bench) -> Result<(), Failure> {
    let load = thread::available_parallelism().map_or(1, usize::from);
    for size_bytes in SIZES_BYTES {
        for &writers in if bench.options.brief() { WRITERS_IN_BRIEF } else { WRITERS } {
            let case = format!("bytes={size_bytes} writers={writers} load={load}");
            bench.compare(&case, |name, turn| measure(name, turn, size_bytes, writers, load))?;
        }
    }
    Ok(())
}

fn measure(
    name: &str,
    turn: &Turn<'_>,
    size_bytes: usize,
    writers: usize,
    spinners: usize,
) -> Result<Measured, Failure> {
    let budget_bytes = if size_bytes > 4096 { turn.options.amount(3 << 30, 2 << 30) } else { 512 << 20 };
    let span = turn.options.span();
    let load = Load { size_bytes, warm: QUIET + GRACE, span, budget_bytes };
    let folder = turn.folder(2 * budget_bytes)?;
    let plan = Plan { bytes: budget_bytes, writers, ..Plan::default() };
    let system = systems::open(name, &folder, &plan)?;
    folder.settle()?;
    let (stop, stopped) = channel::<()>();
    let answers = thread::scope(|scope| {
        let loading = scope.spawn(move || spin_after(QUIET, spinners, &stopped));
        let answers = clients::threads(&*system, load, writers);
        drop(stop);
        loading.join().map_err(|_panic| "the load panicked")??;
        answers
    })?;
    system.close()?;
    answers.measured()
}

/// Waits, then keeps `count` processes spinning until the other end of `stopped` is gone.
fn spin_after(pause: Duration, count: usize, stopped: &Receiver<()>) -> Result<(), Failure> {
    let spinners = (0..count).map(|_| Spinner::new()).collect::<Result<Vec<_>, _>>()?;
    if stopped.recv_timeout(pause).is_err_and(|why| why == std::sync::mpsc::RecvTimeoutError::Timeout) {
        for spinner in &spinners {
            spinner.begin()?;
        }
        let _gone = stopped.recv();
    }
    Ok(())
}

/// A process that spins from the first byte of its input to the end of it, so that it ends with this one in any case.
struct Spinner(Child);

impl Spinner {
    fn new() -> Result<Self, Failure> {
        Ok(Self(super::child(CHILD)?.stdin(Stdio::piped()).spawn()?))
    }

    fn begin(&self) -> Result<(), Failure> {
        Ok(self.0.stdin.as_ref().ok_or("no input")?.write_all(b"x")?)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _best_effort = self.0.wait();
    }
}

/// Spins between the first byte of standard input and its end.
pub(super) fn child(_options: &Options) -> Result<(), Failure> {
    let mut first = [0];
    if std::io::stdin().read(&mut first)? == 0 {
        return Ok(());
    }
    let waiting = thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    while !waiting.is_finished() {
        for turn in 0..100_000_u64 {
            std::hint::black_box(turn);
        }
    }
    Ok(())
}

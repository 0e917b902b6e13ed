//! `durable`: producers that wait until each batch survives the loss of power.

use super::Suite;
use crate::Failure;
use crate::bench::{Bench, Turn, is_peer};
use crate::clients::{self, Answers, Load};
use crate::report::Measured;
use crate::systems::{APPENDING, Plan, System};

pub(super) const SUITE: Suite = Suite {
    name: "durable",
    about: "answers that survive the loss of power, by size of batch and number of writers",
    systems: APPENDING,
    run,
};

const SIZES_BYTES: [usize; 2] = [65536, 1024];
const WRITERS: [usize; 4] = [1, 4, 16, 64];
const TICKETS: [usize; 2] = [16, 64];
/// Of one writer: well above what a device answers, one after the other.
const MOST_ACKS_PER_S: f64 = 60_000.0;

fn run(bench: &mut Bench) -> Result<(), Failure> {
    for size_bytes in SIZES_BYTES {
        for writers in WRITERS {
            let case = format!("bytes={size_bytes} writers={writers}");
            bench.compare(&case, |name, turn| {
                measure(name, turn, size_bytes, writers, |system, load| clients::threads(system, load, writers))
            })?;
        }
    }
    for tickets in TICKETS {
        let size_bytes = SIZES_BYTES[0];
        let case = format!("bytes={size_bytes} writers=1 tickets={tickets}");
        bench.compare_some(
            &case,
            |system| !is_peer(system),
            |name, turn| {
                measure(name, turn, size_bytes, tickets, |system, load| clients::tickets(system, load, tickets))
            },
        )?;
    }
    Ok(())
}

fn measure(
    name: &str,
    turn: &Turn<'_>,
    size_bytes: usize,
    at_once: usize,
    send: impl FnOnce(&dyn System, Load) -> Result<Answers, Failure>,
) -> Result<Measured, Failure> {
    let most_bytes = match size_bytes {
        0..=4096 => turn.options.amount(512 << 20, 128 << 20),
        _ => turn.options.amount(2 << 30, 512 << 20),
    };
    let span = turn.options.span();
    // Few writers reach only a part of what many do.
    let reach_bytes = (span.as_secs_f64() * MOST_ACKS_PER_S * (at_once * size_bytes) as f64) as u64;
    let budget_bytes = most_bytes.min(reach_bytes.next_multiple_of(16 << 20));
    let load = Load::new(size_bytes, span, budget_bytes);
    let folder = turn.folder(2 * budget_bytes)?;
    let system =
        crate::systems::open(name, &folder, &Plan { bytes: budget_bytes, writers: at_once, ..Plan::default() })?;
    folder.settle()?;
    let answers = send(&*system, load)?;
    system.close()?;
    answers.measured()
}

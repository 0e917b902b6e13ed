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
            |name, turn| measure(name, turn, size_bytes, 1, |system, load| clients::tickets(system, load, tickets)),
        )?;
    }
    Ok(())
}

fn measure(
    name: &str,
    turn: &Turn<'_>,
    size_bytes: usize,
    writers: usize,
    send: impl FnOnce(&dyn System, Load) -> Result<Answers, Failure>,
) -> Result<Measured, Failure> {
    let budget_bytes = match size_bytes {
        0..=4096 => turn.options.amount(512 << 20, 128 << 20),
        _ => turn.options.amount(2 << 30, 512 << 20),
    };
    let load = Load::new(size_bytes, turn.options.span(), budget_bytes);
    let folder = turn.folder(2 * budget_bytes)?;
    let system = crate::systems::open(name, &folder, &Plan { bytes: budget_bytes, writers, ..Plan::default() })?;
    folder.settle()?;
    let answers = send(&*system, load)?;
    system.close()?;
    answers.measured()
}

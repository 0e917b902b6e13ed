//! The engine, as its users call it.

use oncelog::{Ack, Append, Config, DeviceKind, Engine, EngineOptions, Log, OpenOptions};
use std::path::Path;

use super::{Answering, Pending, Plan, System};
use crate::Failure;

const LEAST_SEGMENT_BYTES: u64 = 4 << 20;

pub(super) struct Oncelog {
    engine: Engine,
    logs: Vec<Log>,
}

impl Oncelog {
    pub(super) fn open(dir: &Path, device_kind: DeviceKind, plan: &Plan) -> Result<Self, Failure> {
        let engine = Engine::open(dir, EngineOptions { device_kind, ..EngineOptions::default() })?;
        let config = config_of(plan);
        prepare(&engine, plan, config.segment_bytes)?;
        let options = OpenOptions { config, ..OpenOptions::default() };
        let logs = (0..plan.logs).map(|number| engine.log(&format!("bench-{number}"), options.clone()));
        let logs = logs.collect::<Result<_, _>>()?;
        Ok(Self { engine, logs })
    }

    fn log(&self, writer: usize) -> &Log {
        &self.logs[writer % self.logs.len()]
    }
}

/// Makes as much space ready as the raw programs have: everything that will be written where the plan names no
/// segments, a tenth of it where it does, so that the engine has to make the rest while it is measured.
fn prepare(engine: &Engine, plan: &Plan, segment_bytes: u64) -> Result<(), Failure> {
    let needed_bytes = if plan.segment_bytes.is_some() { plan.bytes / 10 } else { plan.bytes };
    let each = (needed_bytes / plan.logs as u64).div_ceil(segment_bytes).max(1) as usize;
    Ok(engine.prepare_spares(each * plan.logs + plan.logs.min(2), segment_bytes)?)
}

fn config_of(plan: &Plan) -> Config {
    let mut config = Config::default();
    // The usual size, or what the plan needs where that is less: nothing is made ready that nobody will use.
    let needed_bytes = (plan.bytes / plan.logs as u64 * 3 / 2).next_multiple_of(1 << 20);
    config.segment_bytes =
        plan.segment_bytes.unwrap_or(config.segment_bytes.min(needed_bytes.max(LEAST_SEGMENT_BYTES)));
    if let Some(bytes) = plan.retention_bytes {
        config.retention_bytes = bytes.cast_signed();
        // A segment that may go is free again at once.
        config.file_delete_delay_ms = 0;
    }
    config
}

impl System for Oncelog {
    fn append(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.log(writer).append_wait(Append::client(batch))?;
        Ok(())
    }

    fn submit<'a>(&'a self, writer: usize, batch: &[u8]) -> Result<Pending<'a>, Failure> {
        let ticket = self.log(writer).append(Append::client(batch))?;
        Ok(Box::new(move || Ok(ticket.wait().map(drop)?)))
    }

    fn submit_future<'a>(&'a self, writer: usize, batch: &[u8]) -> Result<Answering<'a>, Failure> {
        let ticket = self.log(writer).append(Append::client(batch))?;
        Ok(Box::pin(async move { Ok(ticket.await.map(drop)?) }))
    }

    fn accept(&self, writer: usize, batch: &[u8]) -> Result<(), Failure> {
        self.log(writer).append_wait(Append::client(batch).ack(Ack::Accepted))?;
        Ok(())
    }

    fn sync(&self) -> Result<(), Failure> {
        for log in &self.logs {
            log.sync()?;
        }
        Ok(())
    }

    fn retain(&self) -> Result<(), Failure> {
        for log in &self.logs {
            log.apply_retention()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<(), Failure> {
        drop(self.logs);
        Ok(self.engine.close()?)
    }
}

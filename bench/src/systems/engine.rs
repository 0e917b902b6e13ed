//! The engine, as its users call it.

use oncelog::{Ack, Append, Config, DeviceKind, Engine, EngineOptions, Log, OpenOptions};
use std::path::Path;

use super::{Answering, Pending, Plan, System};
use crate::Failure;

pub(super) struct Oncelog {
    engine: Engine,
    logs: Vec<Log>,
}

impl Oncelog {
    pub(super) fn open(dir: &Path, device_kind: DeviceKind, plan: &Plan) -> Result<Self, Failure> {
        let engine = Engine::open(dir, EngineOptions { device_kind, ..EngineOptions::default() })?;
        let mut config = Config::default();
        if let Some(bytes) = plan.segment_bytes {
            config.segment_bytes = bytes;
        }
        if let Some(bytes) = plan.retention_bytes {
            config.retention_bytes = bytes.cast_signed();
            // A segment that may go is free again at once.
            config.file_delete_delay_ms = 0;
        }
        let options = OpenOptions { config, ..OpenOptions::default() };
        let logs = (0..plan.logs).map(|number| engine.log(&format!("bench-{number}"), options.clone()));
        let logs = logs.collect::<Result<_, _>>()?;
        Ok(Self { engine, logs })
    }

    fn log(&self, writer: usize) -> &Log {
        &self.logs[writer % self.logs.len()]
    }
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

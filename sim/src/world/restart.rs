//! The end of an engine, what the world does to the disk meanwhile, and the questions after it has come back.

use oncelog::{Ack, Engine, EngineOptions, Error, Isolation, OpenOptions, Read};
use oncelog_device::{Clock, Device};
use serde_json::json;
use std::sync::Arc;

use super::reads::read_all;
use super::{DATA_DIR, World};
use crate::oracle::fact::Fact;
use crate::plan::{End, LOGS};

impl World {
    /// The engine ends in this way and comes back.
    pub(super) fn restart(&mut self, end: End) {
        let (survives, end) = self.end(end);
        let crashes = u64::from(end != End::Close) * 20;
        if self.was_lied_to() {
            self.over = true;
            self.look_after_a_lie();
        } else {
            self.reopen(survives, crashes);
        }
    }

    /// Ends the engine; answers the level that survives, and the end that it came to.
    pub(super) fn end(&mut self, end: End) -> (Ack, End) {
        let engine = self.engine.take().expect("an engine runs");
        // Rule 6 of the device: what a failed write or sync left is known after a new start of the machine.
        let failed = self.sync_failed && self.device.faults_struck() > self.struck_before;
        let end = if failed { End::PowerCut } else { end };
        for partition in &mut self.partitions {
            partition.tickets.clear();
            partition.log = None;
        }
        let mut end = end;
        if end == End::Close && !self.armed {
            self.note_all(|| json!({"op": "close"}));
            let closed = engine.close();
            if self.expect(0, "a close", closed).is_none() {
                end = if self.sync_failed { End::PowerCut } else { End::Kill };
            }
        } else {
            engine.kill();
            end = if end == End::Close { End::Kill } else { end };
        }
        (self.pull_plug(end), end)
    }

    /// What the world does to the disk; answers the level that survives it.
    fn pull_plug(&mut self, end: End) -> Ack {
        self.hurt = self.armed || self.device.faults_struck() > self.struck_before;
        self.device.clear_faults();
        self.device.set_capacity_bytes(None);
        (self.armed, self.cramped, self.sync_failed, self.ends_in) = (false, false, false, None);
        self.struck_before = self.device.faults_struck();
        self.partitions.iter_mut().for_each(|partition| partition.latched = false);
        match end {
            End::PowerCut => {
                self.outcome.power_cuts += 1;
                let seed = self.random.next() >> 1;
                self.device.power_cut(seed);
                self.note_all(|| json!({"op": "power_cut", "seed": seed}));
                Ack::Durable
            }
            End::Kill => {
                self.device.kill();
                self.note_all(|| json!({"op": "kill"}));
                Ack::Written
            }
            End::Close => Ack::Accepted,
        }
    }

    /// Opens everything, with a crash in the middle this many times in a hundred, and asks the oracle.
    pub(super) fn reopen(&mut self, mut survives: Ack, crashes: u64) {
        while self.random.percent(crashes) {
            self.armed = true;
            self.device.crash_after(self.random.below(80));
            let opened = self.open();
            self.expect(0, "an opening", opened);
            self.drop_engine();
            let end = self.random.pick(&[End::Kill, End::PowerCut]);
            survives = survives.max(self.pull_plug(end));
        }
        let opened = self.open();
        if self.expect(0, "an opening", opened).is_none() {
            return;
        }
        for at in 0..LOGS {
            self.note_open(at);
            self.check(at, survives);
        }
    }

    pub(super) fn drop_engine(&mut self) {
        self.partitions.iter_mut().for_each(|partition| partition.log = None);
        if let Some(engine) = self.engine.take() {
            engine.kill();
        }
    }

    pub(super) fn open(&mut self) -> Result<(), Error> {
        let options = EngineOptions {
            device: Some(Arc::new(self.device.clone()) as Arc<dyn Device>),
            clock: Some(self.clock.clone()),
            driver: false,
            // Windows of a few blocks, so that small segments have several.
            read_ahead_bytes: 128 << 10,
            ..EngineOptions::default()
        };
        let engine = Engine::open(DATA_DIR, options)?;
        let engine = self.engine.insert(engine);
        for (at, partition) in self.partitions.iter_mut().enumerate() {
            let config = self.setup.config.clone();
            let high_watermark_follows_end = self.setup.follows_end[at];
            let options = OpenOptions { config, high_watermark_follows_end, ..OpenOptions::default() };
            partition.log = Some(engine.log(&partition.name, options)?);
        }
        Ok(())
    }

    fn note_open(&mut self, at: usize) {
        let config = &self.setup.config;
        let settings = json!({
            "device": "memory",
            "segment_bytes": config.segment_bytes,
            "index_interval_bytes": config.index_interval_bytes,
            "retention_bytes": config.retention_bytes,
            "retention_ms": config.retention_ms,
            "segment_ms": config.segment_ms,
            "file_delete_delay_ms": config.file_delete_delay_ms,
            "flush_messages": config.flush_messages,
            "recovery_budget_ms": config.recovery_budget_ms,
            "producer_memory_bytes": config.producer_memory_bytes,
            "producer_id_expiration_ms": config.producer_id_expiration_ms,
            "transaction_partition_verification_enable": config.transaction_partition_verification_enable,
            "transaction_version": self.setup.txn_version,
            "high_watermark_follows_end": self.setup.follows_end[at],
        });
        let (name, now_ms) = (self.partitions[at].name.clone(), self.clock.now_ms());
        self.note(at, || json!({"op": "clock", "ms": now_ms}));
        self.note(at, || json!({"op": "open", "dir": format!("data/{name}"), "config": settings}));
    }

    /// Everything that was promised to survive must be there, once and in order, and every retry known.
    fn check(&mut self, at: usize, survives: Ack) {
        let log = self.log(at);
        let report = log.report();
        if let Some(damage) = report.damage.first() {
            return self.violation(at, &format!("opened with damage that nobody did: {damage}"));
        }
        // What a truncation left that failed half way is as after a crash, even if the engine was closed.
        let half_cut = std::mem::take(&mut self.partitions[at].half_cut);
        let survives = if half_cut { survives.max(Ack::Written) } else { survives };
        let unharmed = survives < Ack::Durable && !self.hurt && !report.cut.is_empty();
        // A log emptied by a truncation inside its only batch begins again at its start.
        let emptied = self.partitions[at].oracle.from(self.partitions[at].oracle.start()).is_empty();
        if unharmed || (survives == Ack::Accepted && !report.repaired.is_empty() && !emptied) {
            let (cut, repaired) = (&report.cut, &report.repaired);
            return self.violation(at, &format!("mended what was not broken: {cut:?}, {repaired:?}"));
        }
        let max_bytes = self.random.pick(&[1 << 20, 3_000]);
        let found = read_all(&log, max_bytes);
        let Some(found) = self.expect(at, "reading everything", found) else {
            return;
        };
        // A log without a batch does not say how much of what was deleted had come to the disk, or was cut.
        let unknown = (half_cut || !self.setup.follows_end[at])
            && found.log_start == found.log_end
            && self.oracle(at).has_weaker(survives);
        let (gone, wrong) = self.oracle(at).check(&found, survives);
        for reason in &wrong {
            self.violation(at, &format!("after an end that {survives:?} survives: {reason}"));
        }
        // Nor is it said how much of an old log is remembered while a new one begins.
        self.over |= std::mem::take(&mut self.partitions[at].half_anew) || unknown;
        if self.is_done() {
            return;
        }
        self.believe_producers(at);
        self.check_views(at);
        if self.is_done() {
            return;
        }
        if self.setup.follows_end[at] {
            self.oracle(at).durable_below(log.high_watermark());
        }
        self.retry_everything(at, gone);
    }

    /// Producers that expired, were forgotten or came back are the log's to say; whether they may be is the oracle's.
    pub(super) fn believe_producers(&mut self, at: usize) {
        let log = self.log(at);
        let now_ms = self.clock.now_ms();
        let ids: Vec<i64> = self.partitions[at].clients.iter().map(|client| client.producer_id).collect();
        for &producer_id in &ids {
            if let Some(entry) = log.producer(producer_id) {
                let offsets: Vec<i64> = entry.batches().iter().map(|batch| batch.first_offset).collect();
                self.oracle(at).remembered(producer_id);
                self.oracle(at).remembers(producer_id, &offsets);
            }
        }
        let start = log.log_start_offset();
        for producer_id in ids {
            let checked = match log.producer(producer_id) {
                Some(entry) => {
                    let said = (entry.epoch, entry.coordinator_epoch, entry.txn_first_offset);
                    self.oracle(at).loaded(producer_id, (said, entry.forgotten), start, now_ms)
                }
                None => self.oracle(at).not_loaded(producer_id, start, now_ms),
            };
            self.hold(at, checked);
        }
    }

    /// What committed readers see of the whole log, and the leader epochs.
    pub(super) fn check_views(&mut self, at: usize) {
        let log = self.log(at);
        let mut offset = log.log_start_offset();
        loop {
            let fetched = log.read(Read { isolation: Isolation::Committed, ..Read::from(offset) });
            let Some(fetched) = self.expect(at, "reading what is committed", fetched) else { return };
            let oracle = &self.partitions[at].oracle;
            let checked = oracle
                .check_limits(&fetched, self.was_lied_to())
                .and_then(|()| oracle.check_committed(offset, &fetched));
            self.hold(at, checked);
            match super::reads::end_of(&fetched.data) {
                Some(next) if !self.is_done() => offset = next,
                _ => break,
            }
        }
        let checked = self.partitions[at].oracle.check_epochs(|epoch| log.end_offset_for_epoch(epoch));
        let epochs = || log.describe().map(|state| state.leader_epochs);
        self.hold(at, checked.map_err(|reason| format!("{reason}; the log says {:?}", epochs())));
    }

    /// Every batch that may be retried is; and a client that never got its answer sends again what was lost, as far as
    /// it gets.
    fn retry_everything(&mut self, at: usize, gone: Vec<Fact>) {
        let oracle = &self.partitions[at].oracle;
        let windows = oracle.producers.known.values().flat_map(|known| known.window.iter());
        let batches: Vec<Fact> = windows.filter_map(|batch| oracle.at(batch.0).cloned()).collect();
        let again = self.random.index(gone.len() + 1);
        for batch in batches.into_iter().chain(gone.into_iter().take(again)) {
            let ack = self.random.pick(&[Ack::Accepted, Ack::Written, Ack::Durable]);
            self.submit(at, batch, None, ack);
        }
    }
}

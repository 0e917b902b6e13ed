//! One script's log: what is open, on which device, under which clock; and the operations of its life.
//!
//! The clock is the script's and the engine runs without a thread of its own: the same script gives the same answers
//! byte for byte. A log still open when the session ends is dropped as by SIGKILL.

use super::answer::{Answer, Refusal, Stop};
use super::files::Remains;
use super::growth::Growth;
use super::guards::Guards;
use super::operations;
use super::places::Place;
use super::script::{Fields, Mistake};
use super::settings::Settings;
use oncelog::{Engine, EngineOptions, Log, OpenOptions, OpenReport};
use oncelog_device::{Clock, Device, DeviceKind, FaultOp, ManualClock, MemoryDevice, open_device};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What relative directories lie below in the memory device: nothing that a power cut could draw another lot for
/// because a fresh directory has another name.
const MEMORY_ROOT: &str = "/";

/// An open log.
pub struct Opened {
    engine: Engine,
    /// The log itself.
    pub log: Log,
    /// Name of its directory, `topic-partition`.
    pub name: String,
    /// The engine moves the high watermark by itself.
    follows_end: bool,
}

/// What a script has built up so far.
pub struct Session {
    root: PathBuf,
    default_device: DeviceKind,
    clock: Arc<ManualClock>,
    /// One disk for the whole script: what a closed log left is there for the next `open`.
    memory: MemoryDevice,
    /// Settings of the open log.
    pub settings: Settings,
    /// Verification guards by their numbers in the script.
    pub guards: Guards,
    /// When which part of the log grew.
    pub growth: Growth,
    opened: Option<Opened>,
    remains: Option<Remains>,
}

impl Session {
    /// Nothing open; the clock stands at 0.
    pub fn new(root: &Path, default_device: DeviceKind) -> Self {
        let clock = Arc::new(ManualClock::new(0));
        Self {
            root: root.to_path_buf(),
            default_device,
            memory: MemoryDevice::new().with_clock(clock.clone()),
            clock,
            settings: Settings::default(),
            guards: Guards::default(),
            growth: Growth::default(),
            opened: None,
            remains: None,
        }
    }

    /// Answers one line of the script.
    pub fn run(&mut self, line: &Value) -> Answer {
        let op = line.get("op").and_then(Value::as_str).ok_or_else(|| Mistake::new("no 'op'"))?;
        let answer = self.perform(op, line);
        let undone = op == "append" && line.get("ack").is_some_and(|ack| ack != "durable");
        self.settle(!undone && op != "fail");
        answer
    }

    /// The open log.
    pub fn opened(&self) -> Result<&Opened, Refusal> {
        self.opened.as_ref().ok_or_else(|| Refusal::new("NOT_OPEN", "no log is open"))
    }

    /// The open log itself.
    pub fn log(&self) -> Result<&Log, Refusal> {
        Ok(&self.opened()?.log)
    }

    /// The script's clock, ms.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    fn perform(&mut self, op: &str, line: &Value) -> Answer {
        let known = |names: &[&str]| Fields::new(line, op, &[&["op"], names].concat());
        match op {
            "clock" => self.set_clock(known(&["ms"])?),
            "open" => self.open(known(&["dir", "config", "log_start", "recovery_point", "high_watermark", "clean"])?),
            "configure" => self.configure(known(&["config"])?),
            "file" => self.file(known(&["action", "name", "hex", "at", "size", "to"])?),
            "close" => known(&[]).map_err(Stop::from).and_then(|_| self.close()),
            "kill" => known(&[]).map_err(Stop::from).and_then(|_| self.kill()),
            "power_cut" => self.power_cut(known(&["seed"])?),
            "fail" => self.fail(known(&["device_op", "after", "times"])?),
            _ => operations::perform(self, op, line),
        }
    }

    /// What a running engine's own thread would have done by now. Not behind an append that asked for less than
    /// `durable`, which `kill` and `power_cut` are to find as it was left, and not behind `fail`, whose fault is for
    /// the next operation.
    fn settle(&mut self, drive: bool) {
        let Some(opened) = &self.opened else { return };
        if drive {
            // Its failures latch the log or are tried again: the next operation tells.
            let _ = opened.log.drive();
        }
        if self.settings.follows_end && !opened.follows_end {
            // Refused by a latched log, whose next operation says so.
            let _ = opened.log.set_high_watermark(i64::MAX);
        }
    }

    fn set_clock(&mut self, fields: Fields<'_>) -> Answer {
        self.clock.set_ms(fields.required("ms")?);
        Ok(json!({}))
    }

    fn open(&mut self, fields: Fields<'_>) -> Answer {
        if self.opened.is_some() {
            return Err(Refusal::new("ALREADY_OPEN", "a log is open").into());
        }
        let directory = fields.required_text("dir")?;
        let mut settings = Settings::default();
        settings.apply(fields.get("config"))?;
        let (device, place) = self.device(settings.device)?;
        let directory = match place {
            Place::Host => self.root.join(directory),
            Place::Memory(_) => Path::new(MEMORY_ROOT).join(directory),
        };
        let options = OpenOptions {
            config: settings.config.clone(),
            log_start: fields.integer("log_start")?,
            recovery_point: fields.integer("recovery_point")?,
            high_watermark: fields.integer("high_watermark")?,
            clean: fields.get("clean").map(|_| fields.flag("clean", false)).transpose()?,
            high_watermark_follows_end: settings.follows_end,
        };
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name().and_then(|name| name.to_str()))
        else {
            return Err(Refusal::invalid_request("a log's directory is called topic-partition").into());
        };
        let mut options_of_engine = EngineOptions {
            device: Some(device),
            clock: Some(self.clock.clone()),
            driver: false,
            // An answer holds what fits, whatever was read before.
            read_ahead_bytes: 0,
            ..EngineOptions::default()
        };
        if matches!(place, Place::Memory(_)) {
            // The memory device is there to have faults planted in its reads, which a tail would not make.
            options_of_engine.tail_bytes = 0;
        }
        let engine = Engine::open(parent, options_of_engine)?;
        let log = engine.log(name, options)?;
        let answer = json!({
            "report": report(log.report()),
            "log_start_offset": log.log_start_offset(),
            "log_end_offset": log.log_end_offset(),
        });
        let name = name.to_owned();
        let follows_end = settings.follows_end;
        self.settings = settings;
        self.guards.forget_open_ones();
        self.growth.set_directory(&directory);
        self.remains = Some(Remains { directory, place, killed: false, trimmed: BTreeSet::new() });
        self.opened = Some(Opened { engine, log, name, follows_end });
        Ok(answer)
    }

    fn device(&self, asked: Option<DeviceKind>) -> Result<(Arc<dyn Device>, Place), Stop> {
        match asked.unwrap_or(self.default_device) {
            DeviceKind::Memory => Ok((Arc::new(self.memory.clone()), Place::Memory(self.memory.clone()))),
            kind => Ok((open_device(kind)?, Place::Host)),
        }
    }

    fn configure(&mut self, fields: Fields<'_>) -> Answer {
        let log = self.log()?;
        let mut settings = self.settings.clone();
        settings.apply(fields.get("config"))?;
        log.configure(settings.config.clone())?;
        self.settings = settings;
        Ok(json!({}))
    }

    fn file(&mut self, fields: Fields<'_>) -> Answer {
        if self.opened.is_some() {
            return Err(Refusal::new("ALREADY_OPEN", "files are changed while no log is open").into());
        }
        match &mut self.remains {
            Some(remains) => remains.file(fields),
            None => Err(Refusal::new("NOT_OPEN", "no log has been opened yet").into()),
        }
    }

    fn close(&mut self) -> Answer {
        self.log()?;
        if let Some(opened) = self.opened.take() {
            let closed = opened.engine.close();
            self.ended(false);
            closed?;
        }
        Ok(json!({}))
    }

    fn kill(&mut self) -> Answer {
        self.log()?;
        if let Some(opened) = self.opened.take() {
            opened.log.kill();
            drop(opened.engine);
            self.memory.kill();
            self.ended(true);
        }
        Ok(json!({}))
    }

    /// The log is gone; what is left may be damaged by `file`.
    fn ended(&mut self, killed: bool) {
        if let Some(remains) = &mut self.remains {
            remains.killed = killed;
            if matches!(remains.place, Place::Host) {
                self.growth.stamp_files();
            }
        }
    }

    fn power_cut(&mut self, fields: Fields<'_>) -> Answer {
        self.memory_only("power_cut")?;
        let seed = fields.required("seed")?;
        if let Some(opened) = self.opened.take() {
            // The power goes first: nothing that dropping the log might still write survives.
            self.memory.power_cut(seed.cast_unsigned());
            opened.log.kill();
            drop(opened.engine);
            self.ended(true);
        } else {
            self.memory.power_cut(seed.cast_unsigned());
        }
        Ok(json!({}))
    }

    fn fail(&mut self, fields: Fields<'_>) -> Answer {
        self.memory_only("fail")?;
        fields.required_text("device_op")?;
        let op = fields.word(
            "device_op",
            &[("write", FaultOp::Write), ("sync", FaultOp::Sync), ("read", FaultOp::Read), ("space", FaultOp::Space)],
        )?;
        self.memory.plant(op, fields.small("after", 0u64)?, fields.small("times", 1u64)?);
        Ok(json!({}))
    }

    fn memory_only(&self, op: &str) -> Result<(), Refusal> {
        let in_memory = match &self.remains {
            Some(remains) => matches!(remains.place, Place::Memory(_)),
            None => self.default_device == DeviceKind::Memory,
        };
        if in_memory { Ok(()) } else { Err(Refusal::invalid_request(format!("{op} works on the memory device only"))) }
    }
}

/// What opening found; no duration, which would differ from run to run.
fn report(report: &OpenReport) -> Value {
    let damage = |list: &[oncelog::Damage]| -> Vec<Value> {
        let file = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
        list.iter()
            .map(|damage| {
                json!({
                    "file": file(&damage.path),
                    "position": damage.position,
                    "offset": damage.offset,
                    "reason": damage.reason,
                })
            })
            .collect()
    };
    json!({
        "clean": report.clean,
        "batches_scanned": report.batches_scanned,
        "bytes_scanned": report.bytes_scanned,
        "snapshot_offset": report.snapshot_offset,
        "batches_replayed": report.batches_replayed,
        "cut": damage(&report.cut),
        "damage": damage(&report.damage),
        "repaired": report.repaired,
    })
}

//! Many logs in one data directory: one lock, one device, one set of checkpoint files, one shutdown mark.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use oncelog_device::{BufferPool, Clock, Device, DeviceKind, DeviceLock, SystemClock, open_device};
use oncelog_formats::file_name::parse_log_dir_name;

use crate::atomic::AtomicBatch;
use crate::atomic::ledger::{DECISIONS_LOG, Ledger};
use crate::checkpoints::{DirectoryCheckpoints, NO_BROKER_EPOCH};
use crate::error::{Error, Result};
use crate::log::open::Context;
use crate::log::{Kick, Log, OpenOptions, Shared};
use crate::tail::Budget;

/// How long the driver thread sleeps when nobody rings.
const DRIVER_PAUSE: Duration = Duration::from_millis(20);
/// How often the driver writes the checkpoint files.
const CHECKPOINT_PAUSE_NS: u64 = 5_000_000_000;

/// Default of [`EngineOptions::tail_bytes`].
const TAIL_BYTES: usize = 32 << 20;
/// Most that idle buffers may hold.
const IDLE_BUFFER_BYTES: usize = 32 << 20;

/// How to open an engine.
#[derive(Clone)]
pub struct EngineOptions {
    /// A device of the caller's; else one of `device_kind` is opened.
    pub device: Option<Arc<dyn Device>>,
    /// Which device to open.
    pub device_kind: DeviceKind,
    /// A clock of the caller's; else the system's.
    pub clock: Option<Arc<dyn Clock>>,
    /// Whether a thread does the background work; without it the caller drives each log.
    pub driver: bool,
    /// Memory that all logs together may hold of what was just written, for those who read it next (bytes). 0: none is
    /// held, and every read goes to the files.
    pub tail_bytes: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { device: None, device_kind: DeviceKind::Auto, clock: None, driver: true, tail_bytes: TAIL_BYTES }
    }
}

/// The logs of one data directory, exclusively.
///
/// Dropping it without [`Engine::close`] is a crash: what was answered at its level stays, the next opening recovers.
pub struct Engine {
    dir: PathBuf,
    context: Context,
    logs: Arc<Mutex<BTreeMap<String, Log>>>,
    ledger: Arc<Ledger>,
    driver: Option<JoinHandle<()>>,
    _lock: DeviceLock,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Engine {
    /// Opens a data directory, creating it if there is none, and takes its lock.
    ///
    /// The shutdown mark is removed before any log is opened, as Kafka does: from now on a crash is a crash.
    ///
    /// # Errors
    /// [`Error::AlreadyOpen`] when another process has it; failures of the device.
    pub fn open(data_dir: impl AsRef<Path>, options: EngineOptions) -> Result<Self> {
        let dir = data_dir.as_ref().to_path_buf();
        let device = match options.device {
            Some(device) => device,
            None => open_device(options.device_kind)?,
        };
        tracing::info!(device = device.describe(), "opened");
        device.create_directory(&dir)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            device.sync_directory(parent)?;
        }
        let lock = device.lock(&dir.join(".lock"))?;
        let checkpoints = DirectoryCheckpoints::new(&dir);
        let clean = checkpoints.remove_clean_mark(&*device)?;
        let kick = options.driver.then(|| Arc::new(Kick::default()));
        let clock = options.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let context = Context {
            device,
            clock,
            checkpoints: Arc::new(checkpoints),
            driver: kick.clone(),
            buffers: Arc::new(BufferPool::new(IDLE_BUFFER_BYTES)),
            tails: Budget::new(options.tail_bytes),
            clean,
        };
        let logs = Arc::new(Mutex::new(BTreeMap::new()));
        let ledger = Arc::new(Ledger::new(kick.is_some()));
        let mut engine = Self { dir, context, logs, ledger, driver: None, _lock: lock };
        if engine.directories()?.contains(DECISIONS_LOG) {
            engine.open_decisions()?;
        }
        if let Some(kick) = kick {
            let driven = (engine.logs.clone(), engine.ledger.clone());
            engine.driver = Some(spawn_driver(kick, driven, engine.context.clock.clone())?);
        }
        Ok(engine)
    }

    /// Names of the directories in the data directory.
    fn directories(&self) -> Result<BTreeSet<String>> {
        let entries = self.context.device.list(&self.dir)?;
        Ok(entries.into_iter().filter(|entry| entry.is_directory).map(|entry| entry.name).collect())
    }

    /// The log of decisions, with what an earlier life left in it.
    fn open_decisions(&self) -> Result<()> {
        let mut logs = self.logs.lock();
        if self.ledger.log().is_some() {
            return Ok(());
        }
        let (topic, partition) = parse_log_dir_name(DECISIONS_LOG).expect("a log's name");
        let path = self.dir.join(DECISIONS_LOG);
        let shared = Shared::open(&self.context, &path, topic, partition, Ledger::options())?;
        let log = Log { shared: Arc::new(shared) };
        let there = self.directories()?;
        self.ledger.adopt(log.clone(), |name| there.contains(name));
        logs.insert(DECISIONS_LOG.to_owned(), log);
        Ok(())
    }

    /// Begins a batch over several logs of this engine, see [`AtomicBatch`].
    ///
    /// # Errors
    /// Failures of the log that holds the decisions; after one, until the engine is opened again.
    pub fn begin(&self) -> Result<AtomicBatch> {
        self.open_decisions()?;
        AtomicBatch::new(self.ledger.clone(), Arc::as_ptr(&self.context.checkpoints) as usize)
    }

    /// For each log an offset at or below its last stable offset, such that every atomic batch lies below it in all of these
    /// logs or in none. Committed readers that stop there see all of a batch or nothing, at one moment and over all logs.
    #[must_use]
    pub fn stable_ends(&self, logs: &[&Log]) -> Vec<i64> {
        self.ledger.stable_ends(logs)
    }

    /// One step of what atomic batches leave behind; an engine with a driver thread does this by itself.
    ///
    /// # Errors
    /// Failures of the log that holds the decisions.
    pub fn drive(&self) -> Result<()> {
        self.ledger.drive()
    }

    /// Opens the log `topic-partition`, creating it if there is none; an open one is handed out again.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a name that is none; failures of the device. Damage is no error: see
    /// [`Log::report`].
    pub fn log(&self, name: &str, options: OpenOptions) -> Result<Log> {
        let (topic, partition) =
            parse_log_dir_name(name).map_err(|e| Error::InvalidRequest(format!("log name {name:?}: {e}")))?;
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(name) {
            return Ok(log.clone());
        }
        let shared = Shared::open(&self.context, &self.dir.join(name), topic, partition, options)?;
        let log = Log { shared: Arc::new(shared) };
        self.ledger.finish(name, &log)?;
        logs.insert(name.to_string(), log.clone());
        Ok(log)
    }

    /// The device in use.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.context.device
    }

    /// Clean shutdown: every log closed, checkpoint files written, and only then the mark.
    ///
    /// # Errors
    /// The first failure; the mark is then missing and the next opening recovers.
    pub fn close(mut self) -> Result<()> {
        self.stop_driver();
        let logs = std::mem::take(&mut *self.logs.lock());
        let mut all_closed = true;
        // The decisions last: what they decide is finished in all other logs by then.
        let others = logs.iter().filter(|(name, _)| *name != DECISIONS_LOG);
        for (name, log) in others.chain(logs.get_key_value(DECISIONS_LOG)) {
            if name == DECISIONS_LOG {
                self.ledger.drive()?;
                self.ledger.trim(1)?;
            }
            let closed = log.shared.close();
            log.shared.wake_followers();
            let offsets = closed?;
            all_closed &= offsets.recovery_point.is_some();
            let (topic, partition) = (&log.shared.topic, log.shared.partition);
            self.context.checkpoints.update(&*self.context.device, topic, partition, &offsets)?;
        }
        if all_closed && (self.context.clean || self.covers_directory(&logs)?) {
            self.context.checkpoints.write_clean_mark(&*self.context.device, NO_BROKER_EPOCH)?;
        }
        Ok(())
    }

    /// Whether every log of the directory was open here.
    fn covers_directory(&self, logs: &BTreeMap<String, Log>) -> Result<bool> {
        let directories = self.directories()?;
        Ok(directories.iter().filter(|name| parse_log_dir_name(name).is_ok()).all(|name| logs.contains_key(name)))
    }

    /// Ends as the death of the process would: nothing more is written.
    pub fn kill(mut self) {
        self.stop_driver();
        for log in self.logs.lock().values() {
            log.kill();
        }
    }

    fn stop_driver(&mut self) {
        if let (Some(kick), Some(thread)) = (&self.context.driver, self.driver.take()) {
            kick.stop.store(true, Ordering::Release);
            kick.ring();
            let _ = thread.join();
        }
        self.ledger.helpers.stop();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop_driver();
        for log in self.logs.lock().values() {
            log.kill();
        }
    }
}

fn spawn_driver(
    kick: Arc<Kick>,
    (logs, ledger): (Arc<Mutex<BTreeMap<String, Log>>>, Arc<Ledger>),
    clock: Arc<dyn Clock>,
) -> Result<JoinHandle<()>> {
    let body = move || {
        let mut checkpointed_ns = clock.monotonic_ns();
        while !kick.stop.load(Ordering::Acquire) {
            {
                let mut asked = kick.asked.lock();
                if !*asked {
                    kick.bell.wait_for(&mut asked, DRIVER_PAUSE);
                }
                *asked = false;
            }
            let open: Vec<Log> = logs.lock().values().cloned().collect();
            let now_ns = clock.monotonic_ns();
            let checkpoint = now_ns.saturating_sub(checkpointed_ns) > CHECKPOINT_PAUSE_NS;
            for log in &open {
                let done = if checkpoint { log.sync().map(|_| ()) } else { log.drive() };
                if let Err(error) = done
                    && !matches!(error, Error::Closed | Error::Storage(_))
                {
                    tracing::warn!(%error, dir = %log.dir().display(), "background work failed, tried again later");
                }
            }
            if let Err(error) = ledger.drive()
                && !matches!(error, Error::Closed | Error::Storage(_))
            {
                tracing::warn!(%error, "decisions cannot be trimmed, tried again later");
            }
            if checkpoint {
                checkpointed_ns = now_ns;
            }
        }
    };
    std::thread::Builder::new()
        .name("oncelog-driver".into())
        .spawn(body)
        .map_err(|e| Error::InvalidRequest(format!("the driver thread cannot be started: {e}")))
}

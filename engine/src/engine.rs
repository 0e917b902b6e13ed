//! Many logs in one data directory: one lock, one device, one set of checkpoint files, one shutdown mark.

use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use oncelog_device::planted::{Bug, planted};
use oncelog_device::{Clock, Device, DeviceKind, DeviceLock, SystemClock, open_device};
use oncelog_formats::file_name::parse_log_dir_name;

use crate::ahead::{Ahead, READERS, Readers};
use crate::atomic::AtomicBatch;
use crate::atomic::ledger::{DECISIONS_LOG, Ledger};
use crate::background::Background;
use crate::checkpoints::{DirectoryCheckpoints, NO_BROKER_EPOCH};
use crate::committer;
use crate::error::{Error, Result};
use crate::log::open::Context;
use crate::log::{Log, OpenOptions, Shared};
use crate::openings::{Openings, RecoveryProgress, Turn};
use crate::spares::Spares;
use crate::tail::Budget;

/// How long the driver thread sleeps between two rounds over all logs.
const DRIVER_PAUSE: Duration = Duration::from_millis(20);
/// How often the preparer looks at the stock when nobody asks.
const PREPARER_PAUSE: Duration = Duration::from_millis(200);
/// How often the driver writes the checkpoint files.
const CHECKPOINT_PAUSE_NS: u64 = 5_000_000_000;

/// So many committer threads where a device takes one write from one thread at a time.
const COMMITTERS_WITHOUT_LANE: usize = 4;

/// Default of [`EngineOptions::tail_bytes`].
const TAIL_BYTES: usize = 32 << 20;
/// Default of [`EngineOptions::read_ahead_bytes`].
const READ_AHEAD_BYTES: usize = 32 << 20;
/// Default of [`EngineOptions::spare_bytes`].
const SPARE_BYTES: u64 = 4 << 30;
/// Most that idle buffers may hold.
const IDLE_BUFFER_BYTES: usize = 32 << 20;

/// Asked for once: the answer lies in several files of the kernel's.
static CORES: LazyLock<usize> = LazyLock::new(|| std::thread::available_parallelism().map_or(1, usize::from));

/// How to open an engine.
#[derive(Clone)]
pub struct EngineOptions {
    /// A device of the caller's; else one of `device_kind` is opened.
    pub device: Option<Arc<dyn Device>>,
    /// Which device to open.
    pub device_kind: DeviceKind,
    /// A clock of the caller's; else the system's.
    pub clock: Option<Arc<dyn Clock>>,
    /// Whether threads do the background work; without them the caller drives each log.
    pub driver: bool,
    /// Memory that all logs together may hold of what was just written, for those who read it next (bytes). 0: none is
    /// held, and every read goes to the files.
    pub tail_bytes: usize,
    /// Memory that all logs together may hold of what was read ahead of those who read on in the files (bytes). 0:
    /// nothing is read ahead. Where something is, an answer may hold less than `max_bytes` allows: it ends where a
    /// transfer did.
    pub read_ahead_bytes: usize,
    /// Most that segments freed by retention and other spares in stock may take on the disk, bytes. A spare that a busy
    /// log has fetched already does not count, and a full disk takes the stock back.
    pub spare_bytes: u64,
    /// How many threads read and check ahead of the recovery of a log, and how many logs [`Engine::open_behind`] opens
    /// at a time. Without `driver` there are none. A recovery leads to the same with any number.
    pub recovery_threads: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: None,
            device_kind: DeviceKind::Auto,
            clock: None,
            driver: true,
            tail_bytes: TAIL_BYTES,
            read_ahead_bytes: READ_AHEAD_BYTES,
            spare_bytes: SPARE_BYTES,
            recovery_threads: *CORES + 1,
        }
    }
}

/// The logs of one data directory, exclusively.
///
/// Dropping it without [`Engine::close`] is a crash: what was answered at its level stays, the next opening recovers.
pub struct Engine {
    core: Arc<Core>,
    recovery_threads: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    _lock: DeviceLock,
}

/// What the engine's threads work with.
struct Core {
    dir: PathBuf,
    context: Context,
    logs: Openings,
    ledger: Arc<Ledger>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("dir", &self.core.dir).finish_non_exhaustive()
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
        let background = options.driver.then(|| Arc::new(Background::default()));
        let clock = options.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let buffers = Arc::new(device.buffers(IDLE_BUFFER_BYTES));
        let readers = Readers::new(options.driver);
        let context = Context {
            spares: Arc::new(Spares::open(device.clone(), &dir, options.spare_bytes)?),
            ahead: Arc::new(Ahead::new(options.read_ahead_bytes, buffers.clone(), readers)),
            buffers,
            tails: Budget::new(options.tail_bytes),
            checkpoints: Arc::new(checkpoints),
            device,
            clock,
            recovery_helpers: background.as_ref().map_or(0, |_| options.recovery_threads),
            background,
            clean,
        };
        let ledger = Arc::new(Ledger::new(
            context.background.as_ref().and_then(|_| context.device.lane()),
            context.background.clone(),
        ));
        let core = Arc::new(Core { dir, context, logs: Openings::default(), ledger });
        if core.directories()?.contains(DECISIONS_LOG) {
            core.open_decisions()?;
        }
        let threads = Mutex::new(spawn_threads(&core)?);
        Ok(Self { core, recovery_threads: options.recovery_threads.max(1), threads, _lock: lock })
    }

    /// Begins a batch over several logs of this engine, see [`AtomicBatch`].
    ///
    /// # Errors
    /// Failures of the log that holds the decisions; after one, until the engine is opened again.
    pub fn begin(&self) -> Result<AtomicBatch> {
        self.core.open_decisions()?;
        AtomicBatch::new(self.core.ledger.clone(), Arc::as_ptr(&self.core.context.checkpoints) as usize)
    }

    /// For each log an offset at or below its last stable offset, such that every atomic batch lies below it in all of
    /// these logs or in none. Committed readers that stop there see all of a batch or nothing, at one moment and over
    /// all logs.
    #[must_use]
    pub fn stable_ends(&self, logs: &[&Log]) -> Vec<i64> {
        self.core.ledger.stable_ends(logs)
    }

    /// One step of what atomic batches leave behind, and one of the logs that [`Engine::open_behind`] was told to open;
    /// an engine with a driver does this by itself.
    ///
    /// # Errors
    /// Failures of the log that holds the decisions.
    pub fn drive(&self) -> Result<()> {
        if let Some((name, options)) = self.core.logs.next_queued() {
            self.core.open_queued(&name, options);
        }
        self.core.ledger.drive()
    }

    /// Opens the log `topic-partition`, creating it if there is none; an open one is handed out again. Several threads
    /// may open several logs at once.
    ///
    /// # Errors
    /// [`Error::InvalidRequest`] for a name that is none; [`Error::Storage`] where the device has failed, now or at an
    /// earlier attempt of this engine, which has to be opened again for another one; what else the device refuses, a
    /// full disk among it. Damage is no error: see [`Log::report`].
    pub fn log(&self, name: &str, options: OpenOptions) -> Result<Log> {
        self.core.open(name, options, true)
    }

    /// Has these logs opened in the background, [`EngineOptions::recovery_threads`] at a time and in this order, and
    /// returns at once. None is begun while [`Engine::log`] opens another, which may be one of these: whoever needs a
    /// log now does not wait for the rest. A failure is logged, and [`Engine::log`] tells it.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn open_behind(&self, logs: impl IntoIterator<Item = (String, OpenOptions)>) -> Result<()> {
        self.core.logs.queue(logs);
        if self.core.context.background.is_none() {
            return Ok(());
        }
        let mut threads = self.threads.lock();
        for _ in 0..self.recovery_threads {
            let core = self.core.clone();
            threads.push(spawn("oncelog-opener", move || {
                while let Some((name, options)) = core.logs.next_queued() {
                    core.open_queued(&name, options);
                }
            })?);
        }
        Ok(())
    }

    /// The logs that are being opened right now, and how far each has come. An expected end is that of the scan, which
    /// takes most of a long recovery.
    #[must_use]
    pub fn recoveries(&self) -> Vec<RecoveryProgress> {
        self.core.logs.progress(&*self.core.context.clock)
    }

    /// What this engine and its logs count, in Prometheus' text form. Names and units stay: `docs/metrics.md` lists
    /// them.
    ///
    /// Takes the lock of one log after the other, each for the time of a look.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let logs = self.core.logs.open();
        let shared = logs.iter().map(|log| &*log.shared);
        let Context { device, tails, ahead, .. } = &self.core.context;
        crate::observe::text::text(shared, &device.describe(), tails.held_bytes(), ahead.streams())
    }

    /// The device in use.
    #[must_use]
    pub fn device(&self) -> &Arc<dyn Device> {
        &self.core.context.device
    }

    /// Makes `count` spare segments of `bytes` each ready and waits for them: for a start under full load, and for
    /// benchmarks. Logs take them as they begin and roll; what retention frees is added to them.
    ///
    /// # Errors
    /// [`Error::StorageFull`] where they do not fit; failures of the device.
    pub fn prepare_spares(&self, count: usize, bytes: u64) -> Result<()> {
        let Context { spares, background, .. } = &self.core.context;
        spares.ask(count, bytes);
        match background {
            Some(background) => {
                background.spaces.ask(std::sync::Weak::new());
                spares.wait()
            }
            None => {
                while spares.step()? {}
                Ok(())
            }
        }
    }

    /// Clean shutdown: every log closed, checkpoint files written, and only then the mark.
    ///
    /// # Errors
    /// The first failure; the mark is then missing and the next opening recovers.
    pub fn close(self) -> Result<()> {
        self.stop_threads();
        let Core { context, ledger, logs, .. } = &*self.core;
        let (device, checkpoints) = (&*context.device, &context.checkpoints);
        if planted(Bug::CleanMarkTooEarly) {
            checkpoints.write_clean_mark(device, NO_BROKER_EPOCH)?;
        }
        let logs = logs.take_all();
        let mut all_closed = true;
        // The decisions last: what they decide is finished in all other logs by then.
        let others = logs.iter().filter(|(name, _)| *name != DECISIONS_LOG);
        for (name, log) in others.chain(logs.get_key_value(DECISIONS_LOG)) {
            if name == DECISIONS_LOG {
                ledger.drive()?;
                ledger.trim(1)?;
            }
            let closed = log.shared.close();
            log.shared.wake_followers();
            let offsets = closed?;
            all_closed &= offsets.recovery_point.is_some();
            checkpoints.update(device, &log.shared.topic, log.shared.partition, &offsets)?;
        }
        context.spares.clear()?;
        if all_closed && (context.clean || self.core.covers_directory(&logs)?) {
            checkpoints.write_clean_mark(device, NO_BROKER_EPOCH)?;
        }
        Ok(())
    }

    /// Ends as the death of the process would: nothing more is written.
    pub fn kill(self) {
        drop(self);
    }

    fn stop_threads(&self) {
        if let Some(background) = &self.core.context.background {
            background.stop();
        }
        self.core.context.ahead.stop();
        self.core.logs.stop();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop_threads();
        for log in self.core.logs.open() {
            log.kill();
        }
    }
}

impl Core {
    fn open(&self, name: &str, options: OpenOptions, is_demanded: bool) -> Result<Log> {
        let (topic, partition) =
            parse_log_dir_name(name).map_err(|e| Error::InvalidRequest(format!("log name {name:?}: {e}")))?;
        if name == DECISIONS_LOG {
            self.open_decisions()?;
        }
        let opening = match self.logs.begin(name, &*self.context.clock, is_demanded) {
            Turn::Open(log) => return Ok(log),
            Turn::Failed(error) => return Err(error),
            Turn::Begin(opening) => opening,
        };
        let dir = self.dir.join(name);
        let opened = Shared::open(&self.context, &dir, topic, partition, options, &opening.gauge).map(Shared::into_log);
        match opened.and_then(|log| self.ledger.finish(name, &log).map(|()| log)) {
            Ok(log) => {
                let _first = log.shared.before_cut.set(Ledger::before_cut(&self.ledger, name));
                opening.finish(log.clone());
                Ok(log)
            }
            Err(error) => Err(opening.fail(error)),
        }
    }

    fn open_queued(&self, name: &str, options: OpenOptions) {
        if let Err(error) = self.open(name, options, false) {
            tracing::warn!(%error, name, "a log cannot be opened");
        }
    }

    /// The log of decisions, with what an earlier life left in it.
    fn open_decisions(&self) -> Result<()> {
        let Turn::Begin(opening) = self.logs.begin(DECISIONS_LOG, &*self.context.clock, true) else { return Ok(()) };
        self.ledger.check()?;
        let (topic, partition) = parse_log_dir_name(DECISIONS_LOG).expect("a log's name");
        let (dir, options) = (self.dir.join(DECISIONS_LOG), Ledger::options());
        let opened = Shared::open(&self.context, &dir, topic, partition, options, &opening.gauge);
        // What a failed sync left is not made good by one that succeeds.
        let log = opened.map_err(|error| self.ledger.doubt(error))?.into_log();
        let there = self.directories()?;
        self.ledger.adopt(log.clone(), |name| there.contains(name));
        opening.finish(log);
        Ok(())
    }

    /// Names of the directories in the data directory.
    fn directories(&self) -> Result<BTreeSet<String>> {
        let entries = self.context.device.list(&self.dir)?;
        Ok(entries.into_iter().filter(|entry| entry.is_directory).map(|entry| entry.name).collect())
    }

    /// Whether every log of the directory was open here.
    fn covers_directory(&self, logs: &BTreeMap<String, Log>) -> Result<bool> {
        let directories = self.directories()?;
        Ok(directories.iter().filter(|name| parse_log_dir_name(name).is_ok()).all(|name| logs.contains_key(name)))
    }
}

fn spawn_threads(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>> {
    let context = &core.context;
    let Some(background) = &context.background else { return Ok(Vec::new()) };
    let (preparer, driver) = (background.clone(), background.clone());
    let (spares, core) = (context.spares.clone(), core.clone());
    let mut threads = spawn_committers(context, background)?;
    for _ in 0..READERS {
        let ahead = context.ahead.clone();
        threads.push(spawn("oncelog-reader", move || ahead.serve())?);
    }
    threads.extend([
        spawn("oncelog-preparer", move || {
            let prepare = || while spares.step().inspect_err(say_no_spares).unwrap_or(false) {};
            preparer.serve(
                &preparer.spaces,
                Some(PREPARER_PAUSE),
                |log| {
                    tell(log, log.prepare_ahead());
                    prepare();
                },
                prepare,
            );
        })?,
        spawn("oncelog-driver", move || {
            let clock = &core.context.clock;
            let mut checkpointed_ns = clock.monotonic_ns();
            let round = || {
                let now_ns = clock.monotonic_ns();
                core.context.ahead.expire(now_ns);
                let checkpoint = now_ns.saturating_sub(checkpointed_ns) > CHECKPOINT_PAUSE_NS;
                for log in core.logs.open() {
                    let done = if checkpoint { log.sync().map(|_| ()) } else { log.shared.tend() };
                    tell(&log.shared, done);
                }
                if let Err(error) = core.ledger.drive()
                    && !matches!(error, Error::Closed | Error::Storage(_))
                {
                    tracing::warn!(%error, "decisions cannot be trimmed, tried again later");
                }
                if checkpoint {
                    checkpointed_ns = now_ns;
                }
            };
            driver.serve(&driver.driver, Some(DRIVER_PAUSE), |_| {}, round);
        })?,
    ]);
    Ok(threads)
}

/// One with a lane, or several that carry one group each.
fn spawn_committers(context: &Context, background: &Arc<Background>) -> Result<Vec<JoinHandle<()>>> {
    let mut lane = context.device.lane();
    let count = if lane.is_some() { 1 } else { COMMITTERS_WITHOUT_LANE };
    let one = |_| {
        let (background, clock, lane) = (background.clone(), context.clock.clone(), lane.take());
        spawn("oncelog-committer", move || committer::serve(&background, &*clock, lane))
    };
    (0..count).map(one).collect()
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.into())
        .spawn(body)
        .map_err(|e| Error::InvalidRequest(format!("the thread {name} cannot be started: {e}")))
}

/// A failure of background work: what latched the log is told to its callers, the rest is tried again.
fn tell(log: &Shared, done: Result<()>) {
    if let Err(error) = done
        && !matches!(error, Error::Closed | Error::Storage(_))
    {
        tracing::warn!(%error, dir = %log.dir.display(), "background work failed, tried again later");
    }
}

fn say_no_spares(error: &Error) {
    tracing::warn!(%error, "a spare segment cannot be made ready");
}

//! `oncelog dump`: what opening a directory would give, changing nothing on disk.
//!
//! The engine opens the directory over a device that keeps every change in memory: the real recovery runs, with the
//! checkpoint files, the shutdown mark and `topic.properties` that stand beside the directory, and no second reading of
//! the formats can disagree with it. The lock is not taken: a dump of a live log is a look, not a guest.

mod table;

use crate::common::{CliError, CliResult, Outcome, Output, Place, while_waiting};
use crate::document;
use clap::Args;
use oncelog::{Config, ConfigError, Engine, EngineOptions, Error, OpenOptions, SnapshotState};
use oncelog_device::{Device, DeviceKind, ManualClock, OverlayDevice, open_device};
use oncelog_formats::file_name::{Kind, Suffix, parse_file_name};
use oncelog_formats::snapshot::SnapshotFile;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PROPERTIES_LIMIT_BYTES: u64 = 1 << 20;
/// As much as opening takes in.
const SNAPSHOT_LIMIT_BYTES: u64 = 4 << 30;

/// Shows everything about a log: segments, batches, indexes, producers, transactions, digests of what readers see.
#[derive(Args, Debug)]
pub struct DumpArgs {
    /// Prints the whole document as JSON.
    #[arg(long)]
    json: bool,
    /// Time of the opening, ms since the epoch, by which producers expire; without it none does.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    now: i64,
    /// The log's directory, `topic-partition`.
    dir: PathBuf,
}

/// Fine with a document, wrong where the engine refuses what is in the directory; an error where it cannot be read.
pub fn run(args: &DumpArgs) -> CliResult {
    let Place { directory, data_directory, name } = Place::existing(&args.dir)?;
    let base = open_device(DeviceKind::Blocking)?;
    let config = config_beside(&*base, &data_directory)?;
    let snapshots = stored_snapshots(&*base, &directory)?;
    let mut output = Output::new();
    let open = || open_and_describe(base, &data_directory, &name, config, &snapshots, args.now);
    let outcome = match while_waiting("reading", open) {
        Ok(document) if args.json => {
            output.line(Value::Object(document))?;
            Outcome::Fine
        }
        Ok(document) => {
            let mut text = Vec::new();
            table::print(&document, &mut text).map_err(|e| CliError::io(directory.display(), e))?;
            output.bytes(&text)?;
            Outcome::Fine
        }
        Err(Error::Device(failure)) => return Err(Error::Device(failure).into()),
        Err(error) => {
            output.line(refusal(&error))?;
            Outcome::Wrong
        }
    };
    output.flush()?;
    Ok(outcome)
}

fn refusal(error: &Error) -> Value {
    let message = error.to_string();
    json!({ "error": error.kafka_name(), "message": message, "load_error": format!("{}: {message}", error.kafka_name()) })
}

fn open_and_describe(
    base: Arc<dyn Device>,
    parent: &Path,
    name: &str,
    config: Config,
    snapshots: &[SnapshotState],
    now_ms: i64,
) -> Result<Map<String, Value>, Error> {
    let device: Arc<dyn Device> = Arc::new(OverlayDevice::new(base));
    let options = EngineOptions {
        device: Some(device),
        clock: Some(Arc::new(ManualClock::new(now_ms))),
        driver: false,
        ..EngineOptions::default()
    };
    let engine = Engine::open(parent, options)?;
    let options = OpenOptions { config, high_watermark_follows_end: false, ..OpenOptions::default() };
    let log = engine.log(name, options)?;
    log.set_high_watermark(log.log_end_offset())?;
    let document = document::build(&log, name, Some(snapshots));
    log.kill();
    document
}

/// Settings of `topic.properties` beside the directory; those that do not concern a log are left out.
fn config_beside(device: &dyn Device, parent: &Path) -> CliResult<Config> {
    let path = parent.join("topic.properties");
    let mut config = Config::default();
    let Some(bytes) = device.read_small(&path, PROPERTIES_LIMIT_BYTES)? else { return Ok(config) };
    let text = String::from_utf8_lossy(&bytes);
    let settings = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
    for (name, value) in settings.filter_map(|line| line.split_once(['=', ':'])) {
        match config.set(name.trim(), value) {
            Ok(()) | Err(ConfigError::UnknownName { .. }) => {}
            Err(error) => return Err(CliError::Refused(format!("{}: {error}", path.display()))),
        }
    }
    Ok(config)
}

/// The snapshot files as they lie on disk: opening tidies them.
fn stored_snapshots(device: &dyn Device, directory: &Path) -> CliResult<Vec<SnapshotState>> {
    let mut snapshots = Vec::new();
    for entry in device.list(directory)? {
        let Some(name) = parse_file_name(&entry.name) else { continue };
        if name.kind == Kind::Snapshot && name.suffix == Suffix::None {
            let bytes = device.read_small(&directory.join(&entry.name), SNAPSHOT_LIMIT_BYTES)?.unwrap_or_default();
            let entries = SnapshotFile::decode(&bytes).map(|file| file.entries).map_err(|error| error.to_string());
            snapshots.push(SnapshotState { offset: name.base_offset, entries });
        }
    }
    snapshots.sort_by_key(|snapshot| snapshot.offset);
    Ok(snapshots)
}

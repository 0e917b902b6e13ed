//! `oncelog dump`: what opening a directory would give, changing nothing on disk.
//!
//! The engine opens the directory over a device that keeps every change in memory: the real recovery runs, with the
//! checkpoint files, the shutdown mark and `topic.properties` that stand beside the directory, and no second reading of
//! the formats can disagree with it. The lock is not taken: a dump of a live log is a look, not a guest.

mod table;

use crate::document;
use clap::Args;
use oncelog::{Config, ConfigError, Engine, EngineOptions, Error, OpenOptions, SnapshotState};
use oncelog_device::{Device, DeviceKind, ManualClock, OverlayDevice, open_device};
use oncelog_formats::file_name::{Kind, Suffix, parse_file_name};
use oncelog_formats::snapshot::SnapshotFile;
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

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

/// Exit code 0 for a document, 1 where the engine refuses the directory.
pub fn run(args: DumpArgs) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let directory = args.dir.canonicalize().map_err(|error| format!("{}: {error}", args.dir.display()))?;
    if !directory.is_dir() {
        return Err(format!("{} is no directory", args.dir.display()).into());
    }
    let (Some(parent), Some(name)) = (directory.parent(), directory.file_name().and_then(|name| name.to_str())) else {
        return Err(format!("{}: a log's directory is called topic-partition", args.dir.display()).into());
    };
    let config = config_beside(parent)?;
    let snapshots = stored_snapshots(&directory)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    match open_and_describe(parent, name, config, &snapshots, args.now) {
        Ok(document) if args.json => writeln!(out, "{}", Value::Object(document))?,
        Ok(document) => table::print(&document, &mut out)?,
        Err(error) => {
            writeln!(out, "{}", refusal(&error))?;
            out.flush()?;
            return Ok(ExitCode::from(1));
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn refusal(error: &Error) -> Value {
    let message = error.to_string();
    json!({ "error": error.kafka_name(), "message": message, "load_error": format!("{}: {message}", error.kafka_name()) })
}

fn open_and_describe(
    parent: &Path,
    name: &str,
    config: Config,
    snapshots: &[SnapshotState],
    now_ms: i64,
) -> Result<Map<String, Value>, Error> {
    let base = open_device(DeviceKind::Blocking).map_err(|error| Error::Device(Arc::new(error)))?;
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
fn config_beside(parent: &Path) -> Result<Config, String> {
    let path = parent.join("topic.properties");
    let mut config = Config::default();
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(config),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let settings = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', '!']));
    for (name, value) in settings.filter_map(|line| line.split_once(['=', ':'])) {
        match config.set(name.trim(), value) {
            Ok(()) | Err(ConfigError::UnknownName { .. }) => {}
            Err(error) => return Err(format!("{}: {error}", path.display())),
        }
    }
    Ok(config)
}

/// The snapshot files as they lie on disk: opening tidies them.
fn stored_snapshots(directory: &Path) -> io::Result<Vec<SnapshotState>> {
    let mut snapshots = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(parse_file_name) else { continue };
        if name.kind == Kind::Snapshot && name.suffix == Suffix::None {
            let bytes = std::fs::read(entry.path())?;
            let entries = SnapshotFile::decode(&bytes).map(|file| file.entries).map_err(|error| error.to_string());
            snapshots.push(SnapshotState { offset: name.base_offset, entries });
        }
    }
    snapshots.sort_by_key(|snapshot| snapshot.offset);
    Ok(snapshots)
}

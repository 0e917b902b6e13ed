//! What every command shares: where a log lies, how it is opened, how answers are printed, which exit code they mean.
//!
//! Reading commands open the log through an overlay: recovery runs as it would for real, but what it writes stays in
//! memory. So a directory that another process has open, or that nobody may write to, reads the same way, and no
//! command needs a second way of loading.

use indicatif::{ProgressBar, ProgressStyle};
use oncelog::{Device, DeviceKind, Engine, EngineOptions, Log, OpenOptions};
use oncelog_device::{OverlayDevice, open_device};
use oncelog_formats::file_name::parse_log_dir_name;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

const STANDARD_OUTPUT: &str = "standard output";

/// How often a bar is told how far a recovery has come.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Fine,
    /// It ran and found something wrong: exit code 1.
    Wrong,
}

/// Why a command could not run: exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The log said no; the text names file and offset where there is one.
    #[error(transparent)]
    Log(#[from] oncelog::Error),
    /// The device said no; the text names the file.
    #[error(transparent)]
    Device(#[from] oncelog_device::DeviceError),
    /// A batch could not be built or decoded.
    #[error("{place}: {source}")]
    Format {
        /// Directory or file, with the offset where one is known.
        place: String,
        /// What was wrong with the bytes.
        source: oncelog_formats::FormatError,
    },
    /// A file or a stream outside the log.
    #[error("{place}: {source}")]
    Io {
        /// File or stream.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// Anything that the caller can put right.
    #[error("{0}")]
    Refused(String),
}

/// What every command answers.
pub type CliResult<T = Outcome> = std::result::Result<T, CliError>;

impl CliError {
    /// An error of a file or a stream outside the log.
    pub fn io(place: impl std::fmt::Display, source: io::Error) -> Self {
        Self::Io { place: place.to_string(), source }
    }

    /// An error of bytes at a known place.
    pub fn format(place: impl std::fmt::Display, source: oncelog_formats::FormatError) -> Self {
        Self::Format { place: place.to_string(), source }
    }

    /// Whether only the reader of our output went away (`oncelog read .. | head`).
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Io { place, source } if place == STANDARD_OUTPUT && source.kind() == io::ErrorKind::BrokenPipe)
    }
}

/// Turns a command's answer into the exit code, and an error into one line on standard error.
pub fn finish(answer: CliResult) -> ExitCode {
    match answer {
        Ok(Outcome::Fine) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(1),
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("oncelog: {error}");
            ExitCode::from(2)
        }
    }
}

/// A partition directory, named the way Kafka names it.
#[derive(Clone, Debug)]
pub struct Place {
    /// The partition directory, absolute.
    pub directory: PathBuf,
    /// Its parent, which holds the checkpoint files.
    pub data_directory: PathBuf,
    /// `topic-partition`.
    pub name: String,
}

impl Place {
    /// An existing partition directory.
    pub fn existing(directory: &Path) -> CliResult<Self> {
        let absolute = std::fs::canonicalize(directory).map_err(|e| CliError::io(directory.display(), e))?;
        if !absolute.is_dir() {
            let reason = "is a file; give the partition directory, for example data/events-0";
            return Err(CliError::Refused(format!("{}: {reason}", directory.display())));
        }
        Self::of(absolute)
    }

    /// A partition directory that is made with its parents if there is none. A wrong name makes nothing.
    pub fn created(directory: &Path) -> CliResult<Self> {
        if directory.exists() {
            return Self::existing(directory);
        }
        let absolute = std::path::absolute(directory).map_err(|e| CliError::io(directory.display(), e))?;
        Self::of(absolute)?;
        std::fs::create_dir_all(directory).map_err(|e| CliError::io(directory.display(), e))?;
        Self::existing(directory)
    }

    fn of(directory: PathBuf) -> CliResult<Self> {
        let refused = |reason: &str| CliError::Refused(format!("{}: {reason}", directory.display()));
        let name = directory.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refused("has no name to take topic and partition from"))?.to_owned();
        if parse_log_dir_name(&name).is_err() {
            return Err(refused("is not named TOPIC-PARTITION, for example events-0"));
        }
        let data_directory = directory.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { directory, data_directory, name })
    }
}

/// Opens a log for reading, changing nothing on disk and taking no lock. Damage that recovery must not cut off is told
/// on standard error: what is shown then is not all that was promised.
pub fn open_for_reading(place: &Place) -> CliResult<(Engine, Log)> {
    let opened = open_overlaid(place)?;
    for damage in &opened.1.report().damage {
        eprintln!("oncelog: damaged: {damage}");
    }
    Ok(opened)
}

/// As [`open_for_reading`], for a caller that reports damage itself.
pub fn open_overlaid(place: &Place) -> CliResult<(Engine, Log)> {
    let device: Arc<dyn Device> = Arc::new(OverlayDevice::new(open_device(DeviceKind::Blocking)?));
    let options = EngineOptions { device: Some(device), driver: false, ..EngineOptions::default() };
    open(place, options, OpenOptions::default())
}

/// Opens a log for real: takes the lock, recovers, writes.
pub fn open_for_writing(place: &Place, kind: DeviceKind, options: OpenOptions) -> CliResult<(Engine, Log)> {
    open(place, EngineOptions { device_kind: kind, ..EngineOptions::default() }, options)
}

fn open(place: &Place, engine: EngineOptions, log: OpenOptions) -> CliResult<(Engine, Log)> {
    let engine = while_waiting("opening", || Engine::open(&place.data_directory, engine))?;
    let log = while_recovering(&engine, || engine.log(&place.name, log))?;
    Ok((engine, log))
}

/// A bar of what the logs that `work` opens have to read.
fn while_recovering<T>(engine: &Engine, work: impl FnOnce() -> T) -> T {
    let bar = byte_bar(0, "recovering");
    let (working, over) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let bar = &bar;
        scope.spawn(move || {
            while over.recv_timeout(LOOK_EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                let logs = engine.recoveries();
                bar.set_length(logs.iter().map(|log| log.total_bytes).sum());
                bar.set_position(logs.iter().map(|log| log.done_bytes).sum());
            }
        });
        let done = work();
        drop(working);
        bar.finish_and_clear();
        done
    })
}

/// The device named on the command line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceArg {
    /// The best that this machine allows.
    #[default]
    Auto,
    /// io_uring, or an error where it is denied.
    Uring,
    /// pwritev2 on the calling thread.
    Blocking,
}

impl From<DeviceArg> for DeviceKind {
    fn from(arg: DeviceArg) -> Self {
        match arg {
            DeviceArg::Auto => Self::Auto,
            DeviceArg::Uring => Self::Uring,
            DeviceArg::Blocking => Self::Blocking,
        }
    }
}

impl DeviceArg {
    /// The name that the command line takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "uring",
            Self::Blocking => "blocking",
        }
    }
}

/// Standard output with a buffer; a reader that went away is an error to return, not a panic.
pub struct Output {
    stream: io::BufWriter<io::StdoutLock<'static>>,
}

impl Output {
    /// Locks standard output.
    pub fn new() -> Self {
        Self { stream: io::BufWriter::with_capacity(1 << 16, io::stdout().lock()) }
    }

    /// One line of text.
    pub fn line(&mut self, text: impl std::fmt::Display) -> CliResult<()> {
        writeln!(self.stream, "{text}").map_err(|e| CliError::io(STANDARD_OUTPUT, e))
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> CliResult<()> {
        self.stream.write_all(bytes).map_err(|e| CliError::io(STANDARD_OUTPUT, e))
    }

    /// Hands on what the buffer holds.
    pub fn flush(&mut self) -> CliResult<()> {
        self.stream.flush().map_err(|e| CliError::io(STANDARD_OUTPUT, e))
    }
}

/// A bar over a known amount of bytes on standard error; silent where that is no terminal.
pub fn byte_bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(total).with_message(what);
    let style = ProgressStyle::with_template("{msg} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// A counter for work of unknown length on standard error; silent where that is no terminal.
pub fn spinner(what: &'static str) -> ProgressBar {
    spinning(what, "{spinner} {msg} {human_pos} {elapsed}")
}

/// Something to look at while `work` runs, which cannot be counted.
pub fn while_waiting<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let bar = spinning(what, "{spinner} {msg} {elapsed}");
    let done = work();
    bar.finish_and_clear();
    done
}

fn spinning(what: &'static str, template: &str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    let style = ProgressStyle::with_template(template);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Bytes as JSON: text where it is printable UTF-8, else `{"hex": ".."}`; nothing as null.
pub fn bytes_json(bytes: Option<&[u8]>) -> serde_json::Value {
    let Some(bytes) = bytes else { return serde_json::Value::Null };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c < ' ' || c == '\u{7f}') => text.into(),
        _ => serde_json::json!({ "hex": hex::encode(bytes) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_makes_no_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let wrong = scratch.path().join("nopartition");
        assert!(Place::created(&wrong).is_err());
        assert!(!wrong.exists());
        let right = Place::created(&scratch.path().join("a/events-3")).unwrap();
        assert_eq!(right.name, "events-3");
        assert!(right.data_directory.ends_with("a"));
    }

    #[test]
    fn bytes_that_are_no_clean_text_come_out_as_hex() {
        assert_eq!(bytes_json(Some(b"abc")), "abc");
        assert_eq!(bytes_json(Some(b"a\n")), serde_json::json!({ "hex": "610a" }));
        assert_eq!(bytes_json(None), serde_json::Value::Null);
    }
}

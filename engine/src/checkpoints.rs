//! What a data directory remembers about its logs: Kafka's checkpoint files and the mark of a clean shutdown.
//!
//! Each file lists all logs of the directory, so every change is read, changed and replaced whole under one lock.
//! Nothing is cached: the files are small and changed rarely, and a cache would hide what another program wrote while
//! no log was open. Reading has three answers ([`Stored`]), because a log start that cannot be read is not a log start
//! of 0. A file that breaks its format is copied to `<name>.unreadable-oncelog` before it is replaced; one that the
//! device cannot read just now is left alone and the change fails, since the other logs' entries in it may be good.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use oncelog_device::{Device, DeviceError, DeviceErrorKind};
use oncelog_formats::checkpoint::{self, CLEANER, HIGH_WATERMARK, LOG_START, OffsetCheckpoint, RECOVERY_POINT};
use oncelog_formats::{FormatError, clean_shutdown};
use parking_lot::Mutex;

use crate::error::Error;

/// Appended to the name of a file that could not be read and was replaced.
pub const UNREADABLE_SUFFIX: &str = ".unreadable-oncelog";

/// The broker's epoch in a mark of ours: none, as Kafka writes it.
pub const NO_BROKER_EPOCH: i64 = -1;

const LIMIT_BYTES: u64 = 64 << 20;

/// Why a checkpoint was not stored.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The device refused; the old or the new file stands whole.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A value that the file cannot hold; nothing was changed in it.
    #[error("{}: {source}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: FormatError,
    },
}

impl From<CheckpointError> for Error {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Device(error) => error.into(),
            CheckpointError::Format { path, source } => Error::Format { path, source },
        }
    }
}

/// What a file says about a log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Stored {
    /// Nothing: no file, or no line for this log.
    #[default]
    Absent,
    /// This offset.
    Value(i64),
    /// Something that cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Stored {
    /// The offset, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<i64> {
        match self {
            Self::Value(offset) => Some(*offset),
            _ => None,
        }
    }
}

/// What the four files say about a log.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct StoredOffsets {
    /// First offset not known to be on the disk.
    pub recovery_point: Stored,
    /// First offset of the log.
    pub log_start: Stored,
    /// First offset not known to be on all replicas.
    pub high_watermark: Stored,
    /// First offset not compacted; never written here.
    pub cleaner: Stored,
}

/// What to write about a log; `None` leaves a file's entry as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Offsets {
    /// First offset not known to be on the disk.
    pub recovery_point: Option<i64>,
    /// First offset of the log, and whether it lies above the first segment's base. The entry goes where it does not.
    pub log_start: Option<(i64, bool)>,
    /// First offset not known to be on all replicas.
    pub high_watermark: Option<i64>,
}

/// A file that was replaced although it could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The file.
    pub path: PathBuf,
    /// Where its old content is.
    pub kept_as: PathBuf,
    /// Why it could not be read.
    pub reason: String,
}

/// One file's part of what to write: the offset, and whether it is listed at all.
type Field = fn(&Offsets) -> Option<(i64, bool)>;

/// The checkpoint files of one data directory, shared by its logs.
#[derive(Debug)]
pub struct DirectoryCheckpoints {
    directory: PathBuf,
    /// Held by whoever writes. Files whose last write failed: what they seem to say may not be on disk.
    doubtful: Mutex<BTreeSet<PathBuf>>,
}

impl DirectoryCheckpoints {
    /// Those of the directory that holds the logs' directories.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), doubtful: Mutex::default() }
    }

    /// What the files say about a log. A file that the device cannot read counts as unreadable.
    #[must_use]
    pub fn read(&self, device: &dyn Device, topic: &str, partition: i32) -> StoredOffsets {
        let _one = self.doubtful.lock();
        let stored = |name| {
            let path = self.directory.join(name);
            match load(device, &path) {
                Ok(entries) => find(&entries, topic, partition),
                Err(error) => Stored::Unreadable { reason: error.reason(), path },
            }
        };
        StoredOffsets {
            recovery_point: stored(RECOVERY_POINT),
            log_start: stored(LOG_START),
            high_watermark: stored(HIGH_WATERMARK),
            cleaner: stored(CLEANER),
        }
    }

    /// Writes what is known about one log and keeps all other entries; which unreadable files that replaced. A file
    /// that would not change is not written. On an error, files before it in the order of [`Offsets`] may be new.
    pub fn update(
        &self,
        device: &dyn Device,
        topic: &str,
        partition: i32,
        offsets: &Offsets,
    ) -> Result<Vec<Replaced>, CheckpointError> {
        self.update_all(device, &[(topic, partition, *offsets)])
    }

    /// As [`DirectoryCheckpoints::update`], for several logs with one write a file.
    pub fn update_all(
        &self,
        device: &dyn Device,
        logs: &[(&str, i32, Offsets)],
    ) -> Result<Vec<Replaced>, CheckpointError> {
        let mut doubtful = self.doubtful.lock();
        let mut replaced = Vec::new();
        let files: [(&str, Field); 3] = [
            (RECOVERY_POINT, |offsets| offsets.recovery_point.map(|offset| (offset, true))),
            (LOG_START, |offsets| offsets.log_start),
            (HIGH_WATERMARK, |offsets| offsets.high_watermark.map(|offset| (offset, true))),
        ];
        for (name, field) in files {
            let changes: Vec<_> = logs
                .iter()
                .filter_map(|(topic, partition, offsets)| field(offsets).map(|to| (*topic, *partition, to)))
                .collect();
            replaced.extend(change(device, &self.directory.join(name), &changes, &mut doubtful)?);
        }
        Ok(replaced)
    }

    /// Says that every log is closed and its files are complete.
    pub fn write_clean_mark(&self, device: &dyn Device, broker_epoch: i64) -> Result<(), CheckpointError> {
        let _one = self.doubtful.lock();
        Ok(device.write_small(&self.clean_path(), clean_shutdown::format(broker_epoch).as_bytes())?)
    }

    /// Takes the mark away, for good when this returns; before any log is opened. Whether there was one.
    pub fn remove_clean_mark(&self, device: &dyn Device) -> Result<bool, CheckpointError> {
        let _one = self.doubtful.lock();
        let existed = device.remove(&self.clean_path())?;
        if existed {
            device.sync_directory(&self.directory)?;
        }
        Ok(existed)
    }

    fn clean_path(&self) -> PathBuf {
        self.directory.join(clean_shutdown::FILE_NAME)
    }
}

/// Why a file gave no entries.
enum LoadError {
    Device(DeviceError),
    Format { bytes: Vec<u8>, source: FormatError },
}

impl LoadError {
    fn reason(&self) -> String {
        match self {
            Self::Device(error) => error.to_string(),
            Self::Format { source, .. } => source.to_string(),
        }
    }
}

fn load(device: &dyn Device, path: &Path) -> Result<Vec<OffsetCheckpoint>, LoadError> {
    match device.read_small(path, LIMIT_BYTES).map_err(LoadError::Device)? {
        None => Ok(Vec::new()),
        Some(bytes) => checkpoint::parse(&bytes).map_err(|source| LoadError::Format { bytes, source }),
    }
}

fn find(entries: &[OffsetCheckpoint], topic: &str, partition: i32) -> Stored {
    // Of two lines Kafka's map keeps the later.
    let found = entries.iter().rfind(|(t, p, _)| t == topic && *p == partition);
    found.map_or(Stored::Absent, |(.., offset)| Stored::Value(*offset))
}

/// Sets or removes entries of one file.
fn change(
    device: &dyn Device,
    path: &Path,
    changes: &[(&str, i32, (i64, bool))],
    doubtful: &mut BTreeSet<PathBuf>,
) -> Result<Option<Replaced>, CheckpointError> {
    if changes.is_empty() {
        return Ok(None);
    }
    let (before, unreadable) = match load(device, path) {
        Ok(entries) => (entries, None),
        Err(LoadError::Device(error)) if error.kind() != DeviceErrorKind::TooLarge => {
            return Err(error.into());
        }
        Err(unreadable) => (Vec::new(), Some(unreadable)),
    };
    let mut after = before.clone();
    for (topic, partition, (offset, listed)) in changes {
        let is_this = |(t, p, _): &OffsetCheckpoint| t == topic && p == partition;
        match after.iter_mut().rfind(|entry| is_this(entry)) {
            Some(entry) if *listed => entry.2 = *offset,
            Some(_) => after.retain(|entry| !is_this(entry)),
            None if *listed => after.push(((*topic).to_owned(), *partition, *offset)),
            None => {}
        }
    }
    if after == before && unreadable.is_none() && !doubtful.contains(path) {
        return Ok(None);
    }
    let format_error = |source| CheckpointError::Format { path: path.to_owned(), source };
    let text = checkpoint::format(&after).map_err(format_error)?;
    let replaced = unreadable.map(|found| keep_aside(device, path, &found)).transpose()?;
    doubtful.insert(path.to_owned());
    device.write_small(path, text.as_bytes())?;
    doubtful.remove(path);
    Ok(replaced)
}

/// A copy rather than a new name: a crash in between must not make the unreadable file look absent.
fn keep_aside(device: &dyn Device, path: &Path, found: &LoadError) -> Result<Replaced, DeviceError> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNREADABLE_SUFFIX);
    let kept_as = PathBuf::from(name);
    match found {
        LoadError::Format { bytes, .. } => device.write_small(&kept_as, bytes)?,
        LoadError::Device(_) => device.rename(path, &kept_as)?,
    }
    let replaced = Replaced { path: path.to_owned(), kept_as, reason: found.reason() };
    tracing::warn!(path = %path.display(), kept_as = %replaced.kept_as.display(), reason = %replaced.reason,
        "an unreadable checkpoint file was replaced");
    Ok(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oncelog_device::{FaultOp, MemoryDevice};

    const DATA: &str = "/data";

    fn start() -> (MemoryDevice, DirectoryCheckpoints) {
        let device = MemoryDevice::new();
        device.create_directory(Path::new(DATA)).unwrap();
        (device, DirectoryCheckpoints::new(DATA))
    }

    fn text(device: &MemoryDevice, name: &str) -> Option<String> {
        let bytes = device.contents(&Path::new(DATA).join(name)).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn put(device: &MemoryDevice, name: &str, content: &[u8]) {
        device.put(&Path::new(DATA).join(name), content).unwrap();
    }

    #[test]
    fn entries_of_other_logs_stay() {
        let (device, checkpoints) = start();
        put(&device, RECOVERY_POINT, b"0\n2\nother 3 17\nt 0 5\n");
        assert_eq!(checkpoints.read(&device, "t", 1), StoredOffsets::default());
        let all = Offsets { recovery_point: Some(9), log_start: Some((4, true)), high_watermark: Some(8) };
        assert_eq!(checkpoints.update(&device, "t", 0, &all).unwrap(), []);
        assert_eq!(text(&device, RECOVERY_POINT).unwrap(), "0\n2\nother 3 17\nt 0 9\n");
        let read = checkpoints.read(&device, "t", 0);
        assert_eq!(
            [&read.recovery_point, &read.log_start, &read.high_watermark, &read.cleaner].map(Stored::value),
            [Some(9), Some(4), Some(8), None]
        );
        let some = Offsets { high_watermark: Some(10), ..Offsets::default() };
        checkpoints.update_all(&device, &[("t", 0, some), ("u", 1, some)]).unwrap();
        assert_eq!(text(&device, HIGH_WATERMARK).unwrap(), "0\n2\nt 0 10\nu 1 10\n");
        assert_eq!(checkpoints.read(&device, "t", 0).recovery_point, Stored::Value(9));
    }

    #[test]
    fn a_log_start_at_the_first_segment_is_not_listed() {
        let (device, checkpoints) = start();
        let at = |offset, above| Offsets { log_start: Some((offset, above)), ..Offsets::default() };
        checkpoints.update(&device, "t", 0, &at(0, false)).unwrap();
        assert_eq!(text(&device, LOG_START), None);
        checkpoints.update_all(&device, &[("t", 0, at(4, true)), ("u", 0, at(7, true))]).unwrap();
        checkpoints.update(&device, "t", 0, &at(5, false)).unwrap();
        assert_eq!(text(&device, LOG_START).unwrap(), "0\n1\nu 0 7\n");
    }

    #[test]
    fn an_unreadable_file_is_no_zero_and_is_kept() {
        let (device, checkpoints) = start();
        put(&device, LOG_START, b"0\n1\nt 0 x\n");
        let read = checkpoints.read(&device, "t", 0);
        assert!(matches!(&read.log_start, Stored::Unreadable { path, .. } if path.ends_with(LOG_START)));
        assert_eq!(read.recovery_point, Stored::Absent);
        let change = Offsets { log_start: Some((4, true)), ..Offsets::default() };
        let replaced = checkpoints.update(&device, "t", 0, &change).unwrap();
        assert_eq!(replaced.len(), 1);
        assert_eq!(device.contents(&replaced[0].kept_as).unwrap().unwrap(), b"0\n1\nt 0 x\n");
        assert!(replaced[0].kept_as.ends_with("log-start-offset-checkpoint.unreadable-oncelog"));
        assert_eq!(text(&device, LOG_START).unwrap(), "0\n1\nt 0 4\n");
    }

    #[test]
    fn a_file_that_the_device_cannot_read_now_is_left_alone() {
        let (device, checkpoints) = start();
        put(&device, RECOVERY_POINT, b"0\n1\nother 3 17\n");
        let change = Offsets { recovery_point: Some(4), ..Offsets::default() };
        device.plant(FaultOp::Read, 0, 1);
        assert!(matches!(checkpoints.update(&device, "t", 0, &change), Err(CheckpointError::Device(_))));
        assert_eq!(text(&device, RECOVERY_POINT).unwrap(), "0\n1\nother 3 17\n");
        device.plant(FaultOp::Read, 0, 1);
        assert!(matches!(checkpoints.read(&device, "other", 3).recovery_point, Stored::Unreadable { .. }));
    }

    #[test]
    fn a_name_that_the_file_cannot_hold_changes_nothing() {
        let (device, checkpoints) = start();
        let change = Offsets { recovery_point: Some(4), ..Offsets::default() };
        let refused = checkpoints.update(&device, "a b", 0, &change);
        assert!(matches!(refused, Err(CheckpointError::Format { .. })));
        assert_eq!(text(&device, RECOVERY_POINT), None);
    }

    #[test]
    fn the_clean_mark() {
        let (device, checkpoints) = start();
        assert!(!checkpoints.remove_clean_mark(&device).unwrap());
        checkpoints.write_clean_mark(&device, 42).unwrap();
        assert_eq!(text(&device, clean_shutdown::FILE_NAME).unwrap(), "{\"version\":0,\"brokerEpoch\":42}");
        assert!(checkpoints.remove_clean_mark(&device).unwrap());
        device.power_cut(1);
        assert!(!checkpoints.remove_clean_mark(&device).unwrap());
        put(&device, clean_shutdown::FILE_NAME, b"");
        assert!(checkpoints.remove_clean_mark(&device).unwrap(), "presence alone is the message");
    }
}

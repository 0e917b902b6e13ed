//! One error for every door: what was tried, on which path, and what the kernel said.
//!
//! It clones (the engine keeps the failure that latched a log and hands it to everyone who asks), which is why the
//! kernel's error stands behind an [`Arc`]. Nobody reads its text to decide: [`DeviceError::kind`] and the predicates
//! do.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What went wrong, as far as anyone decides by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceErrorKind {
    /// No such file or directory.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A directory, or something else that is no regular file, stands where a file should.
    IsADirectory,
    /// The kernel refuses this user.
    PermissionDenied,
    /// Somebody else holds the lock.
    Locked,
    /// No space, quota or file size left; no failure of the device.
    Full,
    /// The kernel took fewer bytes than given and then none.
    ShortWrite,
    /// A small file is over its limit.
    TooLarge,
    /// Position, length or range breaks the contract: not block-aligned, beyond the buffer, or not prepared.
    InvalidRange,
    /// This machine or file system cannot do it.
    Unsupported,
    /// An earlier write or sync failed: nothing more until the file is opened again.
    Latched,
    /// A fault planted by a test.
    Injected,
    /// Anything else.
    Other,
}

/// A failed call of a device.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{op} {}: {}", path.display(), self.reason())]
pub struct DeviceError {
    kind: DeviceErrorKind,
    op: &'static str,
    path: PathBuf,
    detail: Option<String>,
    source: Option<Arc<io::Error>>,
}

impl DeviceError {
    /// An error without a kernel error behind it. `op` is the call in a word or two (`"write"`).
    pub fn new(kind: DeviceErrorKind, op: &'static str, path: &Path) -> Self {
        Self { kind, op, path: path.to_path_buf(), detail: None, source: None }
    }

    /// What the kernel answered; the kind follows from its number.
    pub fn io(op: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        Self { kind: kind_of(&source), source: Some(Arc::new(source)), ..Self::new(DeviceErrorKind::Other, op, path) }
    }

    /// No space left, as a device without a kernel says it: carries `ENOSPC`.
    pub fn full(op: &'static str, path: &Path) -> Self {
        Self::io(op, path, Errno::NOSPC)
    }

    /// A small file of `length` bytes that may have `limit`.
    pub fn too_large(op: &'static str, path: &Path, length: u64, limit: u64) -> Self {
        Self::new(DeviceErrorKind::TooLarge, op, path).with_detail(format!("{length} bytes, {limit} allowed"))
    }

    /// Adds a sentence for the reader.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> DeviceErrorKind {
        self.kind
    }

    /// The call that failed.
    pub fn op(&self) -> &'static str {
        self.op
    }

    /// The file or directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kernel's number, if the kernel said one.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(|source| source.raw_os_error())
    }

    /// Out of space, quota or permitted file size (`ENOSPC`, `EDQUOT`, `EFBIG`): passes when space returns.
    pub fn is_full(&self) -> bool {
        self.kind == DeviceErrorKind::Full
    }

    /// The device has tried and failed, so what it did before is in doubt too. Everything else is a refusal that leaves
    /// all as it was.
    pub fn is_failure(&self) -> bool {
        use DeviceErrorKind as Kind;
        matches!(self.kind, Kind::ShortWrite | Kind::Latched | Kind::Injected | Kind::Other)
    }

    /// Repeats an earlier failure; only opening again clears it.
    pub fn is_latched(&self) -> bool {
        self.kind == DeviceErrorKind::Latched
    }

    /// Planted by a test.
    pub fn is_injected(&self) -> bool {
        self.kind == DeviceErrorKind::Injected
    }

    fn reason(&self) -> String {
        let said = match (&self.source, self.kind) {
            (Some(source), _) => source.to_string(),
            (None, kind) => describe(kind).to_owned(),
        };
        match &self.detail {
            Some(detail) => format!("{said} ({detail})"),
            None => said,
        }
    }
}

fn kind_of(source: &io::Error) -> DeviceErrorKind {
    use DeviceErrorKind as Kind;
    match Errno::from_io_error(source) {
        Some(Errno::NOSPC | Errno::DQUOT | Errno::FBIG) => Kind::Full,
        Some(Errno::NOENT) => Kind::NotFound,
        Some(Errno::EXIST) => Kind::AlreadyExists,
        Some(Errno::ISDIR) => Kind::IsADirectory,
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Kind::PermissionDenied,
        Some(Errno::OPNOTSUPP | Errno::NOSYS) => Kind::Unsupported,
        _ => Kind::Other,
    }
}

fn describe(kind: DeviceErrorKind) -> &'static str {
    use DeviceErrorKind as Kind;
    match kind {
        Kind::NotFound => "not found",
        Kind::AlreadyExists => "exists already",
        Kind::IsADirectory => "not a regular file",
        Kind::PermissionDenied => "permission denied",
        Kind::Locked => "locked by somebody else",
        Kind::Full => "no space left",
        Kind::ShortWrite => "short write",
        Kind::TooLarge => "too large",
        Kind::InvalidRange => "invalid range",
        Kind::Unsupported => "not supported here",
        Kind::Latched => "an earlier write or sync failed",
        Kind::Injected => "injected fault",
        Kind::Other => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_numbers_become_kinds() {
        let kind = |errno: Errno| DeviceError::io("write", Path::new("f"), errno).kind();
        for full in [Errno::NOSPC, Errno::DQUOT, Errno::FBIG] {
            assert_eq!(kind(full), DeviceErrorKind::Full);
        }
        assert_eq!(kind(Errno::NOENT), DeviceErrorKind::NotFound);
        assert_eq!(kind(Errno::IO), DeviceErrorKind::Other);
        assert!(DeviceError::full("prepare", Path::new("f")).is_full());
    }

    #[test]
    fn display_names_call_path_and_reason() {
        let error = DeviceError::too_large("read_small", Path::new("d/x"), 9, 8);
        assert_eq!(error.to_string(), "read_small d/x: too large (9 bytes, 8 allowed)");
        assert_eq!(DeviceError::io("write", Path::new("f"), Errno::IO).errno(), Some(Errno::IO.raw_os_error()));
    }
}

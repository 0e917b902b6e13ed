//! The one error of this crate: what was wrong with the bytes, in values rather than text.

use crate::compress::Compression;

/// Result of decoding or building.
pub type Result<T> = core::result::Result<T, FormatError>;

/// Why bytes are not what they should be. Positions count from the start of the slice that was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// Fewer bytes than the structure needs.
    #[error("{what}: {have} bytes where {need} are needed")]
    Truncated {
        /// The structure.
        what: &'static str,
        /// Bytes needed.
        need: usize,
        /// Bytes there.
        have: usize,
    },
    /// A checksum does not match.
    #[error("{what}: checksum {stored:08x} stored, {computed:08x} computed")]
    CrcMismatch {
        /// The structure.
        what: &'static str,
        /// As stored.
        stored: u32,
        /// Over the bytes found.
        computed: u32,
    },
    /// A length or count field is impossible.
    #[error("{what}: {value} is no possible length or count")]
    BadLength {
        /// The field.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// A batch of another format.
    #[error("record batch of magic {magic}")]
    BadMagic {
        /// As stored.
        magic: i8,
    },
    /// A version that is not understood.
    #[error("{what}: version {version}")]
    BadVersion {
        /// The structure.
        what: &'static str,
        /// As stored.
        version: i64,
    },
    /// A record inside a batch breaks the format.
    #[error("invalid record: {reason}")]
    InvalidRecord {
        /// Which rule.
        reason: &'static str,
    },
    /// Entries that must increase do not.
    #[error("{what}: entry {entry} is not above the one before it")]
    NotIncreasing {
        /// The file.
        what: &'static str,
        /// Number of the entry, from 0.
        entry: usize,
    },
    /// A codec number that Kafka does not know.
    #[error("unknown codec {0}")]
    UnknownCodec(u8),
    /// A codec that this build leaves out.
    #[error("codec {} is not compiled in", .0.name())]
    CodecUnavailable(Compression),
    /// The codec refuses the bytes.
    #[error("{} data cannot be decoded", .0.name())]
    Decompress(Compression),
    /// The codec cannot encode.
    #[error("{} cannot encode", .0.name())]
    Compress(Compression),
    /// Larger than the caller's limit.
    #[error("{what}: more than {limit_bytes} bytes")]
    TooLarge {
        /// The structure.
        what: &'static str,
        /// The caller's limit.
        limit_bytes: usize,
    },
    /// A text file breaks its format.
    #[error("{what}, line {line}: {reason}")]
    BadText {
        /// The file.
        what: &'static str,
        /// Line, from 1.
        line: usize,
        /// Which rule.
        reason: &'static str,
    },
    /// A name that is none of Kafka's.
    #[error("{what}: {reason}")]
    BadName {
        /// The kind of name.
        what: &'static str,
        /// Which rule.
        reason: &'static str,
    },
    /// A value that the format cannot hold.
    #[error("{what}: {value} does not fit")]
    OutOfRange {
        /// The field.
        what: &'static str,
        /// The value.
        value: i64,
    },
}

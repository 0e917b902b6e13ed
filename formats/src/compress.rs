//! The four codecs of a batch's records section, in the framing Kafka's clients write, and byte for byte what its own
//! libraries make of the same records at their default levels (`docs/formats.md` has the one exception).
//!
//! Decompression takes a limit and its memory grows with output that really came, never with a size some header claims:
//! a batch of a few bytes must not be able to ask for gigabytes. Each codec sits behind a cargo feature.

#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(test)]
mod tests;
#[cfg(feature = "zstd")]
mod zstd;

use alloc::vec::Vec;

use crate::error::{FormatError, Result};

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in xerial framing.
    Snappy,
    /// LZ4 frame of independent blocks.
    Lz4,
    /// Zstandard frame.
    Zstd,
}

impl Compression {
    /// All of them, by number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec of a number in a batch's attributes; 5 and above are [`FormatError::UnknownCodec`].
    pub fn from_id(id: u8) -> Result<Self> {
        Self::ALL.get(usize::from(id)).copied().ok_or(FormatError::UnknownCodec(id))
    }

    /// The number in a batch's attributes.
    #[must_use]
    pub fn id(self) -> u8 {
        self as u8
    }

    /// Kafka's name: `none`, `gzip`, `snappy`, `lz4`, `zstd`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The codec of one of Kafka's names; anything else is [`FormatError::BadName`].
    pub fn from_name(name: &str) -> Result<Self> {
        let named = Self::ALL.into_iter().find(|codec| codec.name() == name);
        named.ok_or(FormatError::BadName { what: "compression", reason: "none of none, gzip, snappy, lz4, zstd" })
    }
}

/// `bytes` in the codec's framing. [`FormatError::CodecUnavailable`] where this build leaves the codec out.
pub fn compress(codec: Compression, bytes: &[u8]) -> Result<Vec<u8>> {
    match codec {
        Compression::None => Ok(bytes.to_vec()),
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::compress(bytes),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::compress(bytes),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::compress(bytes),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::compress(bytes),
        #[allow(unreachable_patterns, reason = "reached where a codec is left out")]
        _ => Err(FormatError::CodecUnavailable(codec)),
    }
}

/// The bytes that were compressed, at most `limit_bytes` of them.
///
/// [`FormatError::TooLarge`] above the limit, [`FormatError::Decompress`] where the codec refuses,
/// [`FormatError::CodecUnavailable`] where this build leaves the codec out.
pub fn decompress(codec: Compression, bytes: &[u8], limit_bytes: usize) -> Result<Vec<u8>> {
    match codec {
        Compression::None if bytes.len() > limit_bytes => Err(too_large(limit_bytes)),
        Compression::None => Ok(bytes.to_vec()),
        #[cfg(feature = "gzip")]
        Compression::Gzip => gzip::decompress(bytes, limit_bytes),
        #[cfg(feature = "snappy")]
        Compression::Snappy => snappy::decompress(bytes, limit_bytes),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => lz4::decompress(bytes, limit_bytes),
        #[cfg(feature = "zstd")]
        Compression::Zstd => zstd::decompress(bytes, limit_bytes),
        #[allow(unreachable_patterns, reason = "reached where a codec is left out")]
        _ => Err(FormatError::CodecUnavailable(codec)),
    }
}

fn too_large(limit_bytes: usize) -> FormatError {
    FormatError::TooLarge { what: "decompressed records", limit_bytes }
}

/// Makes room for `more` bytes behind `output`: doubles, but never past the limit.
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4"))]
fn reserve(output: &mut Vec<u8>, more: usize, limit_bytes: usize) -> Result<()> {
    let needed = output.len().saturating_add(more);
    if needed > limit_bytes {
        return Err(too_large(limit_bytes));
    }
    if needed > output.capacity() {
        let capacity = needed.max(output.capacity().saturating_mul(2)).min(limit_bytes);
        output.reserve_exact(capacity - output.len());
    }
    Ok(())
}

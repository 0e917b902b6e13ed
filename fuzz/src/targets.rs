//! What each decoder promises, as checks on any input.
//!
//! A check answers whether the input decoded, or what promise broke. A panic breaks one too; the runner sees to that.

mod batch;
mod checkpoint;
mod files;

/// Whether the input decoded, or what is wrong with the decoder.
pub type Outcome = Result<bool, String>;

/// One decoder.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// The promises.
    pub check: fn(&[u8]) -> Outcome,
    /// Makes the checksums of an injured input right again, so that the injury itself is decoded.
    pub repair: fn(&mut [u8]),
    /// What an input may be decompressed to, bytes.
    pub decompressed_bytes: usize,
}

impl Target {
    /// One that takes any bytes as they are.
    pub const fn plain(name: &'static str, check: fn(&[u8]) -> Outcome) -> Self {
        Self { name, check, repair: |_| {}, decompressed_bytes: 0 }
    }

    /// What a check may have allocated at one time: some dozens of copies of what there is to decode, decoded, encoded
    /// and decoded again. A length that is believed before it is seen to be true is far beyond.
    pub fn allowed_bytes(&self, input: &[u8]) -> u64 {
        64 * (1024 + input.len() + self.decompressed_bytes) as u64
    }
}

/// All of them.
pub const ALL: [Target; 15] = [
    Target { name: "batch", check: batch::batches, repair: batch::repair, decompressed_bytes: batch::LIMIT_BYTES },
    Target::plain("control", batch::control),
    Target { decompressed_bytes: batch::LIMIT_BYTES, ..Target::plain("codecs", batch::codecs) },
    Target::plain("varint", batch::varint),
    Target::plain("offset_index", files::offset_index),
    Target::plain("time_index", files::time_index),
    Target::plain("txn_index", files::txn_index),
    Target { repair: files::repair_snapshot, ..Target::plain("snapshot", files::snapshot) },
    Target { repair: checkpoint::repair, ..Target::plain("log_checkpoint", checkpoint::log_checkpoint) },
    Target::plain("producer_page", checkpoint::producer_page),
    Target::plain("epoch_checkpoint", files::epoch_checkpoint),
    Target::plain("checkpoint", files::checkpoint),
    Target::plain("partition_metadata", files::partition_metadata),
    Target::plain("clean_shutdown", files::clean_shutdown),
    Target::plain("file_name", files::file_name),
];

/// `Err` with both sides unless they are equal.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, found: &T) -> Result<(), String> {
    if expected == found { Ok(()) } else { Err(format!("{what}: expected {expected:?}, found {found:?}")) }
}

/// `Err` unless it holds.
fn holds(what: &str, condition: bool) -> Result<(), String> {
    if condition { Ok(()) } else { Err(what.to_owned()) }
}

//! Settings of a log, under Kafka's names and with Kafka's defaults.
//!
//! One table names every setting once, with how its text is read; [`Config::NAMES`], [`Config::set`] and property files
//! all read from it. Kafka's dots and our underscores mean the same. A value that cannot be meant is refused with the
//! setting's name rather than clamped: a clamped retention is discovered when the data is gone.

use oncelog_formats::{Compression, TimestampType};

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CleanupPolicy {
    /// Segments past retention are deleted.
    #[default]
    Delete,
    /// The newest value of each key stays; every record needs a key.
    Compact,
    /// Both.
    Both,
}

impl CleanupPolicy {
    /// Whether retention by time and size applies.
    #[must_use]
    pub fn deletes(self) -> bool {
        self != Self::Compact
    }

    /// Whether every record needs a key.
    #[must_use]
    pub fn compacts(self) -> bool {
        self != Self::Delete
    }
}

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum CompressionType {
    /// As the producer sent them.
    #[default]
    Producer,
    /// With this codec, whatever the producer used; [`Compression::None`] is Kafka's `uncompressed`.
    Codec(Compression),
}

impl CompressionType {
    /// The codec to store a batch of codec `source` with.
    #[must_use]
    pub fn target(self, source: Compression) -> Compression {
        match self {
            Self::Producer => source,
            Self::Codec(codec) => codec,
        }
    }
}

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("unknown setting {name}")]
    UnknownName {
        /// As given.
        name: String,
    },
    /// The text is not a value of this setting.
    #[error("{name}: {value:?} is not {expected}")]
    InvalidValue {
        /// The setting.
        name: &'static str,
        /// As given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// A number outside the setting's range.
    #[error("{name}: {value} is outside {min}..={max}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// As given.
        value: i64,
        /// Smallest that is taken.
        min: i64,
        /// Largest that is taken.
        max: i64,
    },
    /// A line of a property file without `=` or `:`.
    #[error("line {line}: no setting")]
    InvalidLine {
        /// Line, from 1.
        line: usize,
    },
}

type Field = (&'static str, fn(&mut Config, &'static str, &str) -> Result<(), ConfigError>);

macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr, $read:expr;)*) => {
        /// Settings of one log. Sizes in bytes, times in ms.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Config {
            $($(#[$doc])* pub $name: $type,)*
        }

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Config {
            /// Every setting, with underscores.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)*];
            const FIELDS: &'static [Field] = &[$((stringify!($name), |config, name, text| {
                config.$name = ($read)(name, text)?;
                Ok(())
            }),)*];
        }
    };
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const MAX_INT: i64 = i32::MAX as i64;

settings! {
    /// A segment is rolled before it grows past this.
    segment_bytes: u64 = 1 << 30, size(1);
    /// A segment is rolled when its first timestamp lies this far back.
    segment_ms: i64 = 7 * DAY_MS, integer(1, i64::MAX);
    /// Up to this much is taken from `segment_ms`, drawn for each segment.
    segment_jitter_ms: i64 = 0, integer(0, i64::MAX);
    /// Room of each index of a segment; a full one rolls the segment.
    segment_index_bytes: u64 = 10 << 20, size(4);
    /// An index entry is due once more than this was written since the last.
    index_interval_bytes: u64 = 4096, size(0);
    /// Oldest segments go while the log is larger; -1 for no limit.
    retention_bytes: i64 = -1, integer(i64::MIN, i64::MAX);
    /// Segments go when their largest timestamp is older; -1 for no limit.
    retention_ms: i64 = 7 * DAY_MS, integer(-1, i64::MAX);
    /// Largest batch of a client.
    max_message_bytes: u64 = 1_048_588, size(0);
    /// Whose clock stamps the records.
    message_timestamp_type: TimestampType = TimestampType::CreateTime, timestamp_type;
    /// How far a record's timestamp may lie behind the clock.
    message_timestamp_before_max_ms: i64 = i64::MAX, integer(0, i64::MAX);
    /// How far a record's timestamp may lie ahead of the clock.
    message_timestamp_after_max_ms: i64 = 3_600_000, integer(0, i64::MAX);
    /// What becomes of old records.
    cleanup_policy: CleanupPolicy = CleanupPolicy::Delete, cleanup_policy;
    /// How batches are stored.
    compression_type: CompressionType = CompressionType::Producer, compression_type;
    /// A sync is due once this many messages were written since the last.
    flush_messages: i64 = i64::MAX, integer(1, i64::MAX);
    /// A deleted file keeps its `.deleted` name this long.
    file_delete_delay_ms: i64 = 60_000, integer(0, i64::MAX);
    /// A producer without an open transaction is forgotten after this long without a batch.
    producer_id_expiration_ms: i64 = DAY_MS, integer(1, MAX_INT);
    /// How many producers a log may know. A client's batch of one more is refused with a retriable error until others
    /// have been forgotten for their silence; those known go on, and nobody is forgotten for the limit. Replication and
    /// markers are taken whatever it says.
    max_producers: i64 = i64::MAX, integer(1, i64::MAX);
    /// Memory for what is known of producers, in bytes: beyond it those that were silent for longest stand in a file,
    /// and come back when they do. Lone ids, whose neighbours never appended, and producers with an open transaction
    /// stay in memory.
    producer_memory_bytes: i64 = i64::MAX, integer(1, i64::MAX);
    /// Whether the first batch of a transaction needs a guard.
    transaction_partition_verification_enable: bool = true, boolean;
    /// How long a transaction may be open; a later one is reported, never ended.
    transaction_max_timeout_ms: i64 = 15 * 60 * 1000, integer(1, MAX_INT);
    /// How long recovery after a crash may take; decides how often snapshots are written.
    recovery_budget_ms: i64 = 200, integer(1, i64::MAX);
}

impl Config {
    /// Sets one setting from its text. Dots and underscores mean the same; `internal.segment.bytes` is `segment_bytes`.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let underscored = name.replace('.', "_");
        let wanted = if underscored == "internal_segment_bytes" { "segment_bytes" } else { &underscored };
        let Some((name, read)) = Self::FIELDS.iter().find(|(known, _)| *known == wanted) else {
            return Err(ConfigError::UnknownName { name: name.to_owned() });
        };
        read(self, name, value.trim())
    }

    /// Reads `name=value` lines over the defaults. Empty lines and lines that begin with `#` or `!` are comments; a
    /// name that stands twice takes its last value.
    pub fn from_properties(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with(['#', '!']) {
                continue;
            }
            let (name, value) = line.split_once(['=', ':']).ok_or(ConfigError::InvalidLine { line: at + 1 })?;
            config.set(name.trim(), value)?;
        }
        Ok(config)
    }
}

fn integer(min: i64, max: i64) -> impl Fn(&'static str, &str) -> Result<i64, ConfigError> {
    move |name, text| {
        let value: i64 = text.parse().map_err(|_| invalid(name, text, "an integer"))?;
        if (min..=max).contains(&value) { Ok(value) } else { Err(ConfigError::OutOfRange { name, value, min, max }) }
    }
}

/// A number of bytes that Kafka keeps in 31 bits.
fn size(min: i64) -> impl Fn(&'static str, &str) -> Result<u64, ConfigError> {
    move |name, text| integer(min, MAX_INT)(name, text).map(i64::cast_unsigned)
}

fn boolean(name: &'static str, text: &str) -> Result<bool, ConfigError> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(invalid(name, text, "true or false")),
    }
}

fn timestamp_type(name: &'static str, text: &str) -> Result<TimestampType, ConfigError> {
    match text {
        "CreateTime" | "create" => Ok(TimestampType::CreateTime),
        "LogAppendTime" | "log_append" => Ok(TimestampType::LogAppendTime),
        _ => Err(invalid(name, text, "CreateTime or LogAppendTime")),
    }
}

fn cleanup_policy(name: &'static str, text: &str) -> Result<CleanupPolicy, ConfigError> {
    let (mut delete, mut compact) = (false, false);
    for policy in text.split(',').map(str::trim) {
        match policy {
            "delete" => delete = true,
            "compact" => compact = true,
            "both" => (delete, compact) = (true, true),
            _ => return Err(invalid(name, text, "delete, compact, or both with a comma")),
        }
    }
    Ok(match (delete, compact) {
        (true, true) => CleanupPolicy::Both,
        (false, true) => CleanupPolicy::Compact,
        _ => CleanupPolicy::Delete,
    })
}

fn compression_type(name: &'static str, text: &str) -> Result<CompressionType, ConfigError> {
    Ok(match text {
        "producer" => CompressionType::Producer,
        "uncompressed" | "none" => CompressionType::Codec(Compression::None),
        "gzip" => CompressionType::Codec(Compression::Gzip),
        "snappy" => CompressionType::Codec(Compression::Snappy),
        "lz4" => CompressionType::Codec(Compression::Lz4),
        "zstd" => CompressionType::Codec(Compression::Zstd),
        _ => {
            return Err(invalid(name, text, "producer, uncompressed, gzip, snappy, lz4 or zstd"));
        }
    })
}

fn invalid(name: &'static str, text: &str, expected: &'static str) -> ConfigError {
    ConfigError::InvalidValue { name, value: text.to_owned(), expected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_underscores_and_the_internal_name_mean_the_same() {
        for name in ["segment.bytes", "segment_bytes", "internal.segment.bytes"] {
            let mut config = Config::default();
            config.set(name, " 512 ").unwrap();
            assert_eq!(config, Config { segment_bytes: 512, ..Config::default() }, "{name}");
        }
        assert_eq!(
            Config::default().set("segment.size", "1"),
            Err(ConfigError::UnknownName { name: "segment.size".to_owned() })
        );
    }

    #[test]
    fn every_named_setting_can_be_set() {
        for name in Config::NAMES {
            let text = match *name {
                "message_timestamp_type" => "LogAppendTime",
                "cleanup_policy" => "compact",
                "compression_type" => "uncompressed",
                "transaction_partition_verification_enable" => "false",
                _ => "77",
            };
            let mut config = Config::default();
            config.set(name, text).unwrap();
            assert_ne!(config, Config::default(), "{name}");
        }
    }

    #[test]
    fn properties_with_comments() {
        let text = "# a comment\n\nretention.ms = -1\ncleanup.policy=compact, delete\ncompression.type:zstd\n\
                    message.timestamp.type=LogAppendTime\n";
        let config = Config::from_properties(text).unwrap();
        assert_eq!(
            config,
            Config {
                retention_ms: -1,
                cleanup_policy: CleanupPolicy::Both,
                compression_type: CompressionType::Codec(Compression::Zstd),
                message_timestamp_type: TimestampType::LogAppendTime,
                ..Config::default()
            }
        );
        assert_eq!(Config::from_properties("a=1"), Err(ConfigError::UnknownName { name: "a".to_owned() }));
        assert_eq!(Config::from_properties("\nsegment.ms"), Err(ConfigError::InvalidLine { line: 2 }));
    }

    #[test]
    fn impossible_values_are_refused_by_name_and_change_nothing() {
        let mut config = Config::default();
        for (name, text) in [
            ("segment_bytes", "0"),
            ("segment_bytes", "2147483648"),
            ("segment_ms", "soon"),
            ("retention_ms", "-2"),
            ("cleanup_policy", "delete,shrink"),
            ("cleanup_policy", ""),
            ("compression_type", "brotli"),
            ("message_timestamp_type", "Now"),
            ("transaction_partition_verification_enable", "1"),
        ] {
            let refused = config.set(name, text).unwrap_err();
            assert!(refused.to_string().starts_with(name), "{refused}");
        }
        assert_eq!(config, Config::default());
    }

    #[test]
    fn the_codec_to_store_with() {
        assert_eq!(CompressionType::Producer.target(Compression::Lz4), Compression::Lz4);
        assert_eq!(CompressionType::Codec(Compression::None).target(Compression::Lz4), Compression::None);
        assert!(CleanupPolicy::Both.compacts() && CleanupPolicy::Both.deletes());
        assert!(!CleanupPolicy::Compact.deletes() && !CleanupPolicy::Delete.compacts());
    }
}

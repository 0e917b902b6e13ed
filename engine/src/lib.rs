#![doc = include_str!("../../README.md")]
//!
//! # Modules
//!
//! In floor order, ground first: each uses only those above it in this list.
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod ahead;
mod atomic;
mod background;
mod bytes;
mod checkpoints;
mod committer;
pub mod config;
mod engine;
pub mod epochs;
mod error;
mod follow;
mod index;
mod log;
mod observe;
mod openings;
mod segment;
#[cfg(feature = "sim")]
pub mod sim;
mod spares;
mod tail;
pub mod validate;

pub use atomic::{AtomicBatch, DECISIONS_LOG, PRODUCER_IDS};
pub use bytes::SharedBytes;
pub use config::{Config, ConfigError};
pub use engine::{Engine, EngineOptions};
pub use error::{Damage, Error, Result};
pub use follow::Follower;
pub use log::{
    Ack, Append, Appended, Committed, CommittedFilter, Creator, Explanation, Fetched, Hold, Isolation,
    LATE_ALLOWANCE_MS, Lag, Log, LogState, OpenOptions, OpenReport, OpenTransaction, Outcome, ProducerUsage, Read,
    SegmentState, SnapshotState, Ticket,
};
pub use oncelog_device::{Clock, Device, DeviceKind, ManualClock, SystemClock};
/// Kafka's formats: batches to build and to read, markers, and what stands in a log's files.
pub use oncelog_formats as formats;
pub use oncelog_snapshot::{Forgotten, Origin, ProducerEntry, Refusal};
pub use openings::RecoveryProgress;

//! Control records: the end-transaction marker, and the kinds that are only told apart.

use alloc::vec::Vec;

use crate::batch::BatchView;
use crate::error::{FormatError, Result};
use crate::record::{BatchBuilder, Record};

/// Far above any control record; only a compressed control batch, which Kafka does not write, is held to it.
const LIMIT_BYTES: usize = 1 << 20;

/// The kinds of control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// A transaction was aborted.
    Abort,
    /// A transaction was committed.
    Commit,
    /// A KRaft leader was elected.
    LeaderChange,
    /// First record of a KRaft snapshot.
    SnapshotHeader,
    /// Last record of a KRaft snapshot.
    SnapshotFooter,
    /// The KRaft version.
    KraftVersion,
    /// The KRaft voters.
    KraftVoters,
    /// A number that Kafka does not know either.
    Unknown(i16),
}

impl ControlType {
    /// The kind of a number in a control record's key.
    #[must_use]
    pub fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            _ => Self::Unknown(id),
        }
    }

    /// The number in a control record's key.
    #[must_use]
    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(id) => id,
        }
    }

    /// Kafka's name of it, such as `COMMIT`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Abort => "ABORT",
            Self::Commit => "COMMIT",
            Self::LeaderChange => "LEADER_CHANGE",
            Self::SnapshotHeader => "SNAPSHOT_HEADER",
            Self::SnapshotFooter => "SNAPSHOT_FOOTER",
            Self::KraftVersion => "KRAFT_VERSION",
            Self::KraftVoters => "KRAFT_VOTERS",
            Self::Unknown(_) => "UNKNOWN",
        }
    }
}

/// What an end-transaction marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTxnMarker {
    /// Committed rather than aborted.
    pub commit: bool,
    /// Epoch of the transaction coordinator that wrote it.
    pub coordinator_epoch: i32,
}

/// The record of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRecord {
    /// Its kind.
    pub kind: ControlType,
    /// Milliseconds.
    pub timestamp: i64,
    /// Present for the kinds abort and commit.
    pub marker: Option<EndTxnMarker>,
}

impl ControlRecord {
    /// Reads key and value of a control record. Versions above 0 and surplus bytes are read as version 0;
    /// [`FormatError::InvalidRecord`] where a field is short, absent or of negative version.
    pub fn parse(record: &Record<'_>) -> Result<Self> {
        let key = record.key.and_then(|key| key.first_chunk::<4>());
        let &[v0, v1, t0, t1] = key.ok_or(FormatError::InvalidRecord { reason: "short control key" })?;
        if i16::from_be_bytes([v0, v1]) < 0 {
            return Err(FormatError::InvalidRecord { reason: "negative version of a control key" });
        }
        let kind = ControlType::from_id(i16::from_be_bytes([t0, t1]));
        let marker = match kind {
            ControlType::Abort | ControlType::Commit => {
                let coordinator_epoch = parse_coordinator_epoch(record.value)?;
                Some(EndTxnMarker { commit: kind == ControlType::Commit, coordinator_epoch })
            }
            _ => None,
        };
        Ok(Self { kind, timestamp: record.timestamp, marker })
    }
}

fn parse_coordinator_epoch(value: Option<&[u8]>) -> Result<i32> {
    let value = value.and_then(|value| value.first_chunk::<6>());
    let &[v0, v1, epoch @ ..] = value.ok_or(FormatError::InvalidRecord { reason: "short end-transaction marker" })?;
    if i16::from_be_bytes([v0, v1]) < 0 {
        return Err(FormatError::InvalidRecord { reason: "negative version of an end-transaction marker" });
    }
    Ok(i32::from_be_bytes(epoch))
}

impl BatchView<'_> {
    /// The first record of a control batch, all that Kafka looks at. [`FormatError::InvalidRecord`] where the batch is
    /// no control batch or has no record (ask the header's count first), and errors of [`BatchView::decode`] and
    /// [`ControlRecord::parse`].
    pub fn control(&self) -> Result<ControlRecord> {
        if !self.header().is_control() {
            return Err(FormatError::InvalidRecord { reason: "no control batch" });
        }
        let records = self.decode(LIMIT_BYTES)?;
        match records.records().next() {
            Some(record) => ControlRecord::parse(&record?),
            None => Err(FormatError::InvalidRecord { reason: "control batch without a record" }),
        }
    }
}

/// The batch of 78 bytes with which a coordinator ends a transaction; `timestamp` in milliseconds.
#[must_use]
pub fn end_txn_marker_batch(
    base_offset: i64,
    leader_epoch: i32,
    producer_id: i64,
    producer_epoch: i16,
    commit: bool,
    coordinator_epoch: i32,
    timestamp: i64,
) -> Vec<u8> {
    let kind = if commit { ControlType::Commit } else { ControlType::Abort };
    let mut key = [0; 4];
    key[2..].copy_from_slice(&kind.id().to_be_bytes());
    let mut value = [0; 6];
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::new()
        .base_offset(base_offset)
        .leader_epoch(leader_epoch)
        .producer(producer_id, producer_epoch, crate::batch::NO_SEQUENCE)
        .transactional(true)
        .control(true);
    builder.append(timestamp, Some(&key), Some(&value), &[]);
    builder.build().expect("17 bytes of uncompressed record fit")
}

#[cfg(test)]
mod tests;

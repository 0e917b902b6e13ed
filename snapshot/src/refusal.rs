//! Why a batch is refused, in values. Callers decide by variant, never by text.

/// The transaction rule that a refused batch breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnStateConflict {
    /// Transactional, no transaction open in its epoch, and no valid guard.
    NotVerified,
    /// Not transactional while a transaction of the producer is open.
    OpenTransaction,
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The sequence is not the one that must come next.
    #[error(
        "producer {producer_id} epoch {epoch}: sequence {sequence} out of order (last {last_sequence} of epoch {stored_epoch})"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        epoch: i16,
        /// The batch's base sequence.
        sequence: i32,
        /// The epoch stored.
        stored_epoch: i16,
        /// The last sequence stored, -1 if none.
        last_sequence: i32,
    },
    /// The epoch is older than the stored one (or, for a marker of transaction version 2, not newer).
    #[error("producer {producer_id}: epoch {epoch} is fenced by epoch {stored_epoch}")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The batch's epoch.
        epoch: i16,
        /// The epoch stored.
        stored_epoch: i16,
    },
    /// A transaction rule.
    #[error("producer {producer_id}: {}", match .conflict {
        TxnStateConflict::NotVerified => "the transaction was not verified for this log",
        TxnStateConflict::OpenTransaction => "a batch outside the open transaction",
    })]
    InvalidTxnState {
        /// The producer.
        producer_id: i64,
        /// Which rule.
        conflict: TxnStateConflict,
    },
    /// The marker comes from a coordinator that was replaced.
    #[error(
        "producer {producer_id}: marker of coordinator epoch {coordinator_epoch} is fenced by {stored_coordinator_epoch}"
    )]
    TransactionCoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// The marker's coordinator epoch.
        coordinator_epoch: i32,
        /// The one stored.
        stored_coordinator_epoch: i32,
    },
    /// The batch breaks a rule of form. The verdict never says so; it is here for those who look at the records.
    #[error("invalid record: {reason}")]
    InvalidRecord {
        /// Which rule.
        reason: &'static str,
    },
    /// A marker was appended without the version of its transaction.
    #[error("a marker without a transaction version")]
    UnknownTransactionVersion,
    /// A control record of a producer that is no end-of-transaction marker.
    #[error("a control record that is neither abort nor commit")]
    UnexpectedControlRecord,
}

impl Refusal {
    /// Kafka's protocol error name, as `OUT_OF_ORDER_SEQUENCE_NUMBER`.
    pub fn kafka_name(&self) -> &'static str {
        match self {
            Self::OutOfOrderSequence { .. } => "OUT_OF_ORDER_SEQUENCE_NUMBER",
            Self::InvalidProducerEpoch { .. } => "INVALID_PRODUCER_EPOCH",
            Self::InvalidTxnState { .. } => "INVALID_TXN_STATE",
            Self::TransactionCoordinatorFenced { .. } => "TRANSACTION_COORDINATOR_FENCED",
            Self::InvalidRecord { .. } => "INVALID_RECORD",
            Self::UnknownTransactionVersion | Self::UnexpectedControlRecord => "INVALID_REQUEST",
        }
    }

    /// The name of Kafka's exception without its ending, as `OutOfOrderSequence`.
    pub fn exception_name(&self) -> &'static str {
        match self {
            Self::OutOfOrderSequence { .. } => "OutOfOrderSequence",
            Self::InvalidProducerEpoch { .. } => "InvalidProducerEpoch",
            Self::InvalidTxnState { .. } => "InvalidTxnState",
            Self::TransactionCoordinatorFenced { .. } => "TransactionCoordinatorFenced",
            Self::InvalidRecord { .. } => "InvalidRecord",
            Self::UnknownTransactionVersion | Self::UnexpectedControlRecord => "IllegalArgument",
        }
    }
}

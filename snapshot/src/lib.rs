//! What each producer last did, and whether its next batch may be appended.
//!
//! Knows no segment, no file and no clock. The verdict is a pure function ([`admit()`]) of what is stored, what comes
//! in and the options; who calls it writes the bytes first and stores the new entry afterwards. So a refused, repeated
//! or failed append leaves no trace, and the same function serves appends, replication and recovery. Modules stand in
//! floor order, ground first.
#![forbid(unsafe_code)]

// Blank lines between the floors keep the formatter from sorting them by name.
pub mod producer;

pub mod refusal;

pub mod verification;

pub mod admit;

pub mod table;

pub mod open_txns;

pub mod pages;

pub mod codec;

pub use admit::{AdmitOptions, CompletedTxn, Incoming, Marker, Origin, Verdict, absorb, admit};
pub use codec::{Loaded, SnapshotMeta};
pub use open_txns::OpenTxns;
pub use producer::{BatchMeta, Forgotten, Known, NO_EPOCH, ProducerEntry, Standing, Update, WINDOW};
pub use refusal::{Refusal, TxnStateConflict};
pub use table::{Frozen, FrozenBlock, Hint, ProducerTable, SpillPlace, Spilled, Swept};
pub use verification::{Verification, Verifications};

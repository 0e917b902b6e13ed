//! Bugs that can be planted, to see that the simulator finds them.
//!
//! Every mechanism that keeps a promise names its bug here and asks [`planted`] at the one place where the bug would
//! be. Without the feature `planted`, which only the simulator's own tests switch on, the answer is a constant `false`
//! and the question costs nothing. The switch belongs to the thread: a story runs on one.

macro_rules! bugs {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Bug {
            $($(#[$doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &'static [Bug] = &[$(Bug::$name,)*];
        }
    };
}

bugs! {
    /// A durable append is answered when it is written.
    AnswerBeforeSync,
    /// The sync of one write is taken to cover the writes before it.
    SyncCoversOnlyItself,
    /// The segment that a roll closes is not synced.
    SealNotSynced,
    /// A sync that failed is tried again, and believed the second time.
    FailedSyncRepeated,
    /// The name of a new segment is not synced.
    SegmentNameNotSynced,
    /// What a write or sync that failed leaves is gone on with.
    LatchIgnored,
    /// A log goes on behind a truncation that failed half way.
    FailedTruncationTrusted,
    /// What was in memory before is written last, over what a group has added to its first block.
    OldMemoryWrittenLast,
    /// A file that becomes a segment again keeps what it held.
    RecycledNotZeroed,
    /// What stands behind the last batch of a write is not zeroed.
    TailNotZeroed,
    /// Readers see what is written and not yet durable.
    HighWatermarkBeforeDurable,
    /// A retry is answered before the write of the first batch has come to the disk.
    DuplicateOvertakes,
    /// A retry is not looked for.
    DuplicateStored,
    /// A batch behind a gap is taken.
    SequenceGapAccepted,
    /// A batch of an older epoch is taken.
    FencedEpochAccepted,
    /// A marker of a replaced coordinator is taken.
    FencedCoordinatorAccepted,
    /// A transaction begins without its guard.
    UnverifiedTransactionAccepted,
    /// An aborted transaction does not come into the index.
    AbortNotIndexed,
    /// Committed reads come without the list of aborted transactions.
    AbortedListLeftOut,
    /// An open transaction does not hold committed readers back.
    LastStableTooHigh,
    /// Reads do not check checksums.
    ReadChecksumSkipped,
    /// A checkpoint promises what is not synced.
    CheckpointPassesUnsynced,
    /// A recovery point passes a segment that grows without its aborted transactions.
    AbortsBehindRecoveryPoint,
    /// A new log start is not stored.
    LogStartNotPersisted,
    /// Segments go before the snapshot is on the disk that remembers their producers.
    RetentionBeforeSnapshot,
    /// A log start is stored behind the segments that it makes go.
    SegmentNamesGoUnsynced,
    /// A truncation leaves the leader-epoch file as it was.
    EpochFileNotRewritten,
    /// A truncation forgets the producers.
    TruncationForgetsProducers,
    /// A truncation leaves the recovery point above its target.
    TruncationKeepsRecoveryPoint,
    /// A truncation does not look whether all that it leaves can be read.
    TruncationOverlooksDamage,
    /// A truncation removes segments from the oldest on.
    TruncationFromTheFront,
    /// A truncation leaves the checkpoints of what it cuts.
    CheckpointOfWhatWasCut,
    /// A log that begins anew does not say so before its segments go.
    AnewWithoutStart,
    /// The mark of a clean shutdown is written before the logs are closed.
    CleanMarkTooEarly,
    /// Only the newest batch of each producer survives a restart.
    WindowOfOne,
    /// Retention by time takes what is young.
    RetentionOfTheYoung,
    /// A producer that is out of memory is taken for one that nobody knows.
    SpilledTakenForUnknown,
    /// Producers that are out of memory are left out of snapshots.
    SpilledLeftOut,
    /// What stood out of memory may be written over while a snapshot still reads it.
    SpilledPlaceReused,
    /// A truncation looks only at producers that are in memory.
    TruncationForgetsSpilled,
    /// Producers expire by the age of the snapshot, before what follows it is read.
    ExpiryBeforeReplay,
    /// What a client's timestamps say decides how old its batches are.
    ExpiryByClientTime,
    /// Transactions that a snapshot says are open are forgotten.
    OpenTransactionForgotten,
    /// What a decision on an atomic batch carries is not appended again.
    DecidedNotRedone,
    /// A decision is written before what it does not carry is durable in the logs.
    DecidedBeforePartsDurable,
    /// A truncation leaves what was decided of the log in force.
    CutNotDecided,
    /// Recovery does not check checksums.
    RecoveryChecksumSkipped,
    /// Recovery does not look whether offsets rise.
    OffsetOrderIgnored,
    /// A search for an offset believes the headers that it comes by.
    HeaderBelieved,
    /// What lies behind a gap is believed to.
    GapBelieved,
    /// A batch that an index entry points at is believed to be that of the entry.
    IndexedBatchBelieved,
    /// A look for a time ends at damage as at the end.
    TimeEndsAtDamage,
    /// Damage below what was promised is cut off.
    DamageCut,
    /// Offsets between two segments are not missed.
    GapOverlooked,
    /// A snapshot of records that are gone is kept.
    LaterSnapshotKept,
    /// What a dead process wrote is not synced before anything follows from it.
    RecoverySyncSkipped,
    /// Producers whose last segment goes while a log is opened are not written down.
    ProducersNotStoredAtRestart,
    /// A small file is renamed before its bytes are synced.
    SmallFileNotSynced,
    /// The directory is not synced behind the rename of a small file.
    SmallFileNameNotSynced,
}

#[cfg(feature = "planted")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in this thread instead of the one before.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Whether this bug is planted in this thread.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}

//! Teeth: each planted bug is found within the seeds that stand beside it.

use oncelog_device::planted::{Bug, plant};

use crate::{STEPS, run_seed};

/// The first seed that finds the bug, and what it says.
fn first_find(bug: Bug, seeds: u64) -> Option<(u64, String)> {
    plant(Some(bug));
    let tell = |seed| Some((seed, run_seed(seed, STEPS).violations.into_iter().next()?));
    let found = (0..seeds).find_map(tell);
    plant(None);
    found
}

macro_rules! teeth {
    ($($bug:ident: $seeds:literal,)*) => {
        const TEETH: &[Bug] = &[$(Bug::$bug,)*];

        /// One test for each bug, by its name.
        #[expect(non_snake_case, reason = "the names are those of the bugs")]
        mod finds {
            $(#[test]
            fn $bug() {
                let seeds = $seeds;
                let found = super::first_find(super::Bug::$bug, seeds);
                assert!(found.is_some(), "not found within {seeds} seeds");
            })*
        }
    };
}

// The bug, and within how many seeds it is found.
teeth! {
    AnswerBeforeSync: 100,
    SyncCoversOnlyItself: 100,
    SealNotSynced: 100,
    FailedSyncRepeated: 100,
    SegmentNameNotSynced: 100,
    LatchIgnored: 100,
    FailedTruncationTrusted: 1000,
    OldMemoryWrittenLast: 100,
    RecycledNotZeroed: 3000,
    TailNotZeroed: 100,
    HighWatermarkBeforeDurable: 100,
    DuplicateOvertakes: 2000,
    DuplicateStored: 100,
    SequenceGapAccepted: 100,
    FencedEpochAccepted: 100,
    FencedCoordinatorAccepted: 100,
    UnverifiedTransactionAccepted: 100,
    AbortNotIndexed: 100,
    AbortedListLeftOut: 100,
    LastStableTooHigh: 100,
    ReadChecksumSkipped: 1000,
    CheckpointPassesUnsynced: 1000,
    AbortsBehindRecoveryPoint: 4000,
    LogStartNotPersisted: 100,
    RetentionBeforeSnapshot: 2000,
    SegmentNamesGoUnsynced: 2000,
    EpochFileNotRewritten: 100,
    TruncationForgetsProducers: 100,
    TruncationKeepsRecoveryPoint: 1000,
    TruncationOverlooksDamage: 1000,
    TruncationFromTheFront: 3000,
    CheckpointOfWhatWasCut: 10000,
    AnewWithoutStart: 1000,
    CleanMarkTooEarly: 1000,
    WindowOfOne: 100,
    RetentionOfTheYoung: 100,
    SpilledTakenForUnknown: 100,
    SpilledLeftOut: 100,
    SpilledPlaceReused: 2000,
    TruncationForgetsSpilled: 100,
    ExpiryBeforeReplay: 3000,
    ExpiryByClientTime: 100,
    OpenTransactionForgotten: 100,
    DecidedNotRedone: 100,
    DecidedBeforePartsDurable: 300,
    CutNotDecided: 3000,
    RecoveryChecksumSkipped: 100,
    OffsetOrderIgnored: 10000,
    HeaderBelieved: 2000,
    GapBelieved: 100,
    IndexedBatchBelieved: 100,
    TimeEndsAtDamage: 100,
    DamageCut: 100,
    GapOverlooked: 1000,
    LaterSnapshotKept: 100,
    RecoverySyncSkipped: 1000,
    ProducersNotStoredAtRestart: 2000,
    SmallFileNotSynced: 100,
    SmallFileNameNotSynced: 100,
}

#[test]
fn every_bug_that_can_be_planted_is_looked_for() {
    assert_eq!(TEETH, Bug::ALL);
}

/// Prints the list above anew, for a new bug or after a change of what a seed means.
#[test]
#[ignore = "a tool: cargo test --release -p oncelog-sim -- --ignored --nocapture first_finds"]
fn first_finds() {
    std::panic::set_hook(Box::new(|_| {}));
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(&bug) = Bug::ALL.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    let (seed, reason) = first_find(bug, 10_000).unwrap_or((u64::MAX, "NOT FOUND".into()));
                    println!("    {bug:?}: {}, // {reason:.150}", seed.wrapping_add(1).next_multiple_of(10));
                }
            });
        }
    });
}

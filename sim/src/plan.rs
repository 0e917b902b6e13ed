//! What a seed says will happen, drawn before anything does.
//!
//! A step names its log, its deed and a number to draw details from; what the details come to depends on the log as it
//! then is. So any step can be left out and the others still make sense, which is what minimising a story needs.

use oncelog::{Ack, Config};
use oncelog_device::FaultOp;

use crate::random::Random;

/// Logs of one story.
pub(crate) const LOGS: usize = 2;
/// Clients of one log: the first ones idempotent, then transactional ones, the last one without a producer id.
pub(crate) const CLIENTS: usize = 6;
/// The first transactional client.
pub(crate) const TRANSACTIONAL: usize = 3;
/// The client without a producer id.
pub(crate) const NOBODY: usize = CLIENTS - 1;

/// A story before it is told.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) setup: Setup,
    pub(crate) steps: Vec<Step>,
    /// What the end is drawn from.
    pub(crate) chance: u64,
    /// How the story ends.
    pub(crate) finale: Finale,
}

/// Settings of the logs and of the disk.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) txn_version: i16,
    /// Whether each log moves its high watermark by itself.
    pub(crate) follows_end: [bool; LOGS],
    /// Whether client timestamps are anything but the time.
    pub(crate) odd_timestamps: bool,
    /// How far the ids of one pair of clients lie from those of the next. Where memory ends, near ones leave it
    /// together.
    pub(crate) pair_stride: i64,
}

/// What happens once.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) log: usize,
    pub(crate) chance: u64,
    pub(crate) deed: Deed,
}

/// What is wrong with something sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    StaleEpoch,
    Gap,
    /// Without the guard, or outside the open transaction.
    Transaction,
    FencedCoordinator,
}

/// How the engine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Close,
    Kill,
    PowerCut,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Send {
        client: usize,
        ack: Ack,
        wrong: Wrong,
    },
    Retry {
        client: usize,
        back: usize,
        ack: Ack,
    },
    Mark {
        client: usize,
        commit: bool,
        wrong: Wrong,
    },
    RaiseEpoch {
        client: usize,
    },
    Wait,
    Drive,
    Read,
    ReadCommitted,
    LookUpTime,
    Roll,
    Sync,
    Snapshot,
    DeleteRecords,
    Retain,
    Expire,
    Truncate,
    BeginAnew,
    MoveHighWatermark,
    RaiseLeaderEpoch,
    Advance {
        ms: u64,
    },
    /// The power goes after so many more steps of the disk.
    Arm {
        after: u64,
    },
    /// The disk refuses something.
    Fail {
        op: FaultOp,
        after: u64,
        times: u64,
    },
    /// The disk has no more room than this beyond what is used; or all that is wanted again.
    Room {
        blocks: Option<u64>,
    },
    End(End),
}

/// What happens to the disk while nobody looks, before the log is opened for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finale {
    /// Nothing.
    Well,
    /// A segment file is damaged.
    DamagedSegment,
    /// A segment file is damaged while its log is open.
    DamagedWhileOpen,
    /// A segment file is gone.
    MissingSegment,
    /// An index, snapshot, epoch or checkpoint file is damaged or gone.
    DamagedSideFile,
}

impl Plan {
    /// The story of this seed.
    pub(crate) fn new(seed: u64, steps: usize) -> Self {
        let mut random = Random::new(seed);
        let setup = Setup::draw(&mut random);
        let lies = random.percent(12);
        let mut steps: Vec<Step> = (0..steps).map(|_| Step::draw(&mut random)).collect();
        if lies {
            let op = random.pick(&[FaultOp::LostWrite, FaultOp::MisdirectedWrite]);
            let at = random.index(steps.len().max(1));
            if let Some(step) = steps.get_mut(at) {
                step.deed = Deed::Fail { op, after: random.below(4), times: 1 };
            }
        }
        let finale = match random.below(20) {
            0 | 1 => Finale::DamagedSegment,
            2 => Finale::MissingSegment,
            3 | 4 => Finale::DamagedSideFile,
            5 | 6 => Finale::DamagedWhileOpen,
            _ => Finale::Well,
        };
        Self { setup, steps, chance: random.next(), finale }
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Setup { config, txn_version, follows_end, odd_timestamps, pair_stride } = &self.setup;
        let Config { segment_bytes, segment_ms, index_interval_bytes, retention_bytes, .. } = config;
        write!(
            f,
            "segment_bytes {segment_bytes}, segment_ms {segment_ms}, index_interval_bytes {index_interval_bytes}, "
        )?;
        let Config { flush_messages, producer_id_expiration_ms, recovery_budget_ms, .. } = config;
        let verification = config.transaction_partition_verification_enable;
        write!(
            f,
            "retention_bytes {retention_bytes}, retention_ms {}, flush_messages {flush_messages}, ",
            config.retention_ms
        )?;
        write!(f, "recovery_budget_ms {recovery_budget_ms}, ")?;
        write!(f, "producer_id_expiration_ms {producer_id_expiration_ms}, verification {verification}, ")?;
        write!(f, "transaction version {txn_version}, high watermark follows {follows_end:?}, ")?;
        write!(f, "producer_memory_bytes {}, pairs {pair_stride} apart, ", config.producer_memory_bytes)?;
        write!(f, "odd timestamps {odd_timestamps}, ends {:?}", self.finale)
    }
}

impl Setup {
    fn draw(random: &mut Random) -> Self {
        // Drawn aside: what else a seed says stays as it was.
        let mut aside = Random::new(random.clone().next());
        let config = Config {
            segment_bytes: random.pick(&[6_000, 16_384, 50_000]),
            index_interval_bytes: random.pick(&[0, 1_000, 4_096]),
            retention_bytes: random.pick(&[20_000, 60_000]),
            segment_ms: random.pick(&[4_000, i64::MAX]),
            file_delete_delay_ms: 2_000,
            flush_messages: random.pick(&[i64::MAX, i64::MAX, 20]),
            producer_id_expiration_ms: random.pick(&[20_000, 86_400_000]),
            transaction_partition_verification_enable: random.percent(60),
            // With the smallest one there is a checkpoint whenever there is something new.
            recovery_budget_ms: random.clone().pick(&[200, 1]),
            retention_ms: aside.pick(&[604_800_000, 604_800_000, 3_000]),
            // With the smaller ones whoever is not in use goes out of memory at every chance.
            producer_memory_bytes: aside.pick(&[i64::MAX, i64::MAX, 1, 3_000]),
            ..Config::default()
        };
        Self {
            config,
            txn_version: random.pick(&[0, 0, 2]),
            follows_end: [true, random.percent(50)],
            odd_timestamps: random.percent(20),
            pair_stride: aside.pick(&[2, 2, 100, 1 << 33]),
        }
    }
}

impl Step {
    fn draw(random: &mut Random) -> Self {
        let log = random.index(LOGS);
        let chance = random.next();
        Self { log, chance, deed: Deed::draw(random) }
    }
}

impl Deed {
    fn draw(random: &mut Random) -> Self {
        match random.below(1000) {
            0..380 => Self::draw_send(random),
            380..480 => Self::Retry { client: random.index(NOBODY), back: random.index(7), ack: draw_ack(random) },
            480..560 => Self::draw_mark(random),
            560..570 => Self::RaiseEpoch { client: random.index(NOBODY) },
            570..620 => Self::Wait,
            620..670 => Self::Drive,
            670..700 => Self::Read,
            700..735 => Self::ReadCommitted,
            735..750 => Self::LookUpTime,
            750..770 => Self::Roll,
            770..790 => Self::Sync,
            790..810 => Self::Snapshot,
            810..828 => Self::DeleteRecords,
            828..845 => Self::Retain,
            845..855 => Self::Expire,
            855..873 => Self::Truncate,
            873..875 => Self::BeginAnew,
            875..890 => Self::MoveHighWatermark,
            890..900 => Self::RaiseLeaderEpoch,
            900..930 => Self::Advance { ms: random.pick(&[10, 700, 1_500, 9_000]) },
            930..955 => Self::Arm { after: random.below(60) },
            955..970 => Self::draw_fault(random),
            970..976 => Self::Room { blocks: Some(random.below(40)) },
            _ => Self::End(match random.below(10) {
                0 | 1 => End::Close,
                2..5 => End::Kill,
                _ => End::PowerCut,
            }),
        }
    }

    fn draw_send(random: &mut Random) -> Self {
        let wrong = match random.below(40) {
            0 => Wrong::StaleEpoch,
            1 => Wrong::Gap,
            2 => Wrong::Transaction,
            _ => Wrong::Nothing,
        };
        Self::Send { client: random.index(CLIENTS), ack: draw_ack(random), wrong }
    }

    fn draw_mark(random: &mut Random) -> Self {
        let wrong = match random.below(20) {
            0 => Wrong::StaleEpoch,
            1 => Wrong::FencedCoordinator,
            _ => Wrong::Nothing,
        };
        let client = TRANSACTIONAL + random.index(NOBODY - TRANSACTIONAL);
        Self::Mark { client, commit: random.percent(50), wrong }
    }

    fn draw_fault(random: &mut Random) -> Self {
        let op = random.pick(&[
            FaultOp::Write,
            FaultOp::Sync,
            FaultOp::Sync,
            FaultOp::Read,
            FaultOp::ShortRead,
            FaultOp::Space,
        ]);
        Self::Fail { op, after: random.below(12), times: 1 + random.below(2) }
    }
}

fn draw_ack(random: &mut Random) -> Ack {
    random.pick(&[Ack::Accepted, Ack::Written, Ack::Durable])
}

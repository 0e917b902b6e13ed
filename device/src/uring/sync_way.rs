//! How a durable write goes out: measured, not decided.
//!
//! The three ways promise the same. Which is fastest changes while the engine runs: with both cores busy the ring's
//! `RWF_DSYNC`, completed by a kernel worker, was seen to fall from 10,000 to 260 writes a second while the calling
//! thread's own stayed. So the latency of each is remembered per class of length, the best is used, and the others are
//! tried again now and then, the rarer the further behind they were: a trial is somebody's answer, so all of them
//! together stay well below the hundredth slowest. Of a change the log is told in one line.
//!
//! Only a write that is alone says how fast a way is. Beside others (threads with a log each) one that syncs apart from
//! its write answers sooner at the cost of the rest: with 64 threads it was taken for the best, and when all took it
//! they made a quarter fewer answers, the slowest after twice the time. Such writes go by the calling thread, which
//! needs no other.

use crate::lock::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SyncWay {
    /// `pwritev2(RWF_DSYNC)` on the calling thread.
    CallerDsync,
    /// A ring write with `RWF_DSYNC`; one of many chunks is split, kept deep in flight, and then synced as a whole.
    RingDsync,
    /// A plain write and `fdatasync`, both on the calling thread.
    WriteThenSync,
}

const WAYS: [SyncWay; 3] = [SyncWay::CallerDsync, SyncWay::RingDsync, SyncWay::WriteThenSync];

impl SyncWay {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CallerDsync => "pwritev2-dsync",
            Self::RingDsync => "ring-dsync",
            Self::WriteThenSync => "pwrite-fdatasync",
        }
    }
}

/// Upper ends of the classes of length, bytes; the last class takes the rest.
const CLASS_BYTES: [usize; 3] = [16 << 10, 64 << 10, 256 << 10];

/// So often each way is tried before one is preferred.
const WARM_UP: u32 = 6;

/// Writes between two trials of a way that is close to the best, and of one that is far behind.
const TRIAL_GAP_MIN: u64 = 512;
const TRIAL_GAP_MAX: u64 = 8192;

#[derive(Debug)]
pub(super) struct SyncWays {
    classes: [Mutex<Class>; CLASS_BYTES.len() + 1],
    changes: AtomicU64,
    /// Writes under way.
    busy: AtomicUsize,
}

#[derive(Debug, Default)]
struct Class {
    writes: u64,
    best: usize,
    measured: [Measured; WAYS.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    samples: u32,
    latency_ns: u64,
    next_trial: u64,
    trial_gap: u64,
}

impl SyncWays {
    pub(super) fn new() -> Self {
        Self {
            classes: std::array::from_fn(|_| Mutex::default()),
            changes: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
        }
    }

    /// Runs `write`, of `length` bytes, in the way that is best now or due for a trial, and learns from a success;
    /// beside others on the calling thread.
    pub(super) fn measure<T, E>(&self, length: usize, write: impl FnOnce(SyncWay) -> Result<T, E>) -> Result<T, E> {
        let alone = self.busy.fetch_add(1, Ordering::Relaxed) == 0;
        let written = if alone { self.learn(length, write) } else { write(SyncWay::CallerDsync) };
        self.busy.fetch_sub(1, Ordering::Relaxed);
        written
    }

    fn learn<T, E>(&self, length: usize, write: impl FnOnce(SyncWay) -> Result<T, E>) -> Result<T, E> {
        let class = CLASS_BYTES.iter().position(|&end| length <= end).unwrap_or(CLASS_BYTES.len());
        let way = self.classes[class].lock().choose();
        let started = Instant::now();
        let written = write(WAYS[way]);
        let still_alone = self.busy.load(Ordering::Relaxed) == 1;
        if written.is_ok() && still_alone {
            let latency_ns = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
            let changed = self.classes[class].lock().learn(way, latency_ns);
            if let Some((from, to)) = changed {
                self.changes.fetch_add(1, Ordering::Relaxed);
                let (from, to, up_to_bytes) = (from.name(), to.name(), CLASS_BYTES.get(class));
                tracing::info!(from, to, up_to_bytes, "durable writes go another way");
            }
        }
        written
    }

    /// How often the best way changed after it was first found.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The best way for the lengths that are written most.
    pub(super) fn best(&self) -> SyncWay {
        let busiest = self.classes.iter().map(|class| {
            let class = class.lock();
            (class.writes, class.best)
        });
        let (_, best) = busiest.max_by_key(|&(writes, _)| writes).unwrap_or((0, 0));
        WAYS[best]
    }
}

impl Class {
    fn choose(&mut self) -> usize {
        self.writes += 1;
        let fresh = (0..WAYS.len()).min_by_key(|&way| self.measured[way].samples).unwrap_or(0);
        if self.measured[fresh].samples < WARM_UP && self.writes <= u64::from(4 * WARM_UP) {
            return fresh;
        }
        let due = (0..WAYS.len()).find(|&way| way != self.best && self.writes >= self.measured[way].next_trial);
        if let Some(way) = due {
            let gap = self.measured[way].trial_gap.max(TRIAL_GAP_MIN);
            self.measured[way].next_trial = self.writes + gap;
            return way;
        }
        self.best
    }

    /// Takes in how long `way` took. Answers a change of the best way, other than those of the first trials.
    fn learn(&mut self, way: usize, latency_ns: u64) -> Option<(SyncWay, SyncWay)> {
        let measured = &mut self.measured[way];
        measured.latency_ns = match measured.samples {
            0 => latency_ns,
            // One stall of the disk must not decide: a sample counts for at most eight times what was known.
            _ => {
                (measured.latency_ns / 8 * 7).saturating_add(latency_ns.min(measured.latency_ns.saturating_mul(8)) / 8)
            }
        };
        measured.samples = measured.samples.saturating_add(1);
        let latency = |way: usize| match self.measured[way].samples {
            0 => u64::MAX,
            _ => self.measured[way].latency_ns,
        };
        let fastest = (0..WAYS.len()).min_by_key(|&way| latency(way)).unwrap_or(0);
        // A tenth better before changing, else noise would move it to and fro.
        let before = self.best;
        if latency(fastest) < latency(self.best) / 10 * 9 {
            self.best = fastest;
        }
        let far_behind = latency(way) / 2 > latency(self.best);
        let measured = &mut self.measured[way];
        measured.trial_gap = match far_behind {
            true => (measured.trial_gap * 2).clamp(TRIAL_GAP_MIN, TRIAL_GAP_MAX),
            false => TRIAL_GAP_MIN,
        };
        let settled = self.measured.iter().all(|measured| measured.samples >= WARM_UP);
        (settled && before != self.best).then_some((WAYS[before], WAYS[self.best]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes `count` times with the given latencies per way; answers how often each way was taken.
    fn drive(class: &mut Class, count: u32, latency_ns: [u64; 3]) -> [u32; 3] {
        let mut taken = [0; 3];
        for _ in 0..count {
            let way = class.choose();
            taken[way] += 1;
            class.learn(way, latency_ns[way]);
        }
        taken
    }

    #[test]
    fn the_fastest_way_is_found_and_left_when_it_turns_slow() {
        let mut class = Class::default();
        drive(&mut class, 100, [100_000, 60_000, 110_000]);
        assert_eq!(WAYS[class.best], SyncWay::RingDsync);
        drive(&mut class, 100, [100_000, 4_000_000, 110_000]);
        assert_eq!(WAYS[class.best], SyncWay::CallerDsync);
        drive(&mut class, 200_000, [100_000, 60_000, 110_000]);
        assert_eq!(WAYS[class.best], SyncWay::RingDsync);
    }

    #[test]
    fn what_is_not_alone_teaches_nothing() {
        let ways = SyncWays::new();
        let settle = || (0..100).for_each(|_| ways.measure(4096, |_| Ok::<_, ()>(())).expect("written"));
        let learnt = || ways.classes[0].lock().measured.map(|measured| measured.samples);
        settle();
        let before = learnt();
        assert!(before.iter().all(|&samples| samples >= WARM_UP), "{before:?}");
        let outer: Result<(), ()> = ways.measure(4096, |_| {
            settle();
            (0..100).for_each(|_| {
                assert_eq!(ways.measure(4096, Ok::<_, ()>), Ok(SyncWay::CallerDsync));
            });
            Err(())
        });
        assert_eq!((outer, learnt()), (Err(()), before));
    }

    #[test]
    fn a_way_far_behind_is_tried_rarely_and_one_stall_decides_nothing() {
        let mut class = Class::default();
        drive(&mut class, 100, [100_000, 4_000_000, 110_000]);
        let taken = drive(&mut class, 100_000, [100_000, 4_000_000, 110_000]);
        assert!(taken[1] < 40, "{taken:?}");
        assert!(taken[0] > 99_700, "{taken:?}");
        class.learn(0, 104_000);
        assert_eq!(WAYS[class.best], SyncWay::CallerDsync);
    }
}

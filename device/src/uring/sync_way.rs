//! How a durable write goes out: measured, not decided.
//!
//! The three ways promise the same. Which is fastest changes while the engine runs: with both cores busy the ring's
//! `RWF_DSYNC`, completed by a kernel worker, was seen to fall from 10,000 to 260 writes a second while the calling
//! thread's own stayed. So the way in use is compared with another one now and then, in turns, because two figures of
//! different moments say more about the moments: means over what each had shown last made it go to and fro several
//! times a second on a disk whose writes take now 90 and now 200 us, a fifth slower than any one way. A comparison
//! comes at the start, at long intervals, and when the way in use has become twice as slow as it was. The writes of the
//! other way are somebody's answers, so all of them together stay well below the hundredth slowest. Of a change the log
//! is told in one line.
//!
//! Only a write that is alone says how fast a way is. Beside others (threads with a log each) one that syncs apart from
//! its write answers sooner at the cost of the rest: with 64 threads it was taken for the best, and when all took it
//! they made a quarter fewer answers, the slowest after twice the time. Such writes go by the calling thread, which
//! needs no other, and so do those behind them: of 64 threads on two cores some write finds itself alone all the time.

use crate::lock::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
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

/// Writes of each way in a comparison, unless it is plain before.
const TURNS: u32 = 16;
const PLAIN_TURNS: u32 = 3;
/// A comparison that has not come to an end after so many writes, because few of them were alone, is given up.
const PATIENCE: u32 = 8 * TURNS;

/// Writes between two comparisons with the same way: from the least, which follows a change, twice as many each time
/// that it loses.
const GAP_MIN: u64 = 4096;
const GAP_MAX: u64 = 65_536;

/// After a write beside others so many in a row have to be alone before one counts as such.
const CROWD: u32 = 64;

/// After so many writes at the earliest the way in use may be found to have become slow.
const SETTLE: u64 = 64;

#[derive(Debug)]
pub(super) struct SyncWays {
    classes: [Mutex<Class>; CLASS_BYTES.len() + 1],
    changes: AtomicU64,
    /// Writes under way.
    busy: AtomicUsize,
    /// So many writes are still to come that are taken for one of many, though nobody is beside them.
    crowd: AtomicU32,
}

#[derive(Debug, Default)]
struct Class {
    writes: u64,
    best: usize,
    /// Moving mean of the way in use, and what it was in the last comparison.
    latency_ns: u64,
    usual_ns: u64,
    since_comparison: u64,
    /// So many writes lie between a comparison and the next alarm.
    settle: u64,
    others: [Other; WAYS.len()],
    comparison: Option<Comparison>,
}

/// When a way is compared with the one in use again.
#[derive(Clone, Copy, Debug, Default)]
struct Other {
    due: u64,
    gap: u64,
}

/// The way in use beside another one, in turns.
#[derive(Debug)]
struct Comparison {
    other: usize,
    asked: u32,
    used: Shown,
    shown: Shown,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shown {
    samples: u32,
    sum_ns: u64,
    least_ns: u64,
}

impl SyncWays {
    pub(super) fn new() -> Self {
        Self {
            classes: std::array::from_fn(|_| Mutex::default()),
            changes: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            crowd: AtomicU32::new(0),
        }
    }

    /// Runs `write`, of `length` bytes, in the way that is best now or due for a trial, and learns from a success;
    /// beside others on the calling thread.
    pub(super) fn measure<T, E>(&self, length: usize, write: impl FnOnce(SyncWay) -> Result<T, E>) -> Result<T, E> {
        let alone = self.busy.fetch_add(1, Ordering::Relaxed) == 0;
        let crowd = self.crowd.load(Ordering::Relaxed);
        let written = match (alone, crowd) {
            (true, 0) => self.learn(length, write),
            _ => {
                self.crowd.store(if alone { crowd - 1 } else { CROWD }, Ordering::Relaxed);
                write(SyncWay::CallerDsync)
            }
        };
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
        if self.comparison.is_none() {
            let due = (0..WAYS.len()).find(|&way| way != self.best && self.writes > self.others[way].due);
            self.comparison = due.map(Comparison::with);
        }
        let Some(comparison) = &mut self.comparison else { return self.best };
        comparison.asked += 1;
        match comparison.asked {
            // Others came in between all the time.
            PATIENCE.. => {
                let other = comparison.other;
                self.comparison = None;
                self.lost(other);
                self.best
            }
            asked if asked.is_multiple_of(2) => comparison.other,
            _ => self.best,
        }
    }

    /// Takes in how long `way` took. Answers a change of the way in use, other than those at the start.
    fn learn(&mut self, way: usize, latency_ns: u64) -> Option<(SyncWay, SyncWay)> {
        if way == self.best {
            self.notice(latency_ns);
        }
        let comparison = self.comparison.as_mut()?;
        if way == comparison.other {
            comparison.shown.add(latency_ns);
        } else if way == self.best {
            comparison.used.add(latency_ns);
        }
        let better = comparison.verdict(WAYS[self.best] == SyncWay::CallerDsync)?;
        let Comparison { other, used, shown, .. } = self.comparison.take()?;
        let (before, known) = (self.best, self.others.iter().enumerate().all(|(way, o)| way == self.best || o.gap > 0));
        let in_use = if better { shown } else { used };
        (self.usual_ns, self.latency_ns, self.since_comparison) = (in_use.mean_ns(), in_use.mean_ns(), 0);
        if better {
            self.best = other;
            self.others[before].gap = 0;
        }
        self.lost(if better { before } else { other });
        (known && better).then_some((WAYS[before], WAYS[self.best]))
    }

    fn lost(&mut self, way: usize) {
        let gap = (self.others[way].gap * 2).clamp(GAP_MIN, GAP_MAX);
        self.others[way] = Other { due: self.writes + gap, gap };
    }

    /// The way in use took so long: where it has become slow, the others are due.
    fn notice(&mut self, latency_ns: u64) {
        // A few stalls of the disk must not decide: a sample counts for at most eight times what was known.
        let counted_ns = latency_ns.min(self.latency_ns.saturating_mul(8).max(1));
        self.latency_ns = self.latency_ns / 32 * 31 + counted_ns / 32;
        self.since_comparison += 1;
        // A disk that is always changing raises the alarm less and less often.
        if self.since_comparison > GAP_MIN {
            self.settle = 0;
        }
        let settled = self.since_comparison >= self.settle.max(SETTLE);
        if self.comparison.is_none() && settled && self.latency_ns / 2 > self.usual_ns {
            (self.usual_ns, self.since_comparison) = (self.latency_ns, 0);
            self.settle = (2 * self.settle).max(SETTLE);
            self.others.iter_mut().for_each(|other| other.due = self.writes);
        }
    }
}

impl Comparison {
    fn with(other: usize) -> Self {
        Self { other, asked: 0, used: Shown::default(), shown: Shown::default() }
    }

    /// Whether the other way is to be used from now on; `None` while that is open. Noise must not decide, and the
    /// calling thread's way takes the least processor time: it is left for one that is a fifth faster, and taken again
    /// when it is no slower.
    fn verdict(&self, leaves_caller: bool) -> Option<bool> {
        let least = self.used.samples.min(self.shown.samples);
        let (used_ns, other_ns) = (self.used.mean_ns(), self.shown.mean_ns());
        let is_plain = least >= PLAIN_TURNS && used_ns.max(other_ns) / 4 > used_ns.min(other_ns);
        match least {
            TURNS.. if leaves_caller => Some(other_ns < used_ns / 5 * 4),
            TURNS.. if WAYS[self.other] == SyncWay::CallerDsync => Some(other_ns <= used_ns),
            TURNS.. => Some(other_ns < used_ns / 10 * 9),
            _ if is_plain => Some(other_ns < used_ns),
            _ => None,
        }
    }
}

impl Shown {
    /// A stall counts for at most four times the least.
    fn add(&mut self, latency_ns: u64) {
        self.least_ns = if self.samples == 0 { latency_ns } else { self.least_ns.min(latency_ns) };
        self.sum_ns = self.sum_ns.saturating_add(latency_ns.min(self.least_ns.saturating_mul(4)));
        self.samples += 1;
    }

    fn mean_ns(self) -> u64 {
        self.sum_ns / u64::from(self.samples.max(1))
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
        let asked = || ways.classes[0].lock().writes;
        settle();
        let before = asked();
        assert_eq!(before, 100);
        let outer: Result<(), ()> = ways.measure(4096, |_| {
            settle();
            (0..100).for_each(|_| {
                assert_eq!(ways.measure(4096, Ok::<_, ()>), Ok(SyncWay::CallerDsync));
            });
            Err(())
        });
        assert_eq!((outer, asked()), (Err(()), before + 1));
        // Who was beside others is taken to be still.
        let alone = |count: u32| (0..count).for_each(|_| ways.measure(4096, |_| Ok::<_, ()>(())).expect("written"));
        alone(CROWD);
        assert_eq!(asked(), before + 1);
        alone(1);
        assert_eq!(asked(), before + 2);
    }

    #[test]
    fn a_way_far_behind_is_tried_rarely_and_one_stall_decides_nothing() {
        let mut class = Class::default();
        drive(&mut class, 100, [100_000, 4_000_000, 110_000]);
        let taken = drive(&mut class, 100_000, [100_000, 4_000_000, 110_000]);
        assert!(taken[1] < 40, "{taken:?}");
        assert!(taken[0] > 99_700, "{taken:?}");
        class.learn(0, 400_000);
        assert!(class.comparison.is_none());
    }

    #[test]
    fn the_calling_thread_is_left_for_a_clear_gain_and_taken_again_when_there_is_none() {
        let mut class = Class::default();
        for (ring_ns, expected) in [
            (85_000, SyncWay::CallerDsync),
            (75_000, SyncWay::RingDsync),
            (95_000, SyncWay::RingDsync),
            (101_000, SyncWay::CallerDsync),
        ] {
            drive(&mut class, 200_000, [100_000, ring_ns, 120_000]);
            assert_eq!(WAYS[class.best], expected, "{ring_ns}");
        }
    }

    /// A disk that takes now this, now twice as long, whatever the way: no way is better.
    #[test]
    fn moods_of_the_disk_change_no_way() {
        let mut class = Class::default();
        let (mut changes, mut mood) = (0, 1_u64);
        for write in 0..1_000_000_u64 {
            let way = class.choose();
            mood = if write.is_multiple_of(300) { 1 + (write / 300).wrapping_mul(0x9e37_79b9) % 5 % 2 } else { mood };
            let spread = write.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
            changes += u32::from(class.learn(way, mood * (90_000 + spread)).is_some());
        }
        assert!(changes <= 2, "{changes} changes");
        assert_eq!(WAYS[class.best], SyncWay::CallerDsync);
    }

    /// Under load one write in six waits for a tick of the scheduler, whatever the way.
    #[test]
    fn a_restless_disk_is_not_compared_all_the_time() {
        let mut class = Class::default();
        drive(&mut class, 10_000, [100_000, 150_000, 150_000]);
        let mut trials = 0;
        for write in 0..200_000_u64 {
            let way = class.choose();
            trials += u32::from(way != class.best);
            let restless = write / 500 % 2 == 1 && write.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & 0xff < 43;
            class.learn(way, if restless { 4_000_000 } else { 100_000 });
        }
        assert!(trials < 200_000 / 25, "{trials} trials");
    }

    #[test]
    fn writes_beside_others_end_a_comparison_without_a_verdict() {
        let mut class = Class::default();
        let asked: Vec<usize> = (0..4 * PATIENCE).map(|_| class.choose()).collect();
        assert!(class.comparison.is_none());
        assert!(asked[2 * PATIENCE as usize..].iter().all(|&way| way == class.best));
    }
}

//! Producers in a closed loop: each sends the next batch when the last one was answered.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use crate::Failure;
use crate::batches::BatchSource;
use crate::cpu;
use crate::report::{Measured, Metric};
use crate::systems::{Answering, System};

/// A quarter of a run goes before the part that counts, where nothing else is asked for.
const WARM_SHARE: u32 = 4;

/// How much is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Size of a batch.
    pub(crate) size_bytes: usize,
    /// How long answers do not count yet.
    pub(crate) warm: Duration,
    /// How long they count after that, if the budget lasts.
    pub(crate) span: Duration,
    /// A run ends early when this much was sent: it is what was prepared.
    pub(crate) budget_bytes: u64,
}

impl Load {
    /// Answers count for `span`, after a quarter of that.
    pub(crate) fn new(size_bytes: usize, span: Duration, budget_bytes: u64) -> Self {
        Self { size_bytes, warm: span / WARM_SHARE, span, budget_bytes }
    }
}

/// An answer: when it came, counted from the start, and how long it took.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) at: Duration,
    pub(crate) wait: Duration,
}

/// What all clients together saw.
pub(crate) struct Answers {
    answers: Vec<Answer>,
    load: Load,
    /// When the first client found the budget used up.
    ended: Option<Duration>,
    cpu_ns: u64,
}

/// `writers` threads that each wait for every answer.
pub(crate) fn threads(system: &dyn System, load: Load, writers: usize) -> Result<Answers, Failure> {
    let run = Run::new(load, writers);
    let before = cpu::used_ns();
    let joined = thread::scope(|scope| {
        let run = &run;
        let one = |writer| scope.spawn(move || run.write(system, writer));
        let threads: Vec<_> = (0..writers).map(one).collect();
        let joined = threads.into_iter().map(|thread| thread.join().map_err(|_panic| "a writer panicked")?);
        joined.collect::<Result<Vec<_>, Failure>>()
    })?;
    Ok(run.done(joined.into_iter().flatten().collect(), cpu::used_ns() - before))
}

/// One thread that keeps `tickets` appends on the way.
pub(crate) fn tickets(system: &dyn System, load: Load, tickets: usize) -> Result<Answers, Failure> {
    let run = Run::new(load, 1);
    let before = cpu::used_ns();
    let mut source = BatchSource::new(0, load.size_bytes)?;
    let mut answers = Vec::with_capacity(1 << 16);
    let mut pending = VecDeque::with_capacity(tickets);
    let started = Instant::now();
    loop {
        while pending.len() < tickets && run.goes_on(started) {
            let sent = Instant::now();
            pending.push_back((sent, system.submit(0, source.next())?));
        }
        let Some((sent, ticket)) = pending.pop_front() else { break };
        ticket()?;
        answers.push(Answer { at: started.elapsed(), wait: sent.elapsed() });
    }
    Ok(run.done(answers, cpu::used_ns() - before))
}

/// One thread that keeps one append on the way in each of `logs` logs and sleeps until one of them is answered.
pub(crate) fn futures(system: &dyn System, load: Load, logs: usize) -> Result<Answers, Failure> {
    let run = Run::new(load, 1);
    let before = cpu::used_ns();
    let sources = (0..logs).map(|log| BatchSource::new(log as i64, load.size_bytes));
    let mut sources = sources.collect::<Result<Vec<_>, _>>()?;
    let mut pending: Vec<Option<(Instant, Answering<'_>)>> = (0..logs).map(|_| None).collect();
    let woken = Arc::new(Woken::default());
    let wakers: Vec<_> = (0..logs).map(|log| Waker::from(woken.of(log))).collect();
    let mut answers = Vec::with_capacity(1 << 16);
    let mut open = 0;
    let started = Instant::now();
    let mut turn: Vec<usize> = (0..logs).collect();
    loop {
        for log in turn.drain(..) {
            loop {
                if pending[log].is_none() && run.goes_on(started) {
                    pending[log] = Some((Instant::now(), system.submit_future(log, sources[log].next())?));
                    open += 1;
                }
                let Some((sent, answering)) = &mut pending[log] else { break };
                match answering.as_mut().poll(&mut Context::from_waker(&wakers[log])) {
                    Poll::Pending => break,
                    Poll::Ready(answer) => answer?,
                }
                answers.push(Answer { at: started.elapsed(), wait: sent.elapsed() });
                pending[log] = None;
                open -= 1;
            }
        }
        if open == 0 {
            return Ok(run.done(answers, cpu::used_ns() - before));
        }
        woken.wait(&mut turn);
    }
}

/// Which logs have an answer, for the thread that waits.
#[derive(Default)]
struct Woken {
    logs: Mutex<Vec<usize>>,
    bell: Condvar,
}

struct WakeOne {
    woken: Arc<Woken>,
    log: usize,
}

impl Woken {
    fn of(self: &Arc<Self>, log: usize) -> Arc<WakeOne> {
        Arc::new(WakeOne { woken: self.clone(), log })
    }

    fn wait(&self, turn: &mut Vec<usize>) {
        let mut logs = self.logs.lock();
        while logs.is_empty() {
            self.bell.wait(&mut logs);
        }
        turn.append(&mut logs);
    }
}

impl Wake for WakeOne {
    fn wake(self: Arc<Self>) {
        self.woken.logs.lock().push(self.log);
        self.woken.bell.notify_one();
    }
}

/// One thread over a raw ring: `drive` sends while it may and reports each answer itself.
pub(crate) fn driven(
    load: Load,
    drive: impl FnOnce(&dyn Fn() -> bool, &mut dyn FnMut(Instant)) -> Result<(), Failure>,
) -> Result<Answers, Failure> {
    let run = Run::new(load, 1);
    let before = cpu::used_ns();
    let mut answers = Vec::with_capacity(1 << 16);
    let started = Instant::now();
    drive(&|| run.goes_on(started), &mut |sent| {
        answers.push(Answer { at: started.elapsed(), wait: sent.elapsed() });
    })?;
    Ok(run.done(answers, cpu::used_ns() - before))
}

struct Run {
    load: Load,
    whole: Duration,
    left: AtomicU64,
    ended_ns: AtomicU64,
    barrier: Barrier,
}

impl Run {
    fn new(load: Load, threads: usize) -> Self {
        let whole = load.warm + load.span;
        let left = AtomicU64::new(load.budget_bytes / load.size_bytes as u64);
        Self { load, whole, left, ended_ns: AtomicU64::new(u64::MAX), barrier: Barrier::new(threads) }
    }

    fn write(&self, system: &dyn System, writer: usize) -> Result<Vec<Answer>, Failure> {
        let source = BatchSource::new(writer as i64, self.load.size_bytes);
        let mut answers = Vec::with_capacity(1 << 14);
        self.barrier.wait();
        let mut source = source?;
        let started = Instant::now();
        while self.goes_on(started) {
            let sent = Instant::now();
            system.append(writer, source.next())?;
            answers.push(Answer { at: started.elapsed(), wait: sent.elapsed() });
        }
        Ok(answers)
    }

    /// Takes one batch from the budget, unless it or the time is used up.
    fn goes_on(&self, started: Instant) -> bool {
        let now = started.elapsed();
        let took = |left: u64| left.checked_sub(1);
        if now < self.whole && self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, took).is_ok() {
            return true;
        }
        self.ended_ns.fetch_min(now.as_nanos() as u64, Ordering::Relaxed);
        false
    }

    fn done(&self, mut answers: Vec<Answer>, cpu_ns: u64) -> Answers {
        answers.sort_unstable_by_key(|answer| answer.at);
        let ended = Duration::from_nanos(self.ended_ns.load(Ordering::Relaxed));
        Answers { answers, load: self.load, ended: (ended < self.whole).then_some(ended), cpu_ns }
    }
}

impl Answers {
    /// Rate and latencies of the part that counts; processor time of the whole.
    pub(crate) fn measured(&self) -> Result<Measured, Failure> {
        let (from, to) = self.counted();
        let counted = self.answers.iter().filter(|answer| answer.at >= from && answer.at < to);
        let mut waits: Vec<Duration> = counted.map(|answer| answer.wait).collect();
        if waits.is_empty() || to <= from {
            return Err("nothing was answered within the time that counts".into());
        }
        waits.sort_unstable();
        Ok(vec![
            (Metric::AcksPerS, waits.len() as f64 / (to - from).as_secs_f64()),
            (Metric::P50Us, quantile_us(&waits, 0.5)),
            (Metric::P99Us, quantile_us(&waits, 0.99)),
            (Metric::P999Us, quantile_us(&waits, 0.999)),
            (Metric::CpuUsPerAck, self.cpu_ns as f64 / 1e3 / self.answers.len() as f64),
        ])
    }

    /// Without the warm-up: a share of the time, or of the answers where the budget ended the run.
    fn counted(&self) -> (Duration, Duration) {
        match self.ended {
            None => (self.load.warm, self.load.warm + self.load.span),
            Some(ended) => {
                let share = self.load.warm.as_secs_f64() / (self.load.warm + self.load.span).as_secs_f64();
                let first = self.answers.get((self.answers.len() as f64 * share) as usize);
                (first.map_or(Duration::ZERO, |answer| answer.at), ended)
            }
        }
    }
}

/// The wait that a `share` of all stay within. `waits` is sorted and not empty.
pub(crate) fn quantile_us(waits: &[Duration], share: f64) -> f64 {
    let rank = (waits.len() as f64 * share).ceil() as usize;
    waits[rank.clamp(1, waits.len()) - 1].as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ranks() {
        let waits: Vec<_> = (1..=1000).map(Duration::from_micros).collect();
        let of = |share| quantile_us(&waits, share).round();
        assert_eq!((of(0.5), of(0.99), of(0.999), of(1.0)), (500.0, 990.0, 999.0, 1000.0));
        assert_eq!(quantile_us(&waits[..1], 0.999).round(), 1.0);
    }

    #[test]
    fn the_warm_up_does_not_count() {
        let answer = |ms| Answer { at: Duration::from_millis(ms), wait: Duration::from_millis(1) };
        let answers: Vec<_> = (0..500).map(answer).collect();
        let load = Load::new(1, Duration::from_millis(400), 0);
        let of = |ended| Answers { answers: answers.clone(), load, ended, cpu_ns: 0 };
        // One answer a millisecond, whether time or budget ended it.
        for ended in [None, Some(Duration::from_millis(450))] {
            let (metric, rate) = of(ended).measured().unwrap()[0];
            assert_eq!((metric, rate.round()), (Metric::AcksPerS, 1000.0), "{ended:?}");
        }
    }
}

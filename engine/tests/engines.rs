//! Several logs and many threads behind one engine; one engine on one directory.

mod common;

use common::{Place, options, put, read_all, single, small_segments};
use oncelog::{Append, Engine, EngineOptions, Error, Outcome};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn a_second_engine_on_the_same_directory_is_refused() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&small_segments(4000));
    put(&log, &single(7, 0, 10));
    let error = place.try_engine().expect_err("locked");
    assert!(matches!(error, Error::AlreadyOpen(_)), "{error}");
    engine.close().expect("a clean close");
    assert_eq!(read_all(&place.open(&small_segments(4000)).1).len(), 1);
}

#[test]
fn a_ticket_can_be_awaited() {
    for driver in [true, false] {
        let place = Place::on_disk();
        let engine = Engine::open(&place.dir, EngineOptions { driver, ..EngineOptions::default() }).expect("opens");
        let log = engine.log("awaited-3", options(&small_segments(4000))).expect("the log opens");
        for sequence in 0..20 {
            let ticket = log.append(Append::client(&single(7, sequence, 100))).expect("ordered");
            let answer = block_on(ticket).expect("durable");
            assert_eq!(
                (answer.outcome, answer.base_offset),
                (Outcome::Appended, i64::from(sequence)),
                "driver {driver}"
            );
        }
        assert_eq!(log.high_watermark(), 20, "driver {driver}");
        engine.close().expect("a clean close");
    }
}

#[test]
fn logs_that_are_not_opened_keep_their_checkpoints() {
    let place = Place::on_disk();
    let config = small_segments(4000);
    let engine = place.engine();
    for (partition, records) in [(0, 30), (1, 50), (2, 1)] {
        let log = engine.log(&format!("several-{partition}"), options(&config)).expect("the log opens");
        for sequence in 0..records {
            put(&log, &single(7, sequence, 100));
        }
        log.delete_records(i64::from(partition.min(1))).expect("moved");
    }
    engine.close().expect("a clean close");
    let engine = place.engine();
    let log = engine.log("several-1", options(&config)).expect("the log opens");
    put(&log, &single(7, 50, 100));
    engine.close().expect("a clean close");
    for (file, wanted) in
        [("recovery-point-offset-checkpoint", [30, 51, 1]), ("replication-offset-checkpoint", [30, 51, 1])]
    {
        let text = std::fs::read_to_string(place.dir.join(file)).expect("a checkpoint file");
        for (partition, offset) in wanted.iter().enumerate() {
            assert!(text.lines().any(|line| line == format!("several {partition} {offset}")), "{file}: {text}");
        }
    }
    let engine = place.engine();
    for (partition, start, end) in [(0, 0, 30), (1, 1, 51), (2, 1, 1)] {
        let log = engine.log(&format!("several-{partition}"), options(&config)).expect("the log opens");
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (start, end), "partition {partition}");
    }
}

#[test]
fn eight_threads_lose_and_double_nothing() {
    const THREADS: i64 = 8;
    const APPENDS: i32 = 200;
    let place = Place::on_disk();
    let config = small_segments(100_000);
    let engine = Engine::open(&place.dir, EngineOptions::default()).expect("opens");
    let log = engine.log(common::NAME, options(&config)).expect("the log opens");
    std::thread::scope(|scope| {
        for producer in 0..THREADS {
            let log = log.clone();
            scope.spawn(move || {
                for sequence in 0..APPENDS {
                    let bytes = single(producer, sequence, 40);
                    if sequence % 3 == 0 {
                        // The answer is lost on its way; the retry overtakes nothing.
                        drop(log.append(Append::client(&bytes)).expect("ordered"));
                        assert_eq!(put(&log, &bytes).outcome, Outcome::Duplicate);
                    } else {
                        let first = put(&log, &bytes);
                        common::expect_duplicate(&log, &bytes, &first);
                    }
                }
            });
        }
    });
    let before = read_all(&log);
    engine.kill();
    let (_engine, log) = place.open(&config);
    let records = read_all(&log);
    assert_eq!(before, records);
    assert_eq!(records.len(), (THREADS * i64::from(APPENDS)) as usize);
    let different: BTreeSet<&String> = records.iter().map(|(_, text)| text).collect();
    assert_eq!(different.len(), records.len(), "nothing doubled");
    for producer in 0..THREADS {
        let prefix = format!("{producer}/");
        let of_one: Vec<i32> = records
            .iter()
            .filter_map(|(_, text)| text.strip_prefix(&prefix)?.split('/').next()?.parse().ok())
            .collect();
        assert_eq!(of_one, (0..APPENDS).collect::<Vec<_>>(), "producer {producer}");
    }
}

#[test]
fn what_an_engine_leaves_behind_neither_writes_nor_waits_for_ever() {
    for driver in [true, false] {
        let place = Place::on_disk();
        let open = || Engine::open(&place.dir, EngineOptions { driver, ..EngineOptions::default() }).expect("opens");
        let (engine, config) = (open(), small_segments(1 << 20));
        let log = engine.log("left-0", options(&config)).expect("the log opens");
        let mut tickets: Vec<_> =
            (0..64).map(|number| log.append(Append::client(&single(7, number, 4000))).expect("ordered")).collect();
        let waited_for = tickets.pop().expect("one");
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut tickets: Vec<_> = tickets.into_iter().map(Box::pin).collect();
        if driver {
            tickets.retain_mut(|ticket| ticket.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        let follower = std::thread::spawn(move || log.append_wait(Append::client(&single(8, 0, 4000))));
        engine.kill();
        let engine = open();
        let there = engine.log("left-0", options(&config)).expect("the log opens").log_end_offset();
        let (ended, ends) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let followed = follower.join().expect("no panic").map(|answer| answer.base_offset);
            let mut answers: Vec<_> = vec![followed, waited_for.wait().map(|answer| answer.base_offset)];
            answers.extend(tickets.into_iter().map(|ticket| block_on(ticket).map(|answer| answer.base_offset)));
            ended.send(answers).expect("the test waits");
        });
        for answer in ends.recv_timeout(std::time::Duration::from_secs(60)).expect("every wait ends") {
            let kept = matches!(answer, Ok(offset) if offset < there);
            assert!(kept || matches!(answer, Err(Error::Closed)), "driver {driver}: {answer:?}, {there} are there");
        }
        drop(engine);
        let engine = open();
        assert_eq!(engine.log("left-0", options(&config)).expect("the log opens").log_end_offset(), there);
    }
}

//! Followers see everything once, in order, are woken when there is more, and end with the log.
#![allow(missing_docs)]

mod common;

use common::{NAME, Place, batch, options, put, small_segments, txn_batch};
use oncelog::{Ack, Append, Engine, EngineOptions, Error, Follower, Isolation, Log, Read};
use oncelog_formats::Batches;
use oncelog_formats::control::end_txn_marker_batch;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicU32);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Polled {
    follower: Follower,
    bell: Arc<Bell>,
}

impl Polled {
    fn new(log: &Log, read: Read) -> Self {
        Self { follower: log.follow(read), bell: Arc::default() }
    }

    fn rings(&self) -> u32 {
        self.bell.0.load(Ordering::SeqCst)
    }

    /// Offsets of the batches that one poll gives; `None` while there is nothing.
    fn poll(&mut self) -> Option<Vec<i64>> {
        let waker = Waker::from(self.bell.clone());
        match self.follower.poll_fetch(&mut Context::from_waker(&waker)) {
            Poll::Ready(Some(Ok(fetched))) => {
                Some(Batches::new(&fetched.data).map(|view| view.expect("a batch").header().base_offset).collect())
            }
            Poll::Ready(Some(Err(error))) => panic!("{error}"),
            Poll::Ready(None) => panic!("ended"),
            Poll::Pending => None,
        }
    }
}

fn append(log: &Log, sequence: i32) {
    put(log, &batch(7, sequence, &[sequence.to_string()]));
}

#[test]
fn a_follower_is_woken_when_its_own_limit_moves_and_not_before() {
    let place = Place::on_disk();
    let engine = place.engine();
    let log = engine
        .log(NAME, oncelog::OpenOptions { high_watermark_follows_end: false, ..options(&small_segments(1 << 20)) });
    let log = log.expect("the log opens");
    let [mut plain, mut committed, mut replica] = [Isolation::Uncommitted, Isolation::Committed, Isolation::LogEnd]
        .map(|isolation| Polled::new(&log, Read { isolation, ..Read::from(0) }));
    assert_eq!((plain.poll(), committed.poll(), replica.poll()), (None, None, None));
    let rings = |one: &Polled, two: &Polled, three: &Polled| (one.rings(), two.rings(), three.rings());

    put(&log, &txn_batch(9, 0, &["t".into()]));
    assert_eq!(rings(&plain, &committed, &replica), (0, 0, 1), "only the log end has moved");
    assert_eq!(replica.poll(), Some(vec![0]));
    log.set_high_watermark(1).expect("open");
    assert_eq!(rings(&plain, &committed, &replica), (1, 0, 1), "the transaction is open");
    assert_eq!((plain.poll(), committed.poll()), (Some(vec![0]), None));
    let marker = end_txn_marker_batch(0, 0, 9, 0, true, 0, common::NOW_MS);
    log.append_wait(Append::coordinator(&marker)).expect("committed");
    assert_eq!((plain.poll(), committed.rings()), (None, 0));
    log.set_high_watermark(2).expect("open");
    assert_eq!(rings(&plain, &committed, &replica), (2, 1, 1));
    assert_eq!(committed.poll(), Some(vec![0, 1]));
    // Who does not wait is not woken.
    log.set_high_watermark(0).expect("open");
    log.set_high_watermark(2).expect("open");
    assert_eq!(rings(&plain, &committed, &replica), (2, 1, 1));
    assert_eq!((plain.poll(), replica.poll()), (Some(vec![1]), Some(vec![1])));
}

#[test]
fn threads_that_follow_see_everything_once_and_end_with_the_log() {
    const BATCHES: i32 = 400;
    let place = Place::on_disk();
    let engine = Engine::open(&place.dir, EngineOptions::default()).expect("opens");
    let log = engine.log(NAME, options(&small_segments(4_000))).expect("opens");
    let follow = |max_bytes| {
        let mut follower = log.follow(Read { max_bytes, ..Read::from(0) });
        std::thread::spawn(move || {
            let mut seen = Vec::new();
            while (seen.len() as i32) < BATCHES {
                let fetched = follower.next().expect("the log is open").expect("the log is sound");
                seen.extend(Batches::new(&fetched.data).map(|view| view.expect("a batch").header().base_offset));
            }
            (seen, follower.next().is_none())
        })
    };
    let readers: Vec<_> = [1, 300, 1 << 20].into_iter().map(follow).collect();
    for sequence in 0..BATCHES {
        let ack = if sequence % 5 == 4 { Ack::Durable } else { Ack::Accepted };
        log.append_wait(Append::client(&batch(7, sequence, &["x".repeat(50)])).ack(ack)).expect("appended");
    }
    log.sync().expect("synced");
    // They have read everything when the last one waits behind it; closing then ends them all.
    while readers.iter().any(|reader| !reader.is_finished()) {
        if log.waiting_followers() == readers.len() {
            log.kill();
        }
        std::thread::yield_now();
    }
    for reader in readers {
        let (seen, ended) = reader.join().expect("no panic");
        assert_eq!(seen, (0..i64::from(BATCHES)).collect::<Vec<_>>());
        assert!(ended);
    }
}

#[test]
fn a_truncation_and_retention_are_told() {
    let place = Place::on_disk();
    let (_engine, log) = place.open(&small_segments(200));
    for sequence in 0..10 {
        append(&log, sequence);
    }
    let mut polled = Polled::new(&log, Read::from(10));
    assert_eq!(polled.poll(), None);
    log.truncate_to(4).expect("cut");
    assert_eq!(polled.rings(), 1, "its offset is no more");
    let error = polled.follower.next().expect("an answer").expect_err("outside the log");
    assert!(matches!(error, Error::OffsetOutOfRange { offset: 10, .. }), "{error}");
    assert!(polled.follower.next().is_none(), "no endless errors");
    polled.follower.seek(3);
    assert_eq!(polled.poll(), Some(vec![3]));
    assert_eq!(polled.poll(), None);
    log.delete_records(4).expect("deleted");
    assert_eq!((polled.rings(), polled.poll()), (2, None), "looked, and still nothing");
    drop(polled);
    assert_eq!(log.waiting_followers(), 0);
}

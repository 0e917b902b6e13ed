//! A large history: several threads that share group commits, with batches under way, and one that rolls and snapshots.

use super::chance::{Chance, mix};
use super::run::{Mark, Recorder, Run, batch};
use oncelog::{Ack, Config, Log};
use std::collections::VecDeque;

const THREADS: i64 = 4;
const BATCHES: u64 = 16;

/// Records a history; what the threads do follows from the seed, in which order they come to it does not.
pub fn record(seed: u64) -> Run {
    let mut chance = Chance(seed);
    let config = Config {
        segment_bytes: 6_000 + chance.below(30_000),
        index_interval_bytes: 1_024,
        transaction_partition_verification_enable: false,
        ..Config::default()
    };
    let recorder = Recorder::new(seed, config);
    let (engine, log) = recorder.open();
    std::thread::scope(|scope| {
        for id in 0..THREADS {
            let (recorder, log) = (&recorder, &log);
            scope.spawn(move || produce(recorder, log, id, Chance(mix(seed) ^ id.cast_unsigned())));
        }
        upkeep(&recorder, &log, &mut chance);
    });
    engine.kill();
    recorder.finish()
}

fn produce(recorder: &Recorder, log: &Log, id: i64, mut chance: Chance) {
    let mut under_way = VecDeque::new();
    let mut next = 0;
    for _ in 0..BATCHES {
        let records = 1 + chance.below(3) as i32;
        let ack = [Ack::Durable, Ack::Durable, Ack::Written, Ack::Accepted][chance.below(4) as usize];
        let bytes = batch(id, next, records, chance.below(1_500) as usize);
        next += records;
        under_way.push_back((recorder.append(log, id, bytes, ack), ack));
        while under_way.len() as u64 > chance.below(5) {
            let (sent, ack) = under_way.pop_front().expect("one is under way");
            recorder.wait(sent, ack);
        }
    }
    under_way.into_iter().for_each(|(sent, ack)| recorder.wait(sent, ack));
}

fn upkeep(recorder: &Recorder, log: &Log, chance: &mut Chance) {
    for _ in 0..6 {
        match chance.below(5) {
            0 => drop(log.roll().expect("rolled")),
            1 => drop(log.snapshot().expect("a snapshot")),
            2 => {
                let end = log.sync().expect("synced");
                recorder.mark(Mark::Shown, end.cast_unsigned());
            }
            3 => log.drive().expect("driven"),
            _ => recorder.look(log),
        }
    }
}

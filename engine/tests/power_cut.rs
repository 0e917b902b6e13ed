//! The power goes at any operation: what was answered durable is there in order, nothing is doubled, retries are known.

mod common;

use common::{NAME, Place, options, read_all, small_segments, value};
use oncelog::{Ack, Append, Config, Engine, EngineOptions, Log, Outcome};
use oncelog_device::MemoryDevice;
use std::collections::BTreeSet;
use std::sync::Arc;

const SEEDS: u64 = 200;
const PRODUCERS: usize = 3;

/// A small generator of chance, the same for each seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// What one producer has sent and knows.
#[derive(Default)]
struct Producer {
    /// Next sequence to send.
    next: i32,
    /// Everything below was answered durable (or is below an answer that was).
    durable: i32,
    /// The batches sent last: first sequence, bytes, offset where an answer named it.
    sent: Vec<(i32, Vec<u8>, Option<i64>)>,
}

struct Story {
    seed: u64,
    chance: Chance,
    device: MemoryDevice,
    place: Place,
    config: Config,
    producers: Vec<Producer>,
    /// Everything below this offset was answered durable.
    durable_end: i64,
}

impl Story {
    fn new(seed: u64) -> Self {
        let device = MemoryDevice::new();
        let place = Place::in_memory(&device);
        let mut chance = Chance(seed);
        // Half of the stories write checkpoints whenever they are driven.
        let recovery_budget_ms = if chance.below(2) == 0 { 1 } else { 200 };
        let config = Config { recovery_budget_ms, ..small_segments(1500 + chance.below(6000)) };
        let producers = (0..PRODUCERS).map(|_| Producer::default()).collect();
        Self { seed, chance, device, place, config, producers, durable_end: 0 }
    }

    fn open(&self) -> Option<(Engine, Log)> {
        let options_of_engine = EngineOptions {
            device: Some(Arc::new(self.device.clone())),
            clock: Some(self.place.clock.clone()),
            driver: false,
            ..EngineOptions::default()
        };
        let engine = Engine::open(&self.place.dir, options_of_engine).ok()?;
        let log = engine.log(NAME, options(&self.config)).ok()?;
        Some((engine, log))
    }

    /// Appends until the power is gone.
    fn live(&mut self) {
        let operations = self.chance.below(400);
        self.device.crash_after(operations);
        let Some((engine, log)) = self.open() else { return };
        for _ in 0..400 {
            let alive = match self.chance.below(20) {
                0 => log.roll().is_ok(),
                1 => log.sync().is_ok(),
                2 => log.drive().is_ok(),
                3 => log.snapshot().is_ok(),
                _ => self.append(&log),
            };
            if !alive {
                break;
            }
        }
        engine.kill();
    }

    fn append(&mut self, log: &Log) -> bool {
        let id = self.chance.below(PRODUCERS as u64) as usize;
        let records = 1 + self.chance.below(3) as i32;
        let ack = [Ack::Durable, Ack::Written, Ack::Accepted][self.chance.below(3) as usize];
        let first = self.producers[id].next;
        let bytes_of = self.chance.below(300) as usize;
        let values: Vec<String> = (0..records).map(|i| value(id as i64, first + i, bytes_of)).collect();
        let bytes = common::batch(id as i64, first, &values);
        let Ok(ticket) = log.append(Append::client(&bytes).ack(ack)) else { return false };
        let offset = ticket.expected().base_offset;
        let producer = &mut self.producers[id];
        producer.next += records;
        producer.sent.push((first, bytes, Some(offset)));
        let Ok(answer) = ticket.wait() else { return false };
        assert_eq!(answer.base_offset, offset, "seed {}", self.seed);
        if ack == Ack::Durable {
            self.durable_end = self.durable_end.max(answer.last_offset + 1);
        }
        true
    }

    /// The power is back: holds what is there against what was promised, and retries what is missing.
    fn recover(&mut self) {
        let seed = self.seed;
        self.device.power_cut(seed);
        let (engine, log) = self.open().unwrap_or_else(|| panic!("seed {seed}: does not open"));
        assert!(log.report().damage.is_empty(), "seed {seed}: {:?}", log.report().damage);
        let end = log.log_end_offset();
        assert!(end >= self.durable_end, "seed {seed}: ends at {end}, durable was {}", self.durable_end);
        self.check_records(&log);
        for id in 0..PRODUCERS {
            self.retry(&log, id, end);
        }
        self.check_records(&log);
        for producer in &mut self.producers {
            producer.durable = producer.next;
        }
        self.durable_end = log.log_end_offset();
        engine.kill();
    }

    /// Contiguous offsets; of each producer every sequence once, in order, none left out.
    fn check_records(&self, log: &Log) {
        let seed = self.seed;
        let records = read_all(log);
        let offsets: Vec<i64> = records.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(offsets, (0..log.log_end_offset()).collect::<Vec<_>>(), "seed {seed}");
        for (id, producer) in self.producers.iter().enumerate() {
            let prefix = format!("{id}/");
            let stored: Vec<i32> = records
                .iter()
                .filter_map(|(_, text)| text.strip_prefix(&prefix)?.split('/').next()?.parse().ok())
                .collect();
            assert_eq!(stored, (0..stored.len() as i32).collect::<Vec<_>>(), "seed {seed}, producer {id}");
            assert!(stored.len() as i32 >= producer.durable, "seed {seed}, producer {id}");
        }
    }

    /// Sends the last batches again as a client does: what survived is a duplicate at its offset, the rest is stored.
    fn retry(&mut self, log: &Log, id: usize, end: i64) {
        let seed = self.seed;
        let producer = &mut self.producers[id];
        let survived: BTreeSet<i64> =
            producer.sent.iter().filter_map(|(.., offset)| offset.filter(|o| *o < end)).collect();
        let lost = producer.sent.len() - survived.len();
        let known = survived.len().min(5);
        let skip = producer.sent.len() - lost - known;
        for (first, bytes, offset) in producer.sent.iter_mut().skip(skip) {
            let answer = log
                .append_wait(Append::client(bytes))
                .unwrap_or_else(|e| panic!("seed {seed}, producer {id}, sequence {first}: {e}"));
            if offset.is_some_and(|offset| survived.contains(&offset)) {
                assert_eq!(
                    (answer.outcome, Some(answer.base_offset)),
                    (Outcome::Duplicate, *offset),
                    "seed {seed}, producer {id}"
                );
            } else {
                assert_eq!(answer.outcome, Outcome::Appended, "seed {seed}, producer {id}, sequence {first}");
                *offset = Some(answer.base_offset);
            }
        }
    }
}

#[test]
fn nothing_durable_is_lost_and_nothing_doubled() {
    for seed in 0..SEEDS {
        let mut story = Story::new(seed);
        for _ in 0..4 {
            story.live();
            story.recover();
        }
    }
}

#[test]
fn the_power_may_go_again_during_recovery() {
    for seed in 0..SEEDS {
        let mut story = Story::new(seed ^ 0x5eed);
        story.live();
        for _ in 0..3 {
            story.device.power_cut(seed);
            let operations = story.chance.below(60);
            story.device.crash_after(operations);
            if let Some((engine, _)) = story.open() {
                engine.kill();
            }
        }
        story.recover();
    }
}

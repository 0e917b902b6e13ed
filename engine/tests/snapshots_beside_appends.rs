//! A snapshot taken while several append, and while producers go out of memory and come back, says exactly what the log
//! says up to its offset.
#![allow(missing_docs)]

mod common;

use common::{NAME, NOW_MS, Place, segment_files, single, small_segments};
use oncelog::{Ack, Append, Config, Log, Outcome, ProducerEntry};
use oncelog_formats::Batches;
use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{ProducerTable, codec};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const APPENDERS: i64 = 3;
const PRODUCERS_EACH: i64 = 800;
const ROUNDS: i32 = 6;

/// Batches and retries of the producers of one thread, each round in another order.
fn append(log: &Log, appender: i64) {
    for sequence in 0..ROUNDS {
        let stride = [617, 1, 331, 77, 799, 13][sequence as usize];
        for turn in 0..PRODUCERS_EACH {
            let producer = appender * PRODUCERS_EACH + turn * stride % PRODUCERS_EACH;
            for (sequence, outcome) in [(sequence, Outcome::Appended), ((sequence - 4).max(0), Outcome::Duplicate)] {
                let batch = single(producer, sequence, 10);
                let answer = log.append_wait(Append::client(&batch).ack(Ack::Accepted)).expect("an answer");
                assert_eq!(answer.outcome, outcome, "{producer}/{sequence}");
            }
        }
    }
}

/// Copies of all snapshots that there are, by offset.
fn collect(dir: &Path, found: &mut BTreeMap<i64, Vec<u8>>) {
    for entry in std::fs::read_dir(dir.join(NAME)).expect("the log's directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "snapshot") {
            continue;
        }
        let offset = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).expect("an offset");
        // Another one may take its place meanwhile.
        if let Ok(bytes) = std::fs::read(&path) {
            found.insert(offset, bytes);
        }
    }
}

/// What the batches below `end` come to.
fn replay(batches: &[(i64, i32, i64, i64)], end: i64) -> BTreeMap<i64, ProducerEntry> {
    let mut producers: BTreeMap<i64, ProducerEntry> = BTreeMap::new();
    for &(producer, sequence, offset, timestamp) in batches.iter().filter(|(_, _, offset, _)| *offset < end) {
        let entry = producers.entry(producer).or_default();
        (entry.epoch, entry.last_timestamp, entry.last_append_ms) = (0, timestamp, NOW_MS);
        entry.push_batch(batch_meta(sequence, offset, offset, timestamp));
    }
    producers
}

#[test]
fn each_is_the_state_at_its_offset() {
    let place = Place::on_disk();
    let config = Config { producer_memory_bytes: 60_000, recovery_budget_ms: 1, ..small_segments(200_000) };
    let (engine, log) = place.open(&config);
    let (mut found, over) = (BTreeMap::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let appenders: Vec<_> = (0..APPENDERS)
            .map(|n| {
                scope.spawn({
                    let log = &log;
                    move || append(log, n)
                })
            })
            .collect();
        let driver = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                log.drive().expect("a step");
            }
        });
        while !appenders.iter().all(|appender| appender.is_finished()) {
            log.snapshot().expect("a snapshot");
            collect(&place.dir, &mut found);
        }
        over.store(true, Ordering::Relaxed);
        driver.join().expect("the driver");
        appenders.into_iter().for_each(|appender| appender.join().expect("an appender"));
    });
    assert!(log.producer_usage().returned_blocks > 20);
    engine.close().expect("a clean close");
    collect(&place.dir, &mut found);
    let mut batches = Vec::new();
    for file in segment_files(&place.dir) {
        for batch in Batches::new(&std::fs::read(file).expect("a segment")) {
            let header = *batch.expect("a whole batch").header();
            batches.push((header.producer_id, header.base_sequence, header.base_offset, header.max_timestamp));
        }
    }
    assert_eq!(batches.len() as i64, APPENDERS * PRODUCERS_EACH * i64::from(ROUNDS), "nothing lost, nothing twice");
    assert!(found.len() > 10, "{} snapshots", found.len());
    for (offset, bytes) in found {
        let loaded = codec::decode(&bytes).expect("a snapshot");
        assert_eq!(loaded.meta.as_ref().map(|meta| meta.log_end_offset), Some(offset));
        let wanted = replay(&batches, offset);
        assert!(loaded.table.iter().eq(wanted.iter().map(|(id, entry)| (*id, *entry))), "at {offset}");
        let mut table = ProducerTable::new();
        for (id, entry) in &wanted {
            table.put(*id, *entry);
        }
        assert_eq!(loaded.table.digest(), table.digest(), "at {offset}");
    }
}

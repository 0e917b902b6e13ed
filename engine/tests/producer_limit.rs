//! A log that knows as many producers as it may: those go on, a new one waits, and who made them is told.

mod common;

use common::{NOW_MS, Place, expect_duplicate, put, single, small_segments, txn_batch};
use oncelog::{Append, Config, Creator, Error};
use oncelog_formats::control::end_txn_marker_batch;

const LIMIT: i64 = 100;

fn config() -> Config {
    Config { max_producers: LIMIT, producer_id_expiration_ms: 60_000, ..small_segments(1 << 20) }
}

fn creator(client_id: &str, created: u64) -> Creator {
    Creator { client_id: client_id.into(), at_least: created, at_most: created }
}

#[test]
fn a_full_log_refuses_who_is_new_until_there_is_room() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&config());
    let first: Vec<_> = (0..LIMIT).map(|producer| put(&log, &single(producer, 0, 10))).collect();
    let new = single(LIMIT, 0, 10);
    for _ in 0..2 {
        let refused = log.append(Append::client(&new)).expect_err("the log is full");
        assert!(matches!(refused, Error::TooManyProducers { producer_id: LIMIT, limit: LIMIT }), "{refused}");
        assert!(refused.is_retriable());
        assert_eq!(refused.kafka_name(), "THROTTLING_QUOTA_EXCEEDED");
    }
    assert!(engine.metrics_text().contains("error=\"THROTTLING_QUOTA_EXCEEDED\"} 2"));
    // No side effect, nobody forgotten.
    assert_eq!(log.log_end_offset(), LIMIT);
    for (producer, first) in (0..LIMIT).zip(&first) {
        expect_duplicate(&log, &single(producer, 0, 10), first);
        put(&log, &single(producer, 1, 10));
    }
    let stale = log.append(Append::client(&txn_batch(5, 7, &["gap".into()]))).expect_err("a gap");
    assert_eq!(stale.kafka_name(), "OUT_OF_ORDER_SEQUENCE_NUMBER", "known producers hear their own errors");
    // It holds behind a restart too.
    engine.close().expect("a clean close");
    let (_engine, log) = place.open(&config());
    log.append(Append::client(&new)).expect_err("still full");
    // What others decided is taken.
    let marker = end_txn_marker_batch(0, 0, LIMIT + 1, 0, true, 0, NOW_MS);
    log.append_wait(Append::coordinator(&marker)).expect("a marker");
    log.append_wait(Append { origin: oncelog::Origin::Coordinator, ..Append::client(&single(LIMIT + 2, 0, 10)) })
        .expect("a coordinator's batch");
    assert_eq!(log.producer_usage().producers, LIMIT as usize + 2);
    log.append(Append::client(&new)).expect_err("more than full");
    // Raised, it takes more; the silent leave in their time, and make room.
    log.configure(Config { max_producers: LIMIT + 3, ..config() }).expect("settings");
    put(&log, &new);
    log.append(Append::client(&single(LIMIT + 3, 0, 10))).expect_err("full again");
    place.clock.advance(60_000);
    assert_eq!(log.expire_producers().expect("an expiry").len(), LIMIT as usize + 3);
    put(&log, &single(LIMIT + 3, 0, 10));
}

#[test]
fn who_made_the_producers_is_told() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&config());
    for producer in 0..60 {
        let name = if producer % 6 == 0 { "seldom \"quoted\"" } else { "often" };
        for sequence in 0..2 {
            let batch = single(producer, sequence, 10);
            log.append_wait(Append::client(&batch).client_id(name)).expect("stored");
        }
    }
    put(&log, &single(60, 0, 10));
    let usage = log.producer_usage();
    assert_eq!((usage.producers, usage.created, usage.spilled_bytes), (61, 61, 0));
    assert!(usage.memory_bytes > 61 * 40);
    let seldom = "seldom \"quoted\"";
    assert_eq!(usage.creators, [creator("often", 50), creator(seldom, 10), creator("", 1)]);
    let text = engine.metrics_text();
    for wanted in [
        "oncelog_producers_created_total{topic=\"story\",partition=\"0\"} 61",
        "oncelog_producers_created_lately{topic=\"story\",partition=\"0\",client=\"often\"} 50",
        "oncelog_producers_created_lately{topic=\"story\",partition=\"0\",client=\"seldom \\\"quoted\\\"\"} 10",
    ] {
        assert!(text.contains(wanted), "{wanted}:\n{text}");
    }
    place.clock.advance(3_600_000);
    log.append_wait(Append::client(&single(61, 0, 10)).client_id("later")).expect("stored");
    let told = log.producer_usage().creators;
    assert_eq!(told, [creator("often", 50), creator(seldom, 10), creator("", 1), creator("later", 1)]);
    place.clock.advance(3_600_000);
    assert_eq!(log.producer_usage().creators, [creator("later", 1)], "two windows back");
}

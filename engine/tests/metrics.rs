//! What the metrics page promises is there, and moves when it should.
#![allow(missing_docs)]

mod common;

use common::{Place, batch, put, single, small_segments, txn_batch};
use oncelog::{Ack, Append, Isolation, Read};
use std::collections::BTreeMap;

/// Name and kind of each metric in the table of the page.
fn promised() -> BTreeMap<String, String> {
    let rows = include_str!("../../docs/metrics.md").lines().filter_map(|line| line.strip_prefix("| `"));
    let fields = rows.map(|row| {
        let mut fields = row.split('|').map(str::trim);
        (fields.next().expect("a name").trim_end_matches('`').to_string(), fields.next().expect("a kind").to_string())
    });
    fields.collect()
}

/// Samples by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').expect("a name and a value"));
    pairs.map(|(name, value)| (name.to_string(), value.parse().expect("a number"))).collect()
}

#[test]
fn names_and_kinds_are_those_of_the_page() {
    let place = Place::on_disk();
    let (engine, _log) = place.open(&small_segments(1 << 20));
    let text = engine.metrics_text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let told: BTreeMap<String, String> =
        types.map(|line| line.split_once(' ').map(|(name, kind)| (name.into(), kind.into())).expect("both")).collect();
    assert_eq!(told, promised());
    for name in samples(&text).keys() {
        let family = name.split('{').next().expect("a name");
        let family = ["_bucket", "_sum", "_count"].iter().fold(family, |name, end| match name.strip_suffix(end) {
            Some(family) if told.get(family).is_some_and(|kind| kind == "histogram") => family,
            _ => name,
        });
        assert!(told.contains_key(family), "{name} belongs to no family");
    }
}

#[test]
fn values_move_with_what_is_done() {
    let place = Place::on_disk();
    let (engine, log) = place.open(&small_segments(100_000));
    let first = single(7, 0, 100);
    put(&log, &first);
    put(&log, &first);
    log.append_wait(Append::client(&single(7, 9, 100))).expect_err("out of order");
    put(&log, &batch(8, 0, &["a".into(), "b".into()]));
    put(&log, &txn_batch(9, 0, &["t".into()]));
    let tickets: Vec<_> = (1..4)
        .map(|sequence| log.append(Append::client(&single(7, sequence, 100)).ack(Ack::Durable)).expect("accepted"))
        .collect();
    for ticket in tickets {
        ticket.wait().expect("durable");
    }
    let bytes = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(0) }).expect("readable").data.len() as f64;
    log.roll().expect("rolled");
    let told = samples(&engine.metrics_text());
    let label = "topic=\"story\",partition=\"0\"";
    for (name, value) in [
        ("kafka_server_brokertopicmetrics_bytesin_total{}", bytes),
        ("kafka_server_brokertopicmetrics_messagesin_total{}", 7.0),
        ("kafka_server_brokertopicmetrics_bytesout_total{}", bytes),
        ("oncelog_appends_total{,outcome=\"appended\"}", 6.0),
        ("oncelog_appends_total{,outcome=\"duplicate\"}", 1.0),
        ("oncelog_appends_refused_total{,error=\"OUT_OF_ORDER_SEQUENCE_NUMBER\"}", 1.0),
        ("oncelog_group_appends_bucket{,le=\"1\"}", 3.0),
        ("oncelog_read_bytes_total{,source=\"tail\"}", bytes),
        ("oncelog_read_bytes_total{,source=\"file\"}", 0.0),
        ("oncelog_reads_total{,source=\"tail\"}", 1.0),
        ("oncelog_rolls_total{}", 1.0),
        ("kafka_log_log_size{}", bytes),
        ("kafka_log_log_numlogsegments{}", 2.0),
        ("kafka_log_log_logendoffset{}", 7.0),
        ("oncelog_high_watermark{}", 7.0),
        ("oncelog_last_stable_offset{}", 3.0),
        ("kafka_cluster_partition_laststableoffsetlag{}", 4.0),
        ("oncelog_producers{}", 3.0),
        ("oncelog_open_transactions{}", 1.0),
        ("oncelog_latched{}", 0.0),
        ("oncelog_logs", 1.0),
    ] {
        let key = name.replace("{,", &format!("{{{label},")).replace("{}", &format!("{{{label}}}"));
        assert_eq!(told.get(&key), Some(&value), "{key}");
    }
    let groups = told[&format!("oncelog_group_appends_count{{{label}}}")];
    assert_eq!(told[&format!("oncelog_commit_seconds_count{{{label}}}")], groups);
    assert!(told["oncelog_tail_bytes"] > 0.0);
}

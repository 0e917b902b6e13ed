//! The ring and the plain system calls leave the same bytes.

mod common;

use common::{Place, put_as, single, small_segments, txn_batch, value};
use oncelog::{Ack, Append, DeviceKind};
use oncelog_formats::control::end_txn_marker_batch;
use std::collections::BTreeMap;
use std::path::Path;

/// Rolls, a transaction, a moved log start, a kill and a clean close.
fn workload(place: &Place) {
    let config = small_segments(6000);
    let (engine, log) = place.open(&config);
    for sequence in 0..120 {
        let ack = [Ack::Durable, Ack::Written, Ack::Accepted][sequence as usize % 3];
        put_as(&log, &single(7, sequence, (sequence as usize * 37) % 700), ack);
    }
    log.append_wait(Append::client(&txn_batch(8, 0, &[value(8, 0, 20)]))).expect("stored");
    log.append_wait(Append::coordinator(&end_txn_marker_batch(0, 0, 8, 0, false, 1, common::NOW_MS)))
        .expect("a marker");
    log.delete_records(11).expect("moved");
    log.sync().expect("durable");
    engine.kill();
    let (engine, log) = place.open(&config);
    for sequence in 120..140 {
        put_as(&log, &single(7, sequence, 300), Ack::Durable);
    }
    engine.close().expect("a clean close");
}

fn contents(dir: &Path, into: &mut BTreeMap<String, Vec<u8>>, prefix: &str) {
    for entry in std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry")) {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            contents(&entry.path(), into, &format!("{name}/"));
        } else {
            into.insert(name, std::fs::read(entry.path()).expect("a file"));
        }
    }
}

fn bytes_by(kind: DeviceKind) -> BTreeMap<String, Vec<u8>> {
    let mut place = Place::on_disk();
    place.kind = kind;
    workload(&place);
    let mut found = BTreeMap::new();
    contents(&place.dir, &mut found, "");
    found
}

#[test]
fn the_ring_and_the_system_calls_leave_the_same_bytes() {
    if let Err(why) = oncelog_device::open_device(DeviceKind::Uring) {
        println!("skipped: {why}");
        return;
    }
    let (ring, plain) = (bytes_by(DeviceKind::Uring), bytes_by(DeviceKind::Blocking));
    assert_eq!(ring.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>());
    for (name, bytes) in &ring {
        assert!(bytes == &plain[name], "{name} differs");
    }
}

#[test]
fn the_same_workload_leaves_the_same_bytes_again() {
    assert!(bytes_by(DeviceKind::Blocking) == bytes_by(DeviceKind::Blocking));
}

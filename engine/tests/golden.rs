//! Directories that a real broker wrote open here to what Kafka's own loader saw in them.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oncelog::{
    Config, Engine, EngineOptions, Isolation, Log, LogState, ManualClock, OpenOptions, ProducerEntry, Read,
    SegmentState,
};
use oncelog_formats::control::ControlType;
use oncelog_formats::{BatchView, Batches, Compression, TimestampType};
use serde_json::Value;

fn cases() -> Vec<PathBuf> {
    let folder = std::env::var_os("ONCELOG_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka/golden"), PathBuf::from);
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("expected.json").exists())
        .collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} holds no case", folder.display());
    cases
}

/// A copy of a case, opened at time 0 by one engine after another.
struct Copy {
    want: Value,
    name: String,
    config: Config,
    dir: tempfile::TempDir,
}

impl Copy {
    fn of(case: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        common::copy_tree(case, dir.path());
        let want: Value =
            serde_json::from_slice(&std::fs::read(case.join("expected.json")).expect("expected.json")).expect("JSON");
        let properties = std::fs::read_to_string(case.join("topic.properties")).unwrap_or_default();
        let name = want["partition"].as_str().map_or_else(|| partition_of(case), str::to_string);
        Self { want, name, config: Config::from_properties(&properties).expect("settings"), dir }
    }

    fn engine(&self) -> Engine {
        let clock = Arc::new(ManualClock::new(0));
        Engine::open(self.dir.path(), EngineOptions { clock: Some(clock), driver: false, ..EngineOptions::default() })
            .expect("opens")
    }

    fn log(&self, engine: &Engine) -> Log {
        engine
            .log(&self.name, OpenOptions { config: self.config.clone(), ..OpenOptions::default() })
            .expect("the log opens")
    }
}

fn partition_of(case: &Path) -> String {
    let entries = std::fs::read_dir(case).expect("a case").map(|entry| entry.expect("an entry"));
    let directory = entries.filter(|entry| entry.path().is_dir()).map(|entry| entry.file_name()).next();
    directory.expect("a partition").into_string().expect("text")
}

fn int(value: &Value, field: &str) -> i64 {
    value[field].as_i64().unwrap_or_else(|| panic!("{field} is no number in {value}"))
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

fn pairs(value: &Value, field: &str) -> Vec<(i64, i64)> {
    list(value, field)
        .iter()
        .map(|pair| (pair[0].as_i64().expect("a number"), pair[1].as_i64().expect("a number")))
        .collect()
}

#[test]
fn golden_directories_open_to_what_kafka_saw() {
    for case in cases() {
        let copy = Copy::of(&case);
        if copy.want.get("load_error").is_some() {
            continue;
        }
        let engine = copy.engine();
        let log = copy.log(&engine);
        let state = log.describe().expect("state");
        assert!(log.report().damage.is_empty(), "{}: {:?}", copy.name, log.report().damage);
        offsets(&copy, &state);
        segments(&copy, &log, &state);
        producers(&copy, &state);
        committed(&copy, &log);
    }
}

#[test]
fn golden_directories_reopen_equal_after_a_clean_close() {
    for case in cases() {
        let copy = Copy::of(&case);
        if copy.want.get("load_error").is_some() {
            continue;
        }
        let (_, mut before) = reopened(&copy);
        let (clean, mut after) = reopened(&copy);
        assert!(clean, "{}: the mark is there", copy.name);
        let exact = after.clone();
        // The close adds the largest timestamp to the active time index if it is not its last entry, as Kafka's does.
        before.retain(|line| !line.starts_with("active time index"));
        after.retain(|line| !line.starts_with("active time index"));
        assert_same(&copy.name, &before, &after);
        assert_same(&copy.name, &exact, &reopened(&copy).1);
    }
}

fn assert_same(name: &str, before: &[String], after: &[String]) {
    assert_eq!(before.len(), after.len(), "{name}");
    for (before, after) in before.iter().zip(after) {
        assert_eq!(before, after, "{name}");
    }
}

/// Opens, looks and closes cleanly.
fn reopened(copy: &Copy) -> (bool, Vec<String>) {
    let engine = copy.engine();
    let log = copy.log(&engine);
    let seen = (log.report().clean, summary(&log));
    engine.close().expect("a clean close");
    seen
}

/// Everything that must be the same after a reopening.
fn summary(log: &Log) -> Vec<String> {
    let mut state = log.describe().expect("state");
    let mut lines = Vec::new();
    let active = state.segments.last_mut().expect("a segment");
    lines.push(format!("active time index {:?}", std::mem::take(&mut active.time_index)));
    for segment in std::mem::take(&mut state.segments) {
        let crc = oncelog_formats::crc32c::crc32c(&log.read_segment(segment.base_offset).expect("a segment"));
        lines.push(format!("{crc} {segment:?}"));
    }
    for (id, p) in std::mem::take(&mut state.producers) {
        let txn = p.txn_first_offset;
        lines.push(format!(
            "{id} {} {} {} {:?} {txn:?}",
            p.epoch,
            p.coordinator_epoch,
            p.last_timestamp,
            p.last_batch()
        ));
    }
    (state.clean, state.snapshots, state.digest) = (true, Vec::new(), 0);
    lines.push(format!("{state:?}"));
    lines
}

fn offsets(copy: &Copy, state: &LogState) {
    let (want, name) = (&copy.want, &copy.name);
    assert_eq!(state.clean, want["clean"].as_bool().expect("clean"), "{name}: clean");
    assert_eq!(state.log_start_offset, int(want, "log_start_offset"), "{name}: log start");
    assert_eq!(state.log_end_offset, int(want, "log_end_offset"), "{name}: log end");
    assert_eq!(state.last_stable_offset, int(want, "last_stable_offset"), "{name}: last stable offset");
    assert_eq!(
        state.first_unstable_offset.unwrap_or(-1),
        int(want, "first_unstable_offset"),
        "{name}: first unstable offset"
    );
    let epochs: Vec<(i64, i64)> = state.leader_epochs.iter().map(|e| (i64::from(e.epoch), e.start_offset)).collect();
    assert_eq!(epochs, pairs(want, "leader_epochs"), "{name}: leader epochs");
}

fn segments(copy: &Copy, log: &Log, state: &LogState) {
    let wanted = list(&copy.want, "segments");
    let bases: Vec<i64> = state.segments.iter().map(|s| s.base_offset).collect();
    assert_eq!(bases, wanted.iter().map(|s| int(s, "base_offset")).collect::<Vec<_>>(), "{}: segments", copy.name);
    for (segment, want) in state.segments.iter().zip(wanted) {
        let at = format!("{} segment {}", copy.name, segment.base_offset);
        assert_eq!(segment.size_bytes as i64, int(want, "size"), "{at}: size");
        assert_eq!(segment.next_offset, int(want, "next_offset"), "{at}: next offset");
        assert_eq!(segment.max_timestamp, int(want, "max_timestamp_so_far"), "{at}: largest timestamp");
        batches(&at, &log.read_segment(segment.base_offset).expect("bytes"), want);
        indexes(&at, segment, want, state.clean);
    }
}

fn batches(at: &str, bytes: &[u8], want: &Value) {
    let mut position = 0;
    let mut count = 0;
    for view in Batches::new(bytes) {
        let view = view.unwrap_or_else(|e| panic!("{at}: {e}"));
        if let Some(want) = list(want, "batches").get(count) {
            batch(&format!("{at} batch {count}"), &view, position, want);
        }
        position += view.bytes().len();
        count += 1;
    }
    assert_eq!(count as i64, int(want, "batch_count"), "{at}: batches");
}

fn batch(at: &str, view: &BatchView<'_>, position: usize, want: &Value) {
    let h = view.header();
    let numbers: [(&str, i64); 17] = [
        ("base_offset", h.base_offset),
        ("last_offset", h.last_offset()),
        ("position", position as i64),
        ("size", h.size_bytes() as i64),
        ("magic", i64::from(h.magic)),
        ("crc", i64::from(h.crc)),
        ("max_timestamp", h.max_timestamp),
        ("base_timestamp", h.base_timestamp),
        ("delete_horizon", h.delete_horizon().unwrap_or(-1)),
        ("attributes", i64::from(h.attributes)),
        ("producer_id", h.producer_id),
        ("producer_epoch", i64::from(h.producer_epoch)),
        ("base_sequence", i64::from(h.base_sequence)),
        ("last_sequence", i64::from(h.last_sequence())),
        ("partition_leader_epoch", i64::from(h.partition_leader_epoch)),
        ("record_count", i64::from(h.record_count)),
        ("valid", i64::from(view.is_valid())),
    ];
    for (field, got) in numbers {
        let want = want[field].as_i64().or(want[field].as_bool().map(i64::from));
        assert_eq!(Some(got), want, "{at}: {field}");
    }
    let kind = if h.timestamp_type() == TimestampType::CreateTime { "CreateTime" } else { "LogAppendTime" };
    assert_eq!(want["timestamp_type"], kind, "{at}");
    assert_eq!(want["compression"], h.compression().map(Compression::name).expect("a known codec"), "{at}");
    assert_eq!(
        (&want["transactional"], &want["control"]),
        (&Value::Bool(h.is_transactional()), &Value::Bool(h.is_control())),
        "{at}"
    );
}

fn indexes(at: &str, segment: &SegmentState, want: &Value, clean: bool) {
    let offsets: Vec<(i64, i64)> = segment.offset_index.iter().map(|e| (e.offset, i64::from(e.position))).collect();
    let times: Vec<(i64, i64)> = segment.time_index.iter().map(|e| (e.timestamp, e.offset)).collect();
    if clean {
        assert_eq!(offsets, pairs(want, "offset_index"), "{at}: offset index");
        assert_eq!(times, pairs(want, "time_index"), "{at}: time index");
    } else if want.get("batches").is_some() {
        // Recovery may build a denser or sparser index than Kafka's; what it says must be true.
        let batches = list(want, "batches");
        let starts: BTreeMap<i64, i64> = batches.iter().map(|b| (int(b, "last_offset"), int(b, "position"))).collect();
        assert!(offsets.iter().all(|(offset, position)| starts.get(offset) == Some(position)), "{at}: {offsets:?}");
        let ends: BTreeSet<(i64, i64)> =
            batches.iter().map(|b| (int(b, "max_timestamp"), int(b, "last_offset"))).collect();
        assert!(times.iter().all(|entry| ends.contains(entry)), "{at}: {times:?}");
    }
    let aborted: Vec<[i64; 4]> = segment
        .txn_index
        .iter()
        .map(|t| [t.producer_id, t.first_offset, t.last_offset, t.last_stable_offset])
        .collect();
    assert_eq!(aborted, aborted_of(want, "txn_index"), "{at}: aborted transactions");
}

fn aborted_of(want: &Value, field: &str) -> Vec<[i64; 4]> {
    let fields = ["producer_id", "first_offset", "last_offset", "last_stable_offset"];
    list(want, field).iter().map(|txn| fields.map(|field| int(txn, field))).collect()
}

/// Kafka remembers one of up to five batches through a restart, we all: the newest must agree.
fn producers(copy: &Copy, state: &LogState) {
    let mine: BTreeMap<i64, &ProducerEntry> = state.producers.iter().map(|(id, entry)| (*id, entry)).collect();
    assert_eq!(mine.len() as i64, int(&copy.want, "producers_after_load_count"), "{}: producers", copy.name);
    let wanted = list(&copy.want, "producers_after_load").iter().chain(list(&copy.want, "producers_after_load_first"));
    for want in wanted {
        let id = int(want, "producer_id");
        let entry = mine.get(&id).unwrap_or_else(|| panic!("{}: producer {id} is forgotten", copy.name));
        let at = format!("{} producer {id}", copy.name);
        assert_eq!(i64::from(entry.epoch), int(want, "epoch"), "{at}: epoch");
        assert_eq!(i64::from(entry.coordinator_epoch), int(want, "coordinator_epoch"), "{at}: coordinator epoch");
        assert_eq!(entry.last_timestamp, int(want, "last_timestamp"), "{at}: timestamp");
        assert_eq!(
            entry.txn_first_offset.unwrap_or(-1),
            int(want, "current_txn_first_offset"),
            "{at}: open transaction"
        );
        let newest = entry.last_batch().map(|b| {
            [i64::from(b.first_sequence), i64::from(b.last_sequence), b.first_offset, b.last_offset, b.timestamp]
        });
        let fields = ["first_seq", "last_seq", "first_offset", "last_offset", "timestamp"];
        assert_eq!(
            newest,
            list(want, "batches").last().map(|b| fields.map(|field| int(b, field))),
            "{at}: newest batch"
        );
    }
}

/// Reads as a committed consumer does, in small steps: the same records dropped and kept as by a stock consumer.
fn committed(copy: &Copy, log: &Log) {
    let wanted: BTreeSet<(i64, i64)> =
        aborted_of(&copy.want, "aborted_transactions_from_start").iter().map(|txn| (txn[1], txn[0])).collect();
    let (mut known, mut open) = (BTreeSet::new(), BTreeSet::new());
    let (mut offset, mut kept, mut dropped, mut control) = (log.log_start_offset(), 0, 0, 0);
    loop {
        let fetched = log
            .read(Read { offset, max_bytes: 10_000, isolation: Isolation::Committed, at_least_one: true })
            .expect("a read");
        let mut due: BTreeSet<(i64, i64)> =
            fetched.aborted.iter().map(|(id, first)| (*first, *id)).filter(|txn| !known.contains(txn)).collect();
        for view in Batches::new(&fetched.data).map(|view| view.expect("a batch")) {
            let header = view.header();
            offset = header.next_offset();
            while let Some(txn) = due.first().copied().filter(|txn| txn.0 <= header.last_offset()) {
                due.remove(&txn);
                known.insert(txn);
                open.insert(txn.1);
            }
            if header.is_control() {
                control += i64::from(header.record_count);
                if view.control().expect("a control record").kind == ControlType::Abort {
                    open.remove(&header.producer_id);
                }
            } else if header.is_transactional() && open.contains(&header.producer_id) {
                dropped += i64::from(header.record_count);
            } else {
                kept += i64::from(header.record_count);
            }
        }
        if fetched.data.is_empty() {
            break;
        }
    }
    let want = &copy.want["read_committed"];
    let got = (kept, dropped, control, offset);
    assert_eq!(
        got,
        (int(want, "count"), int(want, "aborted_records"), int(want, "control_records"), int(want, "stopped_at")),
        "{}",
        copy.name
    );
    assert!(known.is_subset(&wanted), "{}: {:?} were not aborted", copy.name, known.difference(&wanted));
    let missing: Vec<_> = wanted.difference(&known).filter(|txn| txn.0 < offset).collect();
    assert!(missing.is_empty(), "{}: {missing:?} are not reported", copy.name);
}

//! Kafka's own answers, row by row: `testdata/kafka/producer-vectors.tsv`, or the file that `ONCELOG_VECTORS` names.

use std::fmt::Write as _;
use std::path::PathBuf;

use oncelog_snapshot::producer::batch_meta;
use oncelog_snapshot::{
    AdmitOptions, Incoming, Marker, OpenTxns, Origin, ProducerEntry, ProducerTable, Standing, Verdict, Verification,
    Verifications, admit,
};

const PRODUCER: i64 = 7;

/// State of one row's log, in the file's terms.
struct Log {
    table: ProducerTable,
    pending: Verifications,
    txns: OpenTxns,
}

#[test]
fn vectors_of_kafka() {
    let text = std::fs::read_to_string(vectors_file()).expect("vectors file");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("heading").split('\t').collect();
    let mut rows = 0;
    let mut wrong = Vec::new();
    for (index, line) in lines.enumerate() {
        let row = Row { names: &names, values: line.split('\t').collect() };
        assert_eq!(row.values.len(), names.len(), "line {}", index + 2);
        rows += 1;
        let expected = ["outcome", "detail", "state_after"].map(|name| row.text(name).to_owned());
        let answer = answer(&row);
        if answer != expected {
            wrong.push(format!("line {}: {answer:?} instead of {expected:?}", index + 2));
        }
    }
    assert!(rows > 0, "no rows");
    let shown = wrong.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(wrong.is_empty(), "{} of {rows} rows differ\n{shown}", wrong.len());
}

fn vectors_file() -> PathBuf {
    std::env::var_os("ONCELOG_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../testdata/kafka/producer-vectors.tsv"),
        PathBuf::from,
    )
}

struct Row<'a> {
    names: &'a [&'a str],
    values: Vec<&'a str>,
}

impl Row<'_> {
    fn text(&self, name: &str) -> &str {
        self.values[self.names.iter().position(|&n| n == name).expect("column")]
    }

    fn number(&self, name: &str) -> i64 {
        self.text(name).parse().expect("number")
    }

    fn batch(&self) -> Incoming {
        let first_offset = self.number("base_offset");
        let last_offset = first_offset + self.number("count") - 1;
        let end_txn = |commit| Marker::EndTxn {
            commit,
            coordinator_epoch: self.number("coord_epoch") as i32,
            timestamp: 9000 + first_offset,
        };
        Incoming {
            producer_id: PRODUCER,
            epoch: self.number("epoch") as i16,
            base_sequence: self.number("base_seq") as i32,
            last_sequence: self.number("last_seq") as i32,
            first_offset,
            last_offset,
            max_timestamp: 5000 + last_offset,
            transactional: self.text("txn") == "true",
            marker: match self.text("kind") {
                "data" => None,
                "commit" => Some(end_txn(true)),
                "abort" => Some(end_txn(false)),
                other => panic!("kind {other}"),
            },
        }
    }

    fn options(&self, guard: Option<u64>) -> AdmitOptions {
        AdmitOptions {
            origin: match self.text("origin") {
                "CLIENT" => Origin::Client,
                "COORDINATOR" => Origin::Coordinator,
                "RAFT_LEADER" => Origin::RaftLeader,
                "REPLICATION" => Origin::Replication,
                other => panic!("origin {other}"),
            },
            verification_enabled: !self.text("verification").starts_with("off"),
            txn_version: self.text("txn_version").parse().ok(),
            guard,
            now_ms: 1,
        }
    }
}

/// Outcome, detail and state afterwards.
fn answer(row: &Row<'_>) -> [String; 3] {
    let mut log = parse_state(row.text("state_detail"));
    assert_eq!(show_state(&log), row.text("state_detail"));
    let batch = row.batch();
    let guard = verification_steps(&mut log, row, &batch);
    let pending = log.pending.get(PRODUCER).copied();
    let options = row.options(guard);
    let (known, hint) = log.table.look(PRODUCER, batch.epoch, batch.base_sequence, batch.last_sequence);
    let (outcome, detail) = match admit(&known, None, pending.as_ref(), &batch, &options) {
        Verdict::Append { update, completed, started_txn, clears_verification } => {
            if started_txn {
                log.txns.start(PRODUCER, batch.first_offset);
            }
            let detail = completed.map(|txn| {
                let kind = if txn.commit { "commit" } else { "abort" };
                let lso = log.txns.complete(&txn);
                format!("completed[{},{},{kind},lso={lso}]", txn.first_offset, txn.last_offset)
            });
            if clears_verification {
                log.pending.clear(PRODUCER);
            }
            log.table.apply(PRODUCER, &update, hint);
            ("APPEND".to_owned(), detail)
        }
        Verdict::Duplicate(known) => {
            let detail = format!("{}-{}@{}", known.first_offset, known.last_offset, known.timestamp);
            ("DUPLICATE".to_owned(), Some(detail))
        }
        Verdict::Refuse(refusal) => (refusal.exception_name().to_owned(), None),
    };
    let open: Vec<_> = log.txns.ongoing().collect();
    let first = log.table.standing(PRODUCER).txn_first_offset;
    assert_eq!(open, first.map(|first| (PRODUCER, first)).into_iter().collect::<Vec<_>>());
    [outcome, detail.unwrap_or_else(|| "-".to_owned()), show_state(&log)]
}

/// Runs the starts that the column tells of and answers the guard to present.
fn verification_steps(log: &mut Log, row: &Row<'_>, batch: &Incoming) -> Option<u64> {
    let bumps = row.text("txn_version") == "2";
    let stored = log.table.standing(PRODUCER);
    let stored_epoch = log.table.get(PRODUCER).map_or(5, |entry| entry.epoch);
    let mut start =
        |sequence: i32, epoch: i16| log.pending.start(PRODUCER, &stored, sequence, epoch, bumps, 0).ok().flatten();
    let (sequence, epoch) = (batch.base_sequence, batch.epoch);
    let mut both = |first: (i32, i16), second: (i32, i16)| {
        let _ = start(first.0, first.1);
        start(second.0, second.1)
    };
    match row.text("verification") {
        "off" | "on_noguard" => None,
        "off_entry" => {
            let _ = start(0, epoch);
            None
        }
        "on_entry_same" => {
            let _ = start(0, stored_epoch);
            None
        }
        "on_entry_next" => {
            let _ = start(0, stored_epoch.wrapping_add(1));
            None
        }
        "on_goodguard" => start(sequence, epoch),
        "on_wrongguard" => Some(start(sequence, epoch).unwrap_or(0) + 1),
        "on_lowseq0_goodguard" => both((0, epoch), (sequence, epoch)),
        "on_lowered_goodguard" => both((sequence, epoch), (0, epoch)),
        "on_earlier_goodguard" => both((0, epoch.wrapping_sub(1)), (sequence, epoch)),
        "on_later_goodguard" => both((0, epoch.wrapping_add(1)), (sequence, epoch)),
        "on_later_kept_goodguard" => both((sequence, epoch.wrapping_add(1)), (0, epoch)),
        other => panic!("verification {other}"),
    }
}

/// `none`, or `e5 c-1 ts5003 txn0 [0-1@0-1 2-3@2-3]`, then perhaps ` v[e6 low0 bump]`.
fn parse_state(text: &str) -> Log {
    let mut log = Log { table: ProducerTable::new(), pending: Verifications::new(), txns: OpenTxns::new() };
    let (entry, pending) = match text.split_once(" v[") {
        Some((entry, pending)) => (entry, Some(pending.trim_end_matches(']'))),
        None => (text, None),
    };
    if entry != "none" {
        let stored = parse_entry(entry);
        if let Some(first_offset) = stored.txn_first_offset {
            log.txns.start(PRODUCER, first_offset);
        }
        log.table.put(PRODUCER, stored);
    }
    if let Some(pending) = pending {
        let words: Vec<&str> = pending.split(' ').collect();
        let epoch = words[0].strip_prefix('e').expect("epoch").parse().expect("epoch");
        let lowest = words[1].strip_prefix("low").expect("lowest").parse().expect("lowest");
        let guard = log.pending.start(PRODUCER, &Standing::default(), lowest, epoch, words.contains(&"bump"), 0);
        assert_eq!(guard, Ok(Some(1)));
    }
    log
}

fn parse_entry(text: &str) -> ProducerEntry {
    let (fields, batches) = text.trim_end_matches(']').split_once(" [").expect("batches");
    let field = |prefix: &str| -> i64 {
        let value = fields.split(' ').find_map(|word| word.strip_prefix(prefix)?.parse().ok());
        value.unwrap_or_else(|| panic!("{prefix} in {text}"))
    };
    let mut entry = ProducerEntry::default();
    entry.set_epoch(field("e") as i16);
    entry.coordinator_epoch = field("c") as i32;
    entry.last_timestamp = field("ts");
    entry.txn_first_offset = Some(field("txn")).filter(|&first| first >= 0);
    for batch in batches.split_whitespace() {
        let (sequences, offsets) = batch.split_once('@').expect("offsets");
        let (_, last_sequence) = split_range(sequences);
        let (first_offset, last_offset) = split_range(offsets);
        entry.push_batch(batch_meta(last_sequence as i32, first_offset, last_offset, 5000 + last_offset));
    }
    entry
}

/// `2-3`, or `2147483645--1`.
fn split_range(text: &str) -> (i64, i64) {
    let dash = text[1..].find('-').expect("range") + 1;
    (text[..dash].parse().expect("number"), text[dash + 1..].parse().expect("number"))
}

fn show_state(log: &Log) -> String {
    let mut text = log.table.get(PRODUCER).as_ref().map_or_else(|| "none".to_owned(), show_entry);
    if let Some(Verification { epoch, lowest_sequence, bumps_epoch, .. }) = log.pending.get(PRODUCER) {
        let bump = if *bumps_epoch { " bump" } else { "" };
        write!(text, " v[e{epoch} low{lowest_sequence}{bump}]").expect("string");
    }
    text
}

fn show_entry(entry: &ProducerEntry) -> String {
    let batches = entry
        .batches()
        .iter()
        .map(|b| format!("{}-{}@{}-{}", b.first_sequence, b.last_sequence, b.first_offset, b.last_offset));
    format!(
        "e{} c{} ts{} txn{} [{}]",
        entry.epoch,
        entry.coordinator_epoch,
        entry.last_timestamp,
        entry.txn_first_offset.unwrap_or(-1),
        batches.collect::<Vec<_>>().join(" ")
    )
}

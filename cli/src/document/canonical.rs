//! The canonical text of records, and what a consumer reads as one digest over it.
//!
//! `offset:timestamp:` then key and value as `length:bytes` (`-1:` for none), the header count, each header as
//! `length:key` and `length:value`, and a newline. The reads go through the log's own fetch path rather than over the
//! segments, so that the digest also vouches for what a consumer would be answered.

use oncelog::{Isolation, Log, LogState, Read};
use oncelog_formats::record::Record;
use oncelog_formats::txn_index::AbortedTxn;
use oncelog_formats::{BatchView, Batches, FormatError};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Output limit for one batch's records: what no sane batch reaches, so that a crafted one cannot take all memory.
pub const DECODE_LIMIT_BYTES: usize = 512 << 20;

/// Bytes asked for in one fetch.
const FETCH_BYTES: usize = 1 << 20;

/// Adds one record to a digest.
pub fn update(digest: &mut Sha256, record: &Record<'_>) {
    digest.update(format!("{}:{}:", record.offset, record.timestamp));
    blob(digest, record.key);
    blob(digest, record.value);
    digest.update(record.headers.len().to_string());
    for (key, value) in record.headers.clone() {
        blob(digest, Some(key));
        blob(digest, value);
    }
    digest.update(b"\n");
}

fn blob(digest: &mut Sha256, bytes: Option<&[u8]>) {
    match bytes {
        None => digest.update(b"-1:"),
        Some(bytes) => {
            digest.update(format!("{}:", bytes.len()));
            digest.update(bytes);
        }
    }
}

/// `read_uncommitted` (without `aborted`) or `read_committed` of the document: everything from the log start to the log
/// end or the last stable offset. A refused fetch or an undecodable batch ends it, with `error` saying why.
///
/// Read as a replica reads: a consumer's fetch would place a high watermark that lies inside a batch, and looking at a
/// log must not change it.
pub fn consume(log: &Log, state: &LogState, aborted: Option<&[AbortedTxn]>) -> Value {
    let to = if aborted.is_some() { state.last_stable_offset } else { state.log_end_offset };
    let mut reading = Reading::new(state.log_start_offset, to, aborted.is_some());
    let failed = loop {
        if reading.at >= to {
            break None;
        }
        let before = reading.at;
        let read = Read { offset: before, max_bytes: FETCH_BYTES, isolation: Isolation::LogEnd, at_least_one: true };
        match log.read(read) {
            Err(error) => break Some(error.to_string()),
            Ok(fetched) => {
                let touching = aborted.unwrap_or_default().iter().filter(|txn| txn.last_offset >= before);
                let touching = touching.map(|txn| (txn.producer_id, txn.first_offset)).collect();
                if let Err(error) = reading.take(&fetched.data, touching) {
                    break Some(error.to_string());
                }
            }
        }
        if reading.at == before {
            break None;
        }
    };
    let mut answer = reading.answer();
    if let Some(error) = failed {
        answer.insert("error".into(), error.into());
    }
    Value::Object(answer)
}

/// What a consumer knows between two fetches.
struct Reading {
    at: i64,
    to: i64,
    committed: bool,
    digest: Sha256,
    count: u64,
    control: u64,
    aborted: u64,
}

impl Reading {
    fn new(at: i64, to: i64, committed: bool) -> Self {
        Self { at, to, committed, digest: Sha256::new(), count: 0, control: 0, aborted: 0 }
    }

    /// One fetch's batches; `aborted` are the transactions that the same answer named.
    fn take(&mut self, data: &[u8], mut aborted: Vec<(i64, i64)>) -> Result<(), FormatError> {
        aborted.sort_unstable_by_key(|&(producer, first)| (first, producer));
        let mut aborted = aborted.into_iter().peekable();
        let mut dropping = BTreeSet::new();
        for batch in Batches::new(data) {
            let batch = batch?;
            let header = batch.header();
            if header.last_offset() < self.at {
                continue;
            }
            if header.last_offset() >= self.to {
                break;
            }
            if self.committed && header.has_producer_id() {
                while let Some((producer, _)) = aborted.next_if(|&(_, first)| first <= header.last_offset()) {
                    dropping.insert(producer);
                }
                if is_abort(&batch) {
                    dropping.remove(&header.producer_id);
                } else if header.is_transactional() && dropping.contains(&header.producer_id) {
                    self.aborted += u64::try_from(header.record_count).unwrap_or(0);
                    self.at = header.next_offset();
                    continue;
                }
            }
            self.records(&batch)?;
            self.at = header.next_offset();
        }
        Ok(())
    }

    fn records(&mut self, batch: &BatchView<'_>) -> Result<(), FormatError> {
        let control = batch.header().is_control();
        for record in batch.decode(DECODE_LIMIT_BYTES)?.records() {
            let record = record?;
            if record.offset < self.at {
                continue;
            }
            if control {
                self.control += 1;
            } else {
                update(&mut self.digest, &record);
                self.count += 1;
            }
        }
        Ok(())
    }

    fn answer(self) -> Map<String, Value> {
        let mut m = Map::new();
        m.insert("count".into(), self.count.into());
        m.insert("sha256".into(), hex::encode(self.digest.finalize()).into());
        m.insert("control_records".into(), self.control.into());
        m.insert("aborted_records".into(), self.aborted.into());
        m.insert("stopped_at".into(), json!(self.at));
        m
    }
}

fn is_abort(batch: &BatchView<'_>) -> bool {
    use oncelog_formats::control::ControlType;
    batch.header().is_control() && matches!(batch.control(), Ok(control) if control.kind == ControlType::Abort)
}

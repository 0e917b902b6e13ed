//! Valid inputs to start from: bytes that Kafka's own classes wrote, and every file of a directory of Kafka's logs.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oncelog_formats::log_checkpoint::{LogCheckpoint, PageRef, SegmentPoint};
use oncelog_formats::snapshot::{BatchMeta, Extension, ProducerExtra, SealedSegment};
use oncelog_formats::{AbortedTxn, Batches, OffsetEntry, SnapshotFile, TimeEntry};
use oncelog_snapshot::pages::PageWriter;
use oncelog_snapshot::{ProducerEntry, ProducerTable};

/// Most bytes taken of one file.
const MAX_FILE_BYTES: usize = 16 << 10;
/// Most inputs of one target from a directory.
const MAX_FROM_FILES: usize = 200;

const BATCHES: [&str; 11] = [
    "000000000000002a0000003c00000007026ba48e850000000000000000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000114000000046b3104763100",
    "000000000012d6870000005a0000000f0252ae5c730000000000020000018bcfe568000000018bcfe568050000000000005b7f0091000003d70000000314000000046b310476310026000a02010a68656c6c6f040268040102026e011200cf0f04046b330100",
    "00000000000000640000005200000000020541a7110010000000020000018bcfe568000000018bcfe56800000000000000008900057ffffffe0000000314000000046b310476310014000002046b310476310014000004046b3104763100",
    "00000000000000000000003c000000030214b6aa6a0008000000000000018bcfe568000000018bcfe58f0f00000000000000010000000000000000000114000000046b3104763100",
    "000000000000006b000000420000000002545434e00030000000000000018bcfe568000000018bcfe5680000000000000000050003ffffffff000000012000000008000000010c00000000000900",
    "000000000000006a0000004200000000023a82eb7c0030000000000000018bcfe568000000018bcfe56800000000000000000a0000ffffffff000000012000000008000000000c00000000000000",
    "000000000000000f000000310000000f025976c760001000000016ffffffffffffffff0000018bcfe568000000000000005b7f0091000003d700000000",
    "0000000000000000000000550000000002f7fc04ee0001000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff000000021f8b08000000000000ff1361606060c936642933641061606082320174ff82c216000000",
    "00000000000000000000005d0000000002160c60520002000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000282534e4150505900000000010000000100000018165414000000046b310476310014000002046b3104763100",
    "00000000000000000000005600000000020b98435c0003000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000204224d186040821600008014000000046b310476310014000002046b310476310000000000",
    "0000000000000000000000530000000002021009e20004000000010000018bcfe568000000018bcfe56800ffffffffffffffffffffffffffff0000000228b52ffd0058b0000014000000046b310476310014000002046b3104763100010000",
];
const SNAPSHOTS: [&str; 2] = [
    "0001fedf4e50000000020000000000000001000200000001000000000000000200000003ffffffffffffffff000000030000000000000064000000000000000b000cffffffffffffffffffffffff00000000000000000001e2400000000dffffffffffffffff",
    "000148674bc700000000",
];
const TXN_INDEX: &str = "00000000000000000089000000000000006400000000000000cd0000000000000096000000000000000003d70000000000000096000000000000012c000000000000012d";

/// The built-in inputs of a target.
pub fn builtin(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "batch" => hex_all(&BATCHES),
        // Behind the 61-byte headers of the compressed batches stands what their codec wrote.
        "codecs" => hex_all(&BATCHES[7..]).into_iter().map(|batch| batch[61..].to_vec()).collect(),
        "varint" => hex_all(&["00", "ffffffff0f", "ffffffffffffffffff01", "8001", "80808080808000"]),
        "control" => hex_all(&["000000000000006b000000000000000000000005000301000000090000018bcfe56800"]),
        "offset_index" => hex_all(&["0000000500000000000003b600001068", "0000000000000000000000010000000a"]),
        "time_index" => hex_all(&["0000018bcfe56800000000050000018bcfe56864000003b6"]),
        "txn_index" => hex_all(&[TXN_INDEX]),
        "snapshot" => {
            let mut all = hex_all(&SNAPSHOTS);
            all.extend(all.clone().iter().filter_map(|bytes| extended(bytes)));
            all
        }
        "log_checkpoint" => checkpoints(),
        "producer_page" => producer_pages(),
        "epoch_checkpoint" => texts(&["0\n2\n0 0\n3 1024\n", "0\n0\n", "0\n1\n-1  7 "]),
        "checkpoint" => texts(&["0\n2\nfoo 0 10\nbar-baz 12 99\n", "0\n0\n"]),
        "partition_metadata" => texts(&["version: 0\ntopic_id: qbGDWdJkQvm6oDmf8vJJWg"]),
        "clean_shutdown" => texts(&[r#"{"version":0,"brokerEpoch":42}"#]),
        "file_name" => texts(&[
            "00000000003147483650.log",
            "09223372036854775807.snapshot",
            "00000000000000000000.timeindex.swap",
            "00000000000000000007.txnindex.swap.deleted",
            "bar-baz-12",
        ]),
        _ => Vec::new(),
    }
}

fn hex_all(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| hex::decode(text).expect("the constant is hexadecimal")).collect()
}

/// One with nothing in its lists, and one with an entry in each.
fn checkpoints() -> Vec<Vec<u8>> {
    let full = LogCheckpoint {
        log_end_offset: 9000,
        parent: Some(7000),
        producer_count: 3,
        digest: 0x0123_4567_89ab_cdef,
        transactional_from: Some(12),
        leader_epoch: Some(4),
        segment: SegmentPoint {
            base_offset: 5000,
            size_bytes: 66_000,
            last_batch: Some((65_000, 77)),
            largest: Some(TimeEntry { timestamp: 1_700_000_000_000, offset: 8999 }),
            bytes_since_entry: 100,
            offset_entries_before: 2,
            ..SegmentPoint::default()
        },
        open_txns: vec![(7, 8000)],
        offset_entries: vec![OffsetEntry { offset: 8500, position: 64_000 }],
        time_entries: vec![TimeEntry { timestamp: 1_700_000_000_000, offset: 8500 }],
        aborted: vec![AbortedTxn { producer_id: 7, first_offset: 1, last_offset: 2, last_stable_offset: 3 }],
        pages: vec![PageRef { first_hash: 1, position: 0, length: 90, crc: 5 }],
        ..LogCheckpoint::default()
    };
    vec![LogCheckpoint::default().encode(), full.encode()]
}

/// Pages of producers side by side, of a lone one, and of one whose values are out of the ordinary.
fn producer_pages() -> Vec<Vec<u8>> {
    let page = |ids: &[i64], last_timestamp: i64| {
        let mut table = ProducerTable::new();
        for id in ids {
            let mut entry = ProducerEntry::default();
            (entry.last_timestamp, entry.last_append_ms) = (last_timestamp, 99);
            entry.set_epoch(3);
            for sequence in 0..(id % 7) as i32 {
                let (first_offset, last_offset) = (i64::from(sequence) * 10, i64::from(sequence) * 10);
                let batch = BatchMeta {
                    first_sequence: sequence,
                    last_sequence: sequence,
                    first_offset,
                    last_offset,
                    timestamp: 77,
                };
                entry.push_batch(batch);
            }
            table.put(*id, entry);
        }
        let mut view = table.freeze();
        let mut writer = PageWriter::new();
        writer.push(&table.read_frozen(&mut view, usize::MAX));
        writer.finish().1
    };
    vec![page(&[1, 2, 3, 5, 60], 77), page(&[1 << 40], 77), page(&[4], i64::MIN)]
}

/// The same snapshot with an extension behind the entries.
fn extended(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut file = SnapshotFile::decode(bytes).ok()?;
    let batch = BatchMeta { first_sequence: 3, last_sequence: 4, first_offset: 8, last_offset: 9, timestamp: 77 };
    let producers = file.entries.iter().map(|entry| ProducerExtra {
        producer_id: entry.producer_id,
        last_append_ms: 99,
        forgotten: false,
        batches: vec![batch; entry.last_batch().map_or(0, |_| 5)],
    });
    file.extension = Some(Extension {
        producers: producers.collect(),
        log_end_offset: 10,
        durable_offset: 8,
        digest: 0x0123_4567_89ab_cdef,
        sealed: file.entries.first().map(|_| SealedSegment { base_offset: 0, size_bytes: 512, next_offset: 10 }),
        log_id: file.entries.first().map(|_| [9; 16]),
    });
    Some(file.encode())
}

/// What the files below `directory` hold for `target`, in the order of their names.
pub fn from_directory(directory: &Path, target: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    walk(directory, &mut files)?;
    let mut inputs = Vec::new();
    for path in files {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if target == "file_name" {
            inputs.push(name.into_bytes());
        } else if target_of(&name) == Some(target) {
            let mut bytes = fs::read(&path)?;
            bytes.truncate(MAX_FILE_BYTES);
            match target {
                "batch" => inputs.extend(Batches::new(&bytes).flatten().map(|batch| batch.bytes().to_vec())),
                _ => inputs.push(bytes),
            }
        }
    }
    inputs.sort();
    inputs.dedup();
    // Evenly spread rather than the first ones, which tend to be of one kind.
    let step = inputs.len().div_ceil(MAX_FROM_FILES).max(1);
    Ok(inputs.into_iter().step_by(step).collect())
}

fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut paths = fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() { walk(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

fn target_of(name: &str) -> Option<&'static str> {
    match name {
        "leader-epoch-checkpoint" => Some("epoch_checkpoint"),
        "partition.metadata" => Some("partition_metadata"),
        ".kafka_cleanshutdown" => Some("clean_shutdown"),
        _ if name.ends_with("-offset-checkpoint") => Some("checkpoint"),
        _ => match name.rsplit_once('.')?.1 {
            "log" => Some("batch"),
            "index" => Some("offset_index"),
            "timeindex" => Some("time_index"),
            "txnindex" => Some("txn_index"),
            "snapshot" => Some("snapshot"),
            "checkpoint-oncelog" => Some("log_checkpoint"),
            _ => None,
        },
    }
}

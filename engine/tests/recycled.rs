//! A segment that retention frees becomes the next one, and nothing of what it held is to be seen there.
//!
//! The old batches have the same length as the new ones, so each begins where a new one will: the worst case, in which
//! a group that a power cut tears would show them. Kafka's own recovery takes such a batch for the next one where its
//! offset is below the last, which takes the log end back, and refuses the directory where it is below the segment's.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use common::{Place, put, read_all, single, small_segments};
use oncelog::{Ack, Append, Config};

const RECORD_BYTES: usize = 100_000;
/// Enough between two syncs that no zeroes are written over what is freed.
const BATCHES: i32 = 124;

fn segments(place: &Place) -> Vec<(u64, PathBuf)> {
    let files = fs::read_dir(place.dir.join(common::NAME)).expect("the log's directory");
    let paths =
        files.map(|file| file.expect("a name").path()).filter(|path| path.extension().is_some_and(|e| e == "log"));
    let mut segments: Vec<_> = paths.map(|path| (fs::metadata(&path).expect("there").ino(), path)).collect();
    segments.sort_by(|one, other| one.1.cmp(&other.1));
    segments
}

#[test]
fn a_freed_segment_holds_nothing_of_the_old_one() {
    let place = Place::on_disk();
    let config = Config { file_delete_delay_ms: 0, ..small_segments(1_050_000) };
    let (engine, log) = place.open(&config);
    let append = |sequence| {
        let bytes = single(7, sequence, RECORD_BYTES);
        log.append_wait(Append::client(&bytes).ack(Ack::Written)).expect("appended");
    };
    (0..BATCHES).for_each(append);
    log.sync().expect("synced");
    let freed: Vec<u64> = segments(&place).into_iter().map(|(inode, _)| inode).collect();
    log.configure(Config { retention_bytes: 0, ..config }).expect("configured");
    assert_eq!(log.apply_retention().expect("retention").len(), freed.len(), "all go");
    // What is freed goes to the stock, and what the next segments need comes from there.
    for _ in 0..20 {
        log.drive().expect("driven");
    }
    for sequence in BATCHES..BATCHES + 25 {
        append(sequence);
        log.drive().expect("driven");
    }
    log.sync().expect("synced");
    let (inode, path) = segments(&place).pop().expect("an active segment");
    let bytes = fs::read(&path).expect("the active segment");
    let mut end = 0;
    while bytes[end..].len() > 16 && bytes[end + 16] == 2 {
        end += 12 + u32::from_be_bytes(bytes[end + 8..end + 12].try_into().expect("four")) as usize;
    }
    assert!(end > 0 && bytes.len() >= end + RECORD_BYTES, "batches up to {end}, and space behind them");
    let old = bytes[end..].iter().position(|&byte| byte != 0);
    assert_eq!(old, None, "something stands behind the last batch");
    assert!(freed.contains(&inode), "the active segment's file was another segment's");
    engine.kill();
    let (_engine, log) = place.open(&Config::default());
    let offsets: Vec<i64> = read_all(&log).iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets.last(), Some(&i64::from(BATCHES + 24)));
    assert_eq!(put(&log, &single(7, BATCHES + 25, 10)).base_offset, i64::from(BATCHES + 25));
}

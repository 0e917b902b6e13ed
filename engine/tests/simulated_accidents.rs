//! Accidents that the simulator found, each as the shortest story of it.

mod common;

use common::{
    NAME, NOW_MS, Place, batch, expect_duplicate, put, put_as, read_all, read_committed, single, small_segments,
    txn_batch,
};
use oncelog::{Ack, Append, Appended, Config, Engine, Isolation, Log, OpenOptions, Outcome, Read};
use oncelog_device::{Device, FaultOp, MemoryDevice, SectorDamage};
use oncelog_formats::BatchBuilder;
use oncelog_formats::control::end_txn_marker_batch;

fn place() -> (MemoryDevice, Place) {
    let device = MemoryDevice::new();
    let place = Place::in_memory(&device);
    (device, place)
}

fn expiring_after(ms: i64) -> Config {
    Config { producer_id_expiration_ms: ms, ..small_segments(1 << 20) }
}

fn delete_below(log: &Log, offset: i64) {
    assert_eq!(log.delete_records(offset).expect("a deletion"), offset);
    log.apply_retention().expect("retention");
}

/// The device stops at so many operations of a first opening; the next one is whole.
fn open_after_an_interrupted_opening(
    device: &MemoryDevice,
    place: &Place,
    config: &Config,
    operations: u64,
) -> (Engine, Log) {
    device.crash_after(operations);
    if let Ok(engine) = place.try_engine() {
        let _ = engine.log(NAME, common::options(config));
        engine.kill();
    }
    device.kill();
    place.open(config)
}

/// The snapshot is older than the expiry, what follows it is not: expiry used to be decided by the snapshot alone.
#[test]
fn a_producer_that_was_silent_when_the_snapshot_was_taken_is_known_after_a_crash() {
    let (device, place) = place();
    let (engine, log) = place.open(&expiring_after(20_000));
    let first = put(&log, &single(7, 0, 10));
    log.snapshot().expect("a snapshot");
    place.clock.advance(15_000);
    put(&log, &single(7, 1, 10));
    place.clock.advance(10_000);
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&expiring_after(20_000));
    expect_duplicate(&log, &single(7, 0, 10), &first);
}

/// Replayed batches used to be as old as their clients' timestamps say.
#[test]
fn records_of_long_ago_do_not_make_their_producer_expire_after_a_crash() {
    let (device, place) = place();
    place.clock.advance(200_000);
    let (engine, log) = place.open(&expiring_after(20_000));
    put(&log, &single(1, 0, 10));
    place.clock.set_ms(NOW_MS + 400_000);
    log.snapshot().expect("a snapshot");
    let first = put(&log, &batch(7, 0, &["of long ago".to_string()]));
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&expiring_after(20_000));
    assert!(!log.expire_producers().expect("expiry").contains(&7));
    expect_duplicate(&log, &batch(7, 0, &["of long ago".to_string()]), &first);
}

/// The epochs used to go before the log start was stored, and stayed away when it was not.
#[test]
fn a_log_start_that_cannot_be_stored_takes_no_epochs_with_it() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 10));
    put(&log, &single(7, 1, 10));
    device.plant(FaultOp::Space, 0, 1);
    assert!(log.delete_records(2).expect_err("no space").is_full());
    log.drive().expect("upkeep");
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!((log.log_start_offset(), log.end_offset_for_epoch(0)), (0, (0, 2)));
}

/// A directory without segments used to be a new log, whatever the checkpoint promised.
#[test]
fn a_log_whose_segments_are_all_gone_is_damaged_and_not_new() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 10));
    drop(log);
    engine.close().expect("a close");
    oncelog_device::Device::remove(&device, &place.file("00000000000000000000.log")).expect("a healthy disk");
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.report().damage.first().map(|damage| damage.offset), Some(0));
    assert!(log.append(Append::client(&single(8, 0, 10))).expect_err("read-only").is_corruption());
}

/// Zeroes at the end of a closed segment used to be cut like a prepared tail, and all segments behind it dropped.
#[test]
fn a_closed_segment_cut_short_is_damaged_and_those_behind_it_stay() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 10));
    put(&log, &single(7, 1, 10));
    log.roll().expect("a roll");
    put(&log, &single(7, 2, 10));
    engine.kill();
    device.kill();
    let first = place.file("00000000000000000000.log");
    let mut bytes = device.contents(&first).expect("a healthy disk").expect("a segment");
    let length = bytes.len();
    bytes[length / 2..].fill(0);
    device.put(&first, &bytes).expect("a healthy disk");
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.report().damage.first().map(|damage| damage.offset), Some(1));
    let behind = log.read(Read { isolation: Isolation::LogEnd, ..Read::from(2) }).expect("what is whole can be read");
    assert!(!behind.data.is_empty());
}

/// Power cuts take the end of a log all of whose records were deleted, so that it begins again at its start. The batch
/// of producer 7 with this sequence, which `fill` answers, must be known through two crashes.
fn expect_known_where_a_log_begins_again(seeds: u64, sequence: i32, fill: impl Fn(&Log) -> Appended) {
    let options = || OpenOptions { high_watermark_follows_end: false, ..common::options(&small_segments(1 << 20)) };
    let mut begun_again = 0;
    for seed in 0..seeds {
        let (device, place) = place();
        let engine = place.engine();
        let log = engine.log(NAME, options()).expect("the log opens");
        let newest = fill(&log);
        let end = put_as(&log, &single(8, 0, 3_000), Ack::Written).last_offset + 1;
        log.set_high_watermark(end).expect("a high watermark");
        log.delete_records(end).expect("all records go");
        engine.kill();
        device.power_cut(seed);
        for _ in 0..2 {
            let engine = place.engine();
            let log = engine.log(NAME, options()).expect("the log opens");
            begun_again += usize::from(log.report().repaired.iter().any(|said| said.contains("below the log start")));
            expect_duplicate(&log, &single(7, sequence, 10), &newest);
            engine.kill();
            device.kill();
        }
    }
    assert!(begun_again > 0, "no seed lost the tail");
}

/// Who is remembered by a log that begins again at its start was in memory alone: the second crash forgot.
#[test]
fn producers_of_a_log_that_begins_again_survive_a_second_crash() {
    expect_known_where_a_log_begins_again(40, 0, |log| put(log, &single(7, 0, 10)));
}

/// A crash while a log began anew used to leave one whose own recovery point called it damaged.
#[test]
fn a_crash_while_a_log_begins_anew_leaves_no_damage() {
    for steps in 0..60 {
        let (device, place) = place();
        let (engine, log) = place.open(&small_segments(1 << 20));
        put(&log, &single(7, 0, 10));
        log.sync().expect("a sync");
        device.crash_after(steps);
        let begun = log.truncate_fully_and_start_at(5, None);
        engine.kill();
        device.power_cut(steps);
        let (_engine, log) = place.open(&small_segments(1 << 20));
        assert_eq!(log.report().damage, [], "the power went after {steps} steps");
        assert!(begun.is_err() || log.log_end_offset() == 5);
    }
}

/// The batch behind the hole is staged only; a read of what lies before the hole used to take its place for damage.
#[test]
fn a_read_up_to_a_hole_does_not_run_into_what_is_staged_behind_it() {
    let (_device, place) = place();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 10));
    put(&log, &batch(7, 1, &["two".to_string(), "records".to_string()]));
    assert_eq!(log.truncate_to(2).expect("a truncation inside a batch"), 2);
    let staged = log.append(Append::client(&single(8, 0, 10)).ack(Ack::Accepted)).expect("an append");
    assert_eq!(staged.expected().base_offset, 2);
    let fetched = log.read(Read::from(0)).expect("a read");
    assert_eq!(oncelog_formats::Batches::new(&fetched.data).count(), 1);
}

/// The sync of a side file's name failed, and with it that of the new segment's name, which was still open.
#[test]
fn a_failed_sync_of_a_side_file_loses_no_segment() {
    for after in 0..12 {
        for seed in 0..12 {
            let (device, place) = place();
            let (engine, log) = place.open(&small_segments(1 << 20));
            put(&log, &single(7, 0, 10));
            device.plant(FaultOp::Sync, after, 1);
            let _ = log.roll();
            let answer = log.append(Append::client(&single(7, 1, 10))).and_then(|ticket| ticket.wait());
            engine.kill();
            device.clear_faults();
            device.power_cut(seed);
            let (_engine, log) = place.open(&small_segments(1 << 20));
            assert_eq!(log.report().damage, []);
            let durable = answer.is_ok_and(|answer| answer.outcome == Outcome::Appended);
            assert!(read_all(&log).len() > usize::from(durable), "sync {after}, seed {seed}");
        }
    }
}

/// The first segment lost its data and was cut; a crash before the second one went left a gap that nobody had to
/// explain.
#[test]
fn a_crash_while_segments_behind_a_cut_are_dropped_leaves_no_hole() {
    for (steps, seed) in (0..40).flat_map(|steps| (0..10).map(move |seed| (steps, seed))) {
        let (device, place) = place();
        let (engine, log) = place.open(&small_segments(1 << 20));
        put_as(&log, &single(7, 0, 3_000), Ack::Written);
        engine.kill();
        device.kill();
        let first = place.file("00000000000000000000.log");
        device.put(&first, &[0; 20_480]).expect("a healthy disk");
        for behind in ["00000000000000000008.log", "00000000000000000009.log"] {
            device.put(&place.file(behind), &[0; 4_096]).expect("a healthy disk");
        }
        device.crash_after(steps);
        if let Ok(engine) = place.try_engine() {
            let _ = engine.log(NAME, common::options(&small_segments(1 << 20)));
            engine.kill();
        }
        device.power_cut(seed);
        let (_engine, log) = place.open(&small_segments(1 << 20));
        assert_eq!(log.report().damage, []);
        assert_eq!(log.log_end_offset(), 0, "the power went after {steps} steps, seed {seed}");
    }
}

fn abort(log: &Log, producer: i64) {
    let marker = end_txn_marker_batch(0, 0, producer, 0, false, 0, NOW_MS);
    log.append_wait(Append::coordinator(&marker)).expect("a marker");
}

/// The recovery point passed a segment whose `.txnindex` lacked the newest abort; behind the roll nobody read its
/// batches again, and aborted records were handed out as committed ones.
#[test]
fn an_abort_below_the_recovery_point_is_known_behind_a_roll_and_a_crash() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(2_000));
    put(&log, &txn_batch(7, 0, &["aborted".to_string()]));
    abort(&log, 7);
    engine.kill();
    let (engine, log) = place.open(&small_segments(2_000));
    put(&log, &txn_batch(7, 1, &["aborted".to_string()]));
    abort(&log, 7);
    log.sync().expect("a recovery point");
    put(&log, &single(8, 0, 1_900));
    assert_eq!(log.describe().expect("a state").segments.len(), 2);
    engine.kill();
    device.power_cut(1);
    let (_engine, log) = place.open(&small_segments(2_000));
    assert_eq!(read_committed(&log).len(), 1);
}

/// The marker is newer than the newest batch; the entry that ends with the same batch used to say when that was.
#[test]
fn a_producer_whose_transaction_has_just_ended_is_known_after_a_crash() {
    let (device, place) = place();
    let (engine, log) = place.open(&expiring_after(20_000));
    let first = put(&log, &txn_batch(7, 0, &["committed".to_string()]));
    log.roll().expect("a roll");
    place.clock.advance(9_000);
    abort(&log, 7);
    place.clock.advance(18_000);
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&expiring_after(20_000));
    expect_duplicate(&log, &txn_batch(7, 0, &["committed".to_string()]), &first);
}

/// A read that asked for one batch answered with the damage behind it.
#[test]
fn a_read_of_one_batch_is_not_told_of_damage_behind_it() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    for sequence in 0..4 {
        put(&log, &single(7, sequence, 1_000));
    }
    log.roll().expect("a roll");
    put(&log, &single(7, 4, 10));
    drop(log);
    engine.close().expect("a close");
    let first = place.file("00000000000000000000.log");
    let mut bytes = device.contents(&first).expect("a healthy disk").expect("a segment");
    let third = bytes.len() / 4 * 2;
    bytes[third..third + 61].fill(0);
    device.put(&first, &bytes).expect("a healthy disk");
    let (_engine, log) = place.open(&small_segments(1 << 20));
    let read = |offset| log.read(Read { isolation: Isolation::LogEnd, max_bytes: 1, ..Read::from(offset) });
    assert_eq!(read(1).expect("a whole batch").next_offset, 2);
    assert!(read(2).expect_err("no batch").is_corruption());
    assert_eq!(read(3).expect("a whole batch").next_offset, 4);
}

/// A read that made staged batches durable named the high watermark behind them and showed none of them.
#[test]
fn a_read_shows_what_lies_below_the_high_watermark_that_it_names() {
    let (_device, place) = place();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    put_as(&log, &batch(7, 0, &["two".to_string(), "records".to_string()]), Ack::Accepted);
    assert_eq!(log.truncate_to(1).expect("a truncation inside a batch"), 1);
    let tickets: Vec<_> = [Ack::Accepted, Ack::Written, Ack::Durable]
        .into_iter()
        .zip(0..)
        .map(|(ack, sequence)| log.append(Append::client(&single(8, sequence, 10)).ack(ack)).expect("an append"))
        .collect();
    let fetched = log.read(Read::from(0)).expect("a read");
    assert_eq!(fetched.data.is_empty(), fetched.high_watermark == 1, "{fetched:?}");
    drop(tickets);
}

/// The same where a segment before the last one had already left something to remember: it was written over what came
/// later.
#[test]
fn a_log_that_begins_again_remembers_the_last_that_was_known_of_its_producers() {
    expect_known_where_a_log_begins_again(20, 1, |log| {
        put(log, &single(7, 0, 10));
        log.roll().expect("a roll");
        let newest = put(log, &single(7, 1, 10));
        log.snapshot().expect("a snapshot");
        newest
    });
}

/// The last bytes of a segment that was used again stood behind its zeroes, and looked like a torn tail.
#[test]
fn a_file_that_is_used_again_holds_nothing_of_the_segment_that_it_was() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 5_000));
    log.roll().expect("a roll");
    put(&log, &single(7, 1, 10));
    log.delete_records(1).expect("the first record goes");
    assert_eq!(log.apply_retention().expect("retention"), [0]);
    place.clock.advance(Config::default().file_delete_delay_ms.unsigned_abs());
    for _ in 0..3 {
        log.drive().expect("the file comes back");
    }
    log.roll().expect("a roll");
    let used = device.contents(&place.file("00000000000000000002.log")).expect("a healthy disk").expect("a segment");
    assert!(used.len() > 5_000, "another file was used");
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.report().cut, []);
}

/// A batch that had gone bad before the offset of a truncation was taken for the hole that a truncation leaves.
#[test]
fn a_truncation_says_what_it_cannot_read_of_the_records_that_it_leaves() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    for sequence in 0..3 {
        put(&log, &single(7, sequence, 600));
    }
    let first = place.file("00000000000000000000.log");
    device.damage_sector(&first, 900, SectorDamage::Flipped).expect("a healthy disk");
    assert!(log.truncate_to(2).expect_err("the second batch is bad").is_corruption());
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.report().damage.first().map(|damage| damage.offset), Some(1));
}

/// A flipped bit in an index said that the file had lost offsets which the next segment holds.
#[test]
fn an_index_that_knows_offsets_of_the_next_segment_is_wrong_itself() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 600));
    put(&log, &single(7, 1, 600));
    put(&log, &batch(7, 2, &["two".to_string(), "records".to_string()]));
    assert_eq!(log.truncate_to(3).expect("a truncation inside a batch"), 3);
    log.roll().expect("a roll");
    put(&log, &single(8, 0, 10));
    engine.close().expect("a close");
    let path = place.file("00000000000000000000.index");
    let mut index = device.contents(&path).expect("a healthy disk").expect("an index");
    let last = index.len() - 8;
    index[last + 2] ^= 0x40;
    device.put(&path, &index).expect("a healthy disk");
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.report().damage, []);
    assert_eq!(read_all(&log).len(), 3);
}

/// After a crash nobody knew any more that the marker lay above the high watermark; the truncation that took it left
/// the transaction open, and what nobody had decided was shown as committed.
#[test]
fn a_transaction_whose_marker_a_truncation_takes_holds_committed_readers_back() {
    let options = || OpenOptions { high_watermark_follows_end: false, ..common::options(&small_segments(1 << 20)) };
    let (device, place) = place();
    let engine = place.engine();
    let log = engine.log(NAME, options()).expect("the log opens");
    put(&log, &txn_batch(7, 0, &["undecided".to_string()]));
    put(&log, &single(8, 0, 10));
    abort(&log, 7);
    log.set_high_watermark(1).expect("a high watermark");
    log.sync().expect("a recovery point");
    engine.kill();
    device.kill();
    let engine = place.engine();
    let log = engine.log(NAME, options()).expect("the log opens");
    assert_eq!(read_committed(&log), [], "aborted");
    log.truncate_to(2).expect("a truncation");
    assert_eq!(read_committed(&log), []);
}

/// A checkpoint file whose name was not yet on disk said the same already, and was not written again.
#[test]
fn a_log_start_is_stored_again_when_the_first_time_had_failed() {
    for seed in 0..20 {
        let (device, place) = place();
        let (engine, log) = place.open(&small_segments(1 << 20));
        put(&log, &single(7, 0, 10));
        device.plant(FaultOp::Sync, 1, 1);
        assert!(log.delete_records(1).is_err());
        assert_eq!(log.delete_records(1).expect("the record goes"), 1);
        engine.kill();
        device.power_cut(seed);
        let (_engine, log) = place.open(&small_segments(1 << 20));
        assert_eq!(log.log_start_offset(), 1, "seed {seed}");
    }
}

/// The log start used to stay in its file when the deletion that had put it there failed behind that, and took the
/// records that a truncation below it made room for.
#[test]
fn a_deletion_that_failed_half_way_takes_no_records_that_come_later() {
    let mut failed_half_way = 0;
    for after in 0..6 {
        let (device, place) = place();
        let (engine, log) = place.open(&small_segments(1 << 20));
        put(&log, &batch(7, 0, &["cut".into(), "cut".into()]));
        device.plant(FaultOp::Read, after, 2);
        let deleted = log.delete_records(2);
        device.clear_faults();
        failed_half_way += u32::from(deleted.is_err());
        log.truncate_to(0).expect("a truncation");
        put(&log, &single(8, 0, 10));
        engine.kill();
        device.power_cut(after);
        let (_engine, log) = place.open(&small_segments(1 << 20));
        assert_eq!((log.log_start_offset(), read_all(&log).len()), (0, 1), "the deletion: {deleted:?}");
    }
    assert!(failed_half_way > 1, "no deletion failed behind its file");
}

/// The index of aborted transactions used to be cut when the segments behind were gone already, and the log was
/// latched.
#[test]
fn a_truncation_that_finds_no_space_cuts_nothing_and_latches_nothing() {
    for after in 0..2 {
        let (device, place) = place();
        let (_engine, log) = place.open(&small_segments(1 << 20));
        let txn = put(&log, &txn_batch(7, 0, &["aborted".into()]));
        log.append_wait(Append::coordinator(&end_txn_marker_batch(0, 0, 7, 0, false, 0, NOW_MS))).expect("a marker");
        log.roll().expect("a roll");
        let kept = put(&log, &single(8, 0, 10));
        let whole = read_all(&log);
        log.sync().expect("a checkpoint");
        device.plant(FaultOp::Space, after, 1);
        assert!(log.truncate_to(1).expect_err("no space").is_full());
        assert_eq!(read_all(&log), whole);
        expect_duplicate(&log, &single(8, 0, 10), &kept);
        log.truncate_to(1).expect("there is space again");
        assert_eq!((log.log_end_offset(), log.last_stable_offset()), (1, txn.base_offset));
    }
}

/// With the offset index on disk and the time index not, a segment below the recovery point used to have no timestamps.
#[test]
fn a_crash_between_two_indexes_hides_no_timestamp() {
    let mut interrupted = 0;
    for operations in 0..40 {
        let (device, place) = place();
        let (engine, log) = place.open(&small_segments(1 << 20));
        let mut late = BatchBuilder::new().producer(8, 0, 0);
        late.append(NOW_MS + 5, None, Some(b"of the future"), &[]);
        put(&log, &late.build().expect("a batch"));
        for sequence in 0..20 {
            put(&log, &single(7, sequence, 100));
        }
        log.sync().expect("a sync at the end");
        device.crash_after(operations);
        let rolled = log.roll().is_ok() && log.drive().is_ok();
        interrupted += u32::from(!rolled);
        engine.kill();
        device.power_cut(operations);
        let (_engine, log) = place.open(&small_segments(1 << 20));
        put(&log, &single(7, 20, 100));
        let found = log.offset_for_timestamp(NOW_MS + 5).expect("a look");
        assert_eq!(found, Some((0, NOW_MS + 5)), "{operations} operations");
    }
    assert!((10..40).contains(&interrupted), "{interrupted} rolls were interrupted");
}

/// A high watermark in a damaged batch used to go to the log end, past what the leader had named.
#[test]
fn damage_moves_no_high_watermark() {
    let (device, place) = place();
    let engine = place.engine();
    let options = OpenOptions { high_watermark_follows_end: false, ..common::options(&small_segments(1 << 20)) };
    let log = engine.log(NAME, options).expect("the log opens");
    for sequence in 0..3 {
        put(&log, &single(7, sequence, 600));
    }
    log.set_high_watermark(1).expect("a high watermark");
    let file = place.file("00000000000000000000.log");
    device.damage_sector(&file, 512, SectorDamage::Zeroed).expect("a healthy disk");
    let _ = log.read(Read::from(0));
    assert_eq!((log.high_watermark(), log.last_stable_offset()), (1, 1));
}

/// An opening that was interrupted when it had removed the segments below the log start used to be followed by one that
/// forgot their producers.
#[test]
fn producers_of_a_log_that_begins_again_survive_interrupted_openings() {
    for operations in 0..100 {
        let (device, place) = place();
        let config = small_segments(1 << 20);
        let (engine, log) = place.open(&config);
        let first = put(&log, &single(7, 0, 10));
        put(&log, &batch(8, 0, &["deleted".into(), "cut".into()]));
        log.delete_records(2).expect("records go");
        // Inside the batch, so that the log ends below its start.
        log.truncate_to(2).expect("a truncation");
        put(&log, &batch(9, 0, &["cut".into(), "cut".into()]));
        log.truncate_to(3).expect("a truncation");
        engine.kill();
        let (_engine, log) = open_after_an_interrupted_opening(&device, &place, &config, operations);
        expect_duplicate(&log, &single(7, 0, 10), &first);
    }
}

/// A flipped bit in a time index used to be believed: records were passed over, or said not to be there.
#[test]
fn a_damaged_time_index_hides_no_record() {
    let name = "00000000000000000000.timeindex";
    let written = |place: &Place| {
        let (engine, log) = place.open(&small_segments(1 << 20));
        for sequence in 0..12 {
            let mut batch = BatchBuilder::new().producer(7, 0, sequence);
            batch.append(NOW_MS + i64::from(sequence / 3), None, Some(&[1; 100]), &[]);
            put(&log, &batch.build().expect("a batch"));
        }
        log.roll().expect("a roll");
        put(&log, &single(8, 0, 10));
        drop(log);
        engine.close().expect("a close");
    };
    let (mut position, mut length) = (0, 1);
    while position < length {
        let (device, place) = place();
        written(&place);
        let mut bytes = device.contents(&place.file(name)).expect("a healthy disk").expect("a time index");
        length = bytes.len();
        bytes[position] ^= 1;
        device.put(&place.file(name), &bytes).expect("a healthy disk");
        let (_engine, log) = place.open(&small_segments(1 << 20));
        for step in 0..4 {
            let expected = Some((step * 3, NOW_MS + step));
            assert_eq!(
                log.offset_for_timestamp(NOW_MS + step).expect("a look"),
                expected,
                "byte {position} of {length}"
            );
        }
        position += 1;
    }
    assert!(length >= 36, "only {length} bytes of index");
}

/// A record of producer 7 in a segment that goes, and one in the next, of which no snapshot stands at its base: a crash
/// may have come before it was written. Answers what the first was told.
fn begin_before_what_stays(device: &MemoryDevice, place: &Place, log: &Log) -> Appended {
    let first = put(log, &single(7, 0, 10));
    log.roll().expect("a roll");
    put(log, &single(7, 1, 10));
    put(log, &single(8, 0, 10));
    log.drive().expect("upkeep");
    delete_below(log, 2);
    assert!(device.remove(&place.file("00000000000000000001.snapshot")).expect("a healthy disk"));
    first
}

/// An opening writes the snapshots of segments in doubt anew, from what it has read: that used to take from them the
/// batches of segments that were gone. A truncation brings those back into the window.
#[test]
fn a_snapshot_written_anew_keeps_the_batches_of_segments_that_are_gone() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    let first = begin_before_what_stays(&device, &place, &log);
    log.roll().expect("a roll");
    let end = put(&log, &single(7, 2, 10)).last_offset + 1;
    for sequence in 3..6 {
        put(&log, &single(7, sequence, 10));
    }
    log.snapshot().expect("a snapshot");
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    assert_eq!(log.truncate_to(end).expect("a truncation"), end);
    expect_duplicate(&log, &single(7, 0, 10), &first);
}

/// A truncation that no snapshot helps reads the segments again; what memory knew beyond them used to count only for
/// producers that were not found there.
#[test]
fn a_truncation_without_a_snapshot_keeps_the_batches_of_segments_that_are_gone() {
    let (device, place) = place();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    let first = begin_before_what_stays(&device, &place, &log);
    let end = put(&log, &single(7, 2, 10)).last_offset + 1;
    put(&log, &single(7, 3, 10));
    assert_eq!(log.truncate_to(end).expect("a truncation"), end);
    expect_duplicate(&log, &single(7, 0, 10), &first);
}

/// What was remembered of an emptied log used to count as all that there is of a producer, against a later snapshot.
#[test]
fn an_old_memory_of_a_producer_does_not_hide_a_newer_snapshot() {
    let (device, place) = place();
    let (engine, log) = place.open(&small_segments(1 << 20));
    put(&log, &single(7, 0, 10));
    log.roll().expect("a roll");
    delete_below(&log, 1);
    engine.kill();
    device.kill();
    let (engine, log) = place.open(&small_segments(1 << 20));
    let second = put(&log, &single(7, 1, 10));
    log.roll().expect("a roll");
    put(&log, &single(8, 0, 10));
    log.drive().expect("upkeep");
    delete_below(&log, 2);
    assert!(device.remove(&place.file("00000000000000000002.snapshot")).expect("a healthy disk"));
    log.snapshot().expect("a snapshot");
    engine.kill();
    device.kill();
    let (_engine, log) = place.open(&small_segments(1 << 20));
    expect_duplicate(&log, &single(7, 1, 10), &second);
}

/// The newest snapshot at the log start becomes a file of ours. A crash before the older ones were removed used to
/// leave one of them as the newest that there is.
#[test]
fn a_crash_while_old_snapshots_are_removed_forgets_no_batch() {
    let retention_bytes = single(8, 0, 10).len() as i64;
    let config = Config { retention_bytes, ..small_segments(1 << 20) };
    for operations in 0..100 {
        let (device, place) = place();
        let (engine, log) = place.open(&config);
        put(&log, &single(7, 0, 10));
        log.snapshot().expect("a snapshot");
        let second = put(&log, &single(7, 1, 10));
        log.roll().expect("a roll");
        put(&log, &single(8, 0, 10));
        assert_eq!(log.apply_retention().expect("retention"), [0]);
        log.sync().expect("a checkpoint");
        engine.kill();
        let (_engine, log) = open_after_an_interrupted_opening(&device, &place, &config, operations);
        expect_duplicate(&log, &single(7, 1, 10), &second);
    }
}

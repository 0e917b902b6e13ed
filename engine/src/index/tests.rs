use super::*;

const BASE: i64 = 100;

fn config(segment_index_bytes: u64, index_interval_bytes: u64) -> Config {
    Config { segment_index_bytes, index_interval_bytes, ..Config::default() }
}

/// Batches of one offset and 100 bytes each.
fn add(index: &mut SegmentIndex, number: i64, max_timestamp: i64) -> bool {
    index.append(100 * number as u64, 100, BASE + number, max_timestamp)
}

fn filled(interval_bytes: u64, timestamps: &[i64]) -> SegmentIndex {
    let mut index = SegmentIndex::new(BASE, &config(1 << 20, interval_bytes));
    for (number, timestamp) in (0..).zip(timestamps) {
        add(&mut index, number, *timestamp);
    }
    index
}

fn offsets(index: &SegmentIndex) -> Vec<(i64, u32)> {
    index.offset_entries().iter().map(|entry| (entry.offset - BASE, entry.position)).collect()
}

fn times(index: &SegmentIndex) -> Vec<(i64, i64)> {
    index.time_entries().iter().map(|entry| (entry.timestamp, entry.offset - BASE)).collect()
}

#[test]
fn an_entry_is_due_once_more_than_the_interval_was_written() {
    let index = filled(200, &[10, 20, 30, 40, 50, 60, 70]);
    // The fourth batch is the first with more than 200 bytes before it; its own bytes count for the next entry.
    assert_eq!(offsets(&index), [(3, 300), (6, 600)]);
    assert_eq!(times(&index), [(40, 3), (70, 6)]);
    assert_eq!(offsets(&filled(0, &[10, 20, 30])), [(1, 100), (2, 200)]);
}

#[test]
fn only_a_strictly_larger_timestamp_moves_the_maximum() {
    let index = filled(0, &[30, 10, 30, 40, 40]);
    assert_eq!(times(&index), [(30, 0), (40, 3)]);
    assert_eq!(index.largest(), Some(TimeEntry { timestamp: 40, offset: BASE + 3 }));
    let mut none = filled(0, &[-1, -1, -1]);
    assert_eq!((none.largest_timestamp(), none.seal()), (-1, false));
    assert_eq!((offsets(&none).len(), times(&none).len()), (2, 0));
}

#[test]
fn sealing_adds_the_final_time_entry_once() {
    let mut index = filled(200, &[10, 20, 30, 40, 50]);
    assert_eq!((index.seal(), index.seal()), (true, false));
    assert_eq!(times(&index), [(40, 3), (50, 4)]);
    assert_eq!(offsets(&index), [(3, 300)]);
}

#[test]
fn sealing_uses_the_reserved_slot() {
    let mut index = SegmentIndex::new(BASE, &config(36, 0));
    for number in 0..3 {
        assert!(!index.is_full());
        add(&mut index, number, 10 * (number + 1));
    }
    assert!(index.is_full());
    assert!(!add(&mut index, 3, 40));
    assert!(index.seal());
    assert_eq!(times(&index), [(20, 1), (30, 2), (40, 3)]);
}

#[test]
fn what_does_not_follow_or_fit_is_left_out() {
    let mut index = filled(0, &[10, 20, 30]);
    assert!(!add(&mut index, 2, 30));
    assert!(!index.append(300, 100, BASE + (1 << 31), 99));
    assert_eq!((offsets(&index), times(&index)), (vec![(1, 100), (2, 200)], vec![(20, 1), (30, 2)]));
    assert!(add(&mut index, 3, 40));
    assert_eq!(times(&index).last(), Some(&(40, 3)));
}

#[test]
fn files_give_the_same_index_back() {
    let mut index = filled(150, &[10, 20, 15, 40, 40, 60]);
    index.seal();
    index.restart_counter();
    let [offset_file, time_file] = index.encode().unwrap();
    let (read, findings) = SegmentIndex::from_bytes(BASE, &config(1 << 20, 150), &offset_file, &time_file);
    assert!(findings.iter().all(IndexFindings::is_clean));
    assert_eq!(read, index);
    assert_eq!((read.lookup_offset(BASE + 3).position, read.lookup_offset(BASE).position), (200, 0));
    assert_eq!(read.lookup_timestamp(39).offset, BASE + 1);
}

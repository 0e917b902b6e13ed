//! Writes of many files on the way at once: all of them land, whole, each with its own answer.

use super::{BLOCK, pattern};
use oncelog_device::{AlignedBuffer, Device, LANE_DEPTH, Lane, LaneWrite, OpenMode, Sync, UringDevice};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn ring() -> Option<UringDevice> {
    UringDevice::new().inspect_err(|why| println!("skipped: {why}")).ok()
}

#[test]
fn writes_of_many_files_land_whole_each_with_its_own_answer() {
    let Some(device) = ring() else { return };
    let lane = || device.lane().expect("a lane beside a ring");
    for lane in [lane(), lane().bind()] {
        all_land(&device, lane);
    }
}

fn all_land(device: &UringDevice, mut lane: Lane) {
    let directory = tempfile::tempdir().expect("a directory");
    let open = |number: usize| {
        let file = device.open(&directory.path().join(number.to_string()), OpenMode::Create).expect("a new file");
        file.prepare(0, 4 * BLOCK).expect("space");
        file
    };
    let files: Vec<_> = (0..LANE_DEPTH).map(open).collect();
    let write = |tag: usize, position| {
        let (file, buffer) = (files[tag].clone(), pattern(2 * BLOCK as usize, tag as u64));
        let sync = if tag.is_multiple_of(2) { Sync::Data } else { Sync::None };
        LaneWrite { tag: tag as u64, file, position, buffer, length: 2 * BLOCK as usize, sync }
    };
    for tag in 0..LANE_DEPTH {
        // One of them lies behind what is prepared, and is refused alone.
        lane.push(write(tag, if tag == 5 { 3 * BLOCK } else { BLOCK }));
    }
    let mut landed = Vec::new();
    while landed.len() < LANE_DEPTH {
        landed.extend(lane.wait(None, || false));
    }
    for (write, result) in landed {
        assert_eq!(result.is_err(), write.tag == 5, "{result:?}");
        let mut stored = AlignedBuffer::new(2 * BLOCK as usize);
        write.file.read(BLOCK, stored.as_mut_slice()).expect("readable");
        let expected = if write.tag == 5 { AlignedBuffer::new(2 * BLOCK as usize) } else { write.buffer };
        assert!(stored.as_slice() == expected.as_slice(), "file {}", write.tag);
    }
    assert!(lane.has_room());
    // What is on the way when the lane goes is written all the same, from memory that lives as long.
    lane.push(write(7, 0));
    assert!(lane.wait(None, || true).len() <= 1);
    drop(lane);
    let mut stored = AlignedBuffer::new(2 * BLOCK as usize);
    files[7].read(0, stored.as_mut_slice()).expect("readable");
    assert!(stored.as_slice() == pattern(2 * BLOCK as usize, 7).as_slice());
}

#[test]
fn the_bell_wakes_who_waits_and_so_does_the_time() {
    let Some(device) = ring() else { return };
    let lane = || device.lane().expect("a lane beside a ring");
    for lane in [lane(), lane().bind()] {
        wakes(lane);
    }
}

fn wakes(mut lane: Lane) {
    let started = Instant::now();
    assert!(lane.wait(Some(Duration::from_millis(20)), || false).is_empty());
    assert!(started.elapsed() >= Duration::from_millis(20));
    let bell = lane.bell();
    for _ in 0..3 {
        let work = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let (bell, told) = (bell.clone(), work.clone());
        let ringer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            told.store(true, std::sync::atomic::Ordering::Release);
            bell.ring();
        });
        let is_due = || work.load(std::sync::atomic::Ordering::Acquire);
        let started = Instant::now();
        while !is_due() {
            assert!(lane.wait(Some(Duration::from_secs(20)), is_due).is_empty());
        }
        assert!(started.elapsed() < Duration::from_secs(10), "the ring of the bell was missed");
        ringer.join().expect("rung");
    }
}

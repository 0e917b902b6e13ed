use oncelog_device::{DeviceKind, ManualClock, MemoryDevice};
use oncelog_formats::BatchBuilder;

use super::*;
use crate::{Append, Config, Engine, EngineOptions, Log, OpenOptions};

fn append(log: &Log, sequence: i32) {
    for producer in 0..640 {
        let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
        builder.append(0, None, Some(b"value"), &[]);
        log.append_wait(Append::client(&builder.build().expect("a batch"))).expect("an answer");
    }
}

#[test]
fn a_view_finds_what_stood_there_when_it_was_told_so() {
    let clock = Arc::new(ManualClock::new(1_000_000));
    let options = EngineOptions {
        device: Some(Arc::new(MemoryDevice::new())),
        device_kind: DeviceKind::Memory,
        clock: Some(clock.clone()),
        driver: false,
        ..EngineOptions::default()
    };
    let engine = Engine::open(std::path::Path::new("/data"), options).expect("the engine opens");
    let config = Config { producer_memory_bytes: 1, ..Config::default() };
    let log = engine.log("spill-0", OpenOptions { config, ..OpenOptions::default() }).expect("the log opens");
    let spill = || {
        clock.advance(RETRY_MS.cast_unsigned());
        (0..3).for_each(|_| log.shared.spill().expect("blocks go"));
        assert_eq!(log.shared.state.lock().producers.spilled(), 10);
    };
    // Two batches, so that lines and places stay as large as they are.
    (0..2).for_each(|sequence| append(&log, sequence));
    spill();
    let (view, mut blocks) = {
        let mut state = log.shared.state.lock();
        let mut view = state.producers.freeze();
        let blocks = state.producers.read_frozen(&mut view, usize::MAX);
        (view, blocks)
    };
    assert!(blocks.iter().all(|block| block.spilled.is_some()));
    append(&log, 2);
    spill();
    log.shared.fill(&mut blocks).expect("as written");
    let entries = blocks.iter().flat_map(FrozenBlock::entries);
    assert!(entries.into_iter().all(|(_, entry)| entry.last_sequence() == 1));
    let before = log.shared.state.lock().spill.end;
    log.shared.state.lock().producers.thaw(view);
    append(&log, 3);
    spill();
    append(&log, 4);
    spill();
    assert_eq!(log.shared.state.lock().spill.end, before, "behind the view places are used again");
}

#[test]
fn a_place_is_used_again_when_nobody_can_read_it_any_more() {
    let mut spill = Spill::default();
    let [first, second] = [spill.allocate(2, true), spill.allocate(1, true)].map(position_of);
    spill.freed = vec![(first, 2), (second, 1)];
    assert_ne!(position_of(spill.allocate(2, false)), first, "a view may read it");
    spill.reading = 1;
    assert_ne!(position_of(spill.allocate(2, true)), first, "somebody reads");
    spill.reading = 0;
    assert_eq!(position_of(spill.allocate(2, true)), first);
    assert_eq!(position_of(spill.allocate(1, true)), second);
    assert_eq!(position_of(spill.allocate(1, true)), spill.end - BLOCK_BYTES as u64, "each is used once");
}

#[test]
fn only_what_was_written_there_is_taken_back() {
    let lines: Vec<u64> = (0..64 * 11).collect();
    let (place, other) = (place_at(8192, 7), place_at(8192, 8));
    let bytes = encode(3, &lines, place).as_mut_slice().to_vec();
    assert_eq!(decode(&bytes, 3, place, lines.len()), Some(lines.clone()));
    assert_eq!(decode(&bytes, 4, place, lines.len()), None, "another block");
    assert_eq!(decode(&bytes, 3, other, lines.len()), None, "another writing");
    assert_eq!(decode(&bytes, 3, place, lines.len() - 1), None, "other lines");
    for at in [0, 8, 12, HEAD_BYTES, HEAD_BYTES + lines.len() * 8 - 1] {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        assert_eq!(decode(&bytes, 3, place, lines.len()), None, "byte {at}");
    }
}

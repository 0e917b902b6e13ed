use super::*;
use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, Device, OpenMode, Sync};
use crate::memory::MemoryDevice;
use std::sync::Arc;

#[test]
fn the_wrapper_fails_what_was_planted_and_nothing_else() {
    let base = MemoryDevice::new();
    let path = Path::new("d/log");
    base.put(path, &[1; 4 * BLOCK_BYTES]).unwrap();
    let device = FaultDevice::new(Arc::new(base.clone()));
    let file = device.open(path, OpenMode::Write).unwrap();
    let mut buffer = AlignedBuffer::new(4 * BLOCK_BYTES);
    buffer.as_mut_slice().fill(2);
    let length = 4 * BLOCK_BYTES;

    device.plant(FaultOp::Write, 0, 1);
    assert!(file.write(0, &buffer, length, Sync::Data).unwrap_err().is_injected());
    assert_ne!(base.contents(path).unwrap().unwrap(), [2; 4 * BLOCK_BYTES]);
    device.plant(FaultOp::Sync, 0, 1);
    assert!(file.write(0, &buffer, length, Sync::Data).unwrap_err().is_injected());
    assert_eq!(base.contents(path).unwrap().unwrap(), [2; 4 * BLOCK_BYTES]);
    device.plant(FaultOp::Space, 0, 1);
    assert!(file.prepare(0, 8 * BLOCK_BYTES as u64).unwrap_err().is_full());
    assert_eq!(file.length().unwrap(), 4 * BLOCK_BYTES as u64);
    device.plant(FaultOp::Read, 0, 1);
    assert!(file.read(0, &mut [0; 8]).unwrap_err().is_injected());
    assert_eq!(file.read(0, &mut [0; 8]).unwrap(), 8);
    file.write(0, &buffer, length, Sync::Data).unwrap();
    file.sync().unwrap();
}

#[test]
fn the_wrappers_write_small_fails_before_or_after_the_rename() {
    let base = MemoryDevice::new();
    let path = Path::new("d/small");
    base.put(path, b"old").unwrap();
    let device = FaultDevice::new(Arc::new(base.clone()));
    device.plant(FaultOp::Sync, 0, 1);
    assert!(device.write_small(path, b"new").is_err());
    assert_eq!(base.contents(path).unwrap().unwrap(), b"old");
    device.plant(FaultOp::Sync, 1, 1);
    assert!(device.write_small(path, b"new").is_err());
    assert_eq!(base.contents(path).unwrap().unwrap(), b"new");
}

#[test]
fn without_power_nothing_more_reaches_the_base() {
    let base = MemoryDevice::new();
    base.put(Path::new("d/a"), b"a").unwrap();
    let device = FaultDevice::new(Arc::new(base.clone()));
    device.crash_after(1);
    assert!(device.remove(Path::new("d/none")).is_ok());
    assert!(device.remove(Path::new("d/a")).is_err());
    assert!(device.list(Path::new("d")).is_err());
    device.clear_faults();
    assert_eq!(device.list(Path::new("d")).unwrap().len(), 1);
    assert_eq!(device.operations(), 4);
}

fn strikes(faults: &mut Faults, op: FaultOp, count: usize) -> Vec<bool> {
    let path = Path::new("f");
    (0..count).map(|_| faults.check(op, "test", path).is_err()).collect()
}

#[test]
fn a_plant_skips_strikes_and_is_used_up() {
    let mut faults = Faults::default();
    faults.plant(FaultOp::Sync, 1, 2);
    assert_eq!(strikes(&mut faults, FaultOp::Write, 3), [false; 3]);
    assert_eq!(strikes(&mut faults, FaultOp::Sync, 5), [false, true, true, false, false]);
    assert_eq!(faults.hits(), 2);
}

#[test]
fn space_is_full_and_the_others_are_injected() {
    let mut faults = Faults::default();
    faults.plant(FaultOp::Space, 0, 1);
    faults.plant(FaultOp::Read, 0, 1);
    let path = Path::new("f");
    assert!(faults.check(FaultOp::Space, "prepare", path).unwrap_err().is_full());
    assert!(faults.check(FaultOp::Read, "read", path).unwrap_err().is_injected());
}

#[test]
fn the_power_fails_during_one_operation_and_is_out_after_it() {
    let mut faults = Faults::default();
    let path = Path::new("f");
    faults.step("a", path).unwrap();
    faults.crash_after(1);
    assert_eq!(faults.step("b", path).unwrap(), Power::On);
    assert_eq!(faults.step("c", path).unwrap(), Power::Failing);
    assert!(faults.step("d", path).unwrap_err().is_injected());
    faults.restore_power();
    assert_eq!(faults.step("e", path).unwrap(), Power::On);
    assert_eq!(faults.operations(), 5);
}

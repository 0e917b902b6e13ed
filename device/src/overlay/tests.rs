use super::*;
use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, Sync};
use crate::memory::MemoryDevice;

const B: u64 = BLOCK_BYTES as u64;

/// A base with `d/old` (two and a half blocks of 1s) and `d/small`.
fn base() -> MemoryDevice {
    let base = MemoryDevice::new();
    base.put(Path::new("d/old"), &[1; BLOCK_BYTES * 5 / 2]).unwrap();
    base.put(Path::new("d/small"), b"small").unwrap();
    base
}

fn names(device: &dyn Device, directory: &str) -> Vec<(String, u64)> {
    let entries = device.list(Path::new(directory)).unwrap();
    entries.into_iter().map(|entry| (entry.name, entry.length_bytes)).collect()
}

fn bytes(device: &dyn Device, path: &str) -> Option<Vec<u8>> {
    device.read_small(Path::new(path), u64::MAX).unwrap()
}

#[test]
fn every_kind_of_change_leaves_the_base_as_it_was() {
    let base = base();
    let overlay = OverlayDevice::new(Arc::new(base.clone()));
    let file = overlay.open(Path::new("d/old"), OpenMode::Write).unwrap();
    file.set_length(B + 100).unwrap();
    file.prepare(2 * B, 4 * B).unwrap();
    let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
    buffer.as_mut_slice().fill(9);
    file.write(2 * B, &buffer, BLOCK_BYTES, Sync::Data).unwrap();
    file.sync().unwrap();
    overlay.write_small(Path::new("d/small"), b"other").unwrap();
    overlay.create_directory(Path::new("d/new/deep")).unwrap();
    overlay.open(Path::new("d/new/deep/f"), OpenMode::Create).unwrap().prepare(0, B).unwrap();

    let mut expected = vec![1; BLOCK_BYTES + 100];
    expected.resize(2 * BLOCK_BYTES, 0);
    expected.resize(3 * BLOCK_BYTES, 9);
    expected.resize(4 * BLOCK_BYTES, 0);
    assert_eq!(bytes(&overlay, "d/old").unwrap(), expected);
    assert_eq!(bytes(&overlay, "d/small").unwrap(), b"other");
    assert_eq!(bytes(&overlay, "d/new/deep/f").unwrap(), [0; BLOCK_BYTES]);
    assert_eq!(names(&overlay, "d"), [("new".to_owned(), 0), ("old".to_owned(), 4 * B), ("small".to_owned(), 5)]);

    assert_eq!(base.contents(Path::new("d/old")).unwrap().unwrap(), [1; BLOCK_BYTES * 5 / 2]);
    assert_eq!(base.contents(Path::new("d/small")).unwrap().unwrap(), b"small");
    assert_eq!(names(&base, "d"), [("old".to_owned(), B * 5 / 2), ("small".to_owned(), 5)]);
}

#[test]
fn a_block_of_the_base_can_be_zeroed_and_cut_bytes_do_not_come_back() {
    let overlay = OverlayDevice::new(Arc::new(base()));
    let file = overlay.open(Path::new("d/old"), OpenMode::Write).unwrap();
    file.prepare(0, B).unwrap();
    assert_eq!(file.length().unwrap(), B * 5 / 2);
    file.set_length(B + 1).unwrap();
    file.set_length(2 * B).unwrap();
    let mut read = [5; 2 * BLOCK_BYTES + 1];
    assert_eq!(file.read(0, &mut read).unwrap(), 2 * BLOCK_BYTES);
    assert!(read[..BLOCK_BYTES].iter().all(|&byte| byte == 0));
    assert_eq!(read[BLOCK_BYTES..BLOCK_BYTES + 3], [1, 0, 0]);
}

#[test]
fn removed_and_renamed_names_hide_the_bases() {
    let base = base();
    let overlay = OverlayDevice::new(Arc::new(base.clone()));
    assert!(overlay.remove(Path::new("d/small")).unwrap());
    assert!(!overlay.remove(Path::new("d/small")).unwrap());
    assert_eq!(bytes(&overlay, "d/small"), None);
    overlay.rename(Path::new("d/old"), Path::new("d/gone.deleted")).unwrap();
    assert_eq!(names(&overlay, "d"), [("gone.deleted".to_owned(), B * 5 / 2)]);
    assert_eq!(bytes(&overlay, "d/gone.deleted").unwrap(), [1; BLOCK_BYTES * 5 / 2]);
    assert!(overlay.open(Path::new("d/old"), OpenMode::Read).is_err());

    overlay.rename(Path::new("d"), Path::new("e")).unwrap();
    assert_eq!(names(&overlay, "e"), [("gone.deleted".to_owned(), B * 5 / 2)]);
    assert!(overlay.list(Path::new("d")).is_err());
    overlay.create_directory(Path::new("d")).unwrap();
    assert_eq!(names(&overlay, "d"), []);
    assert!(overlay.remove_directory(Path::new("e")).unwrap());
    assert_eq!(overlay.length(Path::new("e/gone.deleted")).unwrap(), None);
    assert_eq!(names(&base, "d"), [("old".to_owned(), B * 5 / 2), ("small".to_owned(), 5)]);
}

#[test]
fn the_bases_lock_is_neither_needed_nor_taken() {
    let base = base();
    let overlay = OverlayDevice::new(Arc::new(base.clone()));
    let path = Path::new("d/.lock");
    let _held = base.lock(path).unwrap();
    overlay.lock(path).unwrap();
    drop(_held);
    let _mine = overlay.lock(path).unwrap();
    base.lock(path).unwrap();
}

use super::content::Content;
use super::{Disk, RecordDevice};
use crate::buffers::AlignedBuffer;
use crate::device::{BLOCK_BYTES, Device, DeviceFile, OpenMode, Sync};
use crate::fault::chance::{below, mix2};
use crate::memory::MemoryDevice;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

const LIMIT: usize = 10_000;

fn block(byte: u8, sectors: usize) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(BLOCK_BYTES);
    buffer.as_mut_slice()[..sectors * 512].fill(byte);
    buffer
}

/// A recorded file of one block whose name is durable.
fn file(device: &RecordDevice) -> Arc<dyn DeviceFile> {
    let file = device.open(Path::new("/f"), OpenMode::Create).unwrap();
    file.prepare(0, BLOCK_BYTES as u64).unwrap();
    device.sync_directory(Path::new("/")).unwrap();
    file
}

fn recorded() -> RecordDevice {
    RecordDevice::new(Arc::new(MemoryDevice::new()))
}

fn count(device: &RecordDevice) -> usize {
    let history = device.history();
    history.disks(history.moments(), LIMIT).unwrap().len()
}

#[test]
fn a_write_is_open_until_it_is_synced() {
    let device = recorded();
    let file = file(&device);
    assert_eq!(count(&device), 1);
    file.write(0, &block(1, 1), BLOCK_BYTES, Sync::None).unwrap();
    assert_eq!(count(&device), 2);
    file.write(0, &block(2, 1), BLOCK_BYTES, Sync::None).unwrap();
    assert_eq!(count(&device), 3, "none, the first, the second");
    file.sync().unwrap();
    assert_eq!(count(&device), 1);
    file.write(0, &block(3, 2), BLOCK_BYTES, Sync::Data).unwrap();
    assert_eq!(count(&device), 1);
}

#[test]
fn a_write_of_two_sectors_may_be_torn() {
    let device = recorded();
    file(&device).write(0, &block(1, 2), BLOCK_BYTES, Sync::None).unwrap();
    assert_eq!(count(&device), 4, "none, both, either");
}

#[test]
fn a_call_that_has_not_returned_is_open_even_if_it_is_to_be_durable() {
    let device = recorded();
    file(&device).write(0, &block(1, 1), BLOCK_BYTES, Sync::Data).unwrap();
    let history = device.history();
    let outcomes = |moment| history.disks(moment, LIMIT).unwrap().len();
    assert_eq!((outcomes(history.moments() - 1), outcomes(history.moments())), (2, 1));
}

#[test]
fn names_are_open_until_their_directory_is_synced() {
    let device = recorded();
    file(&device);
    device.rename(Path::new("/f"), Path::new("/g")).unwrap();
    assert_eq!(count(&device), 2);
    device.create_directory(Path::new("/d")).unwrap();
    device.write_small(Path::new("/d/small"), b"x").unwrap();
    assert_eq!(count(&device), 4, "what is in a directory goes with it");
    device.sync_directory(Path::new("/")).unwrap();
    assert_eq!(count(&device), 1);
}

/// The disk that the memory device is left with.
fn left_on(device: &MemoryDevice, reference: &Disk) -> u64 {
    let mut files = BTreeMap::new();
    for entry in device.list(Path::new("/")).unwrap() {
        let path = Path::new("/").join(entry.name);
        let bytes: Arc<[u8]> = device.contents(&path).unwrap().unwrap().into();
        files.insert(Arc::from(path), Arc::new(Content::of(&bytes)));
    }
    Disk { directories: reference.directories.clone(), files }.hash()
}

/// Random calls on two files; blocks with one sector of data, which cannot be torn.
fn random_calls(device: &RecordDevice, seed: u64) {
    let paths = ["/a", "/b", "/c"].map(Path::new);
    let mut open: Vec<Arc<dyn DeviceFile>> = Vec::new();
    for number in 0..14 {
        let draw = |salt: u64, limit: u64| below(mix2(mix2(seed, number), salt), limit);
        let path = paths[draw(1, 3) as usize];
        let picked = open.get(draw(2, 2) as usize);
        match (draw(0, 9), picked) {
            (0, _) | (_, None) => {
                if let Ok(file) = device.open(path, OpenMode::Create) {
                    file.prepare(0, BLOCK_BYTES as u64).unwrap();
                    open.insert(0, file);
                }
            }
            (1, _) => drop(device.rename(path, paths[draw(3, 3) as usize])),
            (2, _) => drop(device.remove(path).unwrap()),
            (3, _) => device.sync_directory(Path::new("/")).unwrap(),
            (4, Some(file)) => file.sync().unwrap(),
            (5, Some(file)) => file.set_length(BLOCK_BYTES as u64 * draw(4, 2)).unwrap(),
            (_, Some(file)) => {
                let sync = [Sync::None, Sync::Data][draw(5, 2) as usize];
                // Refused behind the end of a file that was cut.
                let _ = file.write(0, &block(number as u8 + 1, 1), BLOCK_BYTES, sync);
            }
        }
    }
}

#[test]
fn what_the_memory_device_is_left_with_is_among_the_disks() {
    let mut different = HashSet::new();
    for seed in 0..400 {
        let memory = MemoryDevice::new();
        let device = RecordDevice::new(Arc::new(memory.clone()));
        random_calls(&device, seed);
        let history = device.history();
        let disks = history.disks(history.moments(), LIMIT).unwrap();
        let hashes: HashSet<u64> = disks.iter().map(Disk::hash).collect();
        memory.power_cut(seed);
        let left = left_on(&memory, &disks[0]);
        assert!(hashes.contains(&left), "seed {seed}: {:#?}", history.lines(history.moments()));
        different.insert(left);
        let drawn = history.disk(history.moments(), seed).hash();
        assert!(hashes.contains(&drawn), "seed {seed}");
    }
    assert!(different.len() > 100, "{} outcomes say nothing", different.len());
}

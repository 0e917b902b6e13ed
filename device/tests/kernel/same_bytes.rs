//! The same writes leave the same bytes, whichever device makes them.

use super::{BLOCK, devices, pattern};
use oncelog_device::{AlignedBuffer, Device, DeviceFile, OpenMode, Sync};
use std::path::Path;
use std::sync::Arc;

fn block_aligned(length: usize) -> usize {
    length.next_multiple_of(4096)
}

fn script(device: &dyn Device, path: &Path) -> Vec<u8> {
    let file = device.open(path, OpenMode::Create).expect("created");
    file.prepare(0, 4 << 20).expect("prepared");
    // One block, one chunk, a chunk and a block, eight chunks and more: plain and durable, from memory that the device
    // lends (it may have it registered) and from other memory.
    let pool = device.buffers(0);
    let lent = |length: usize, seed| {
        let mut buffer = pool.take(length);
        buffer.as_mut_slice()[..length].copy_from_slice(pattern(length, seed).as_slice());
        buffer
    };
    let lengths = [4096, 256 << 10, (256 << 10) + 4096, (2 << 20) + 8192];
    for (seed, length) in lengths.into_iter().enumerate() {
        for sync in [Sync::None, Sync::Data] {
            let position = (seed as u64 * 37 + u64::from(sync == Sync::Data)) * BLOCK;
            file.write(position, &lent(length, 50 + seed as u64), length, sync).expect("written");
            let mut read = vec![0; length];
            assert_eq!(file.read(position, &mut read).expect("read"), length);
            assert!(read == pattern(length, 50 + seed as u64).as_slice()[..length], "{length} lent bytes");
            file.write(position, &pattern(length, seed as u64 + 1), length, sync).expect("written");
        }
    }
    // Enough durable writes that the ring device has used each of its ways.
    for round in 0..40 {
        file.write((900 + round % 3) * BLOCK, &pattern(4096, round), 4096, Sync::Data).expect("written");
        file.write((800 + round % 3) * BLOCK, &lent(128 << 10, round), 128 << 10, Sync::Data).expect("written");
    }
    file.sync().expect("synced");
    file.set_length((4 << 20) - 1000).expect("cut");
    let mut blocks = AlignedBuffer::new(5 << 20);
    for held in ["nothing", "one block", "everything"] {
        blocks.as_mut_slice().fill(0xee);
        let length = file.read_blocks(BLOCK, &mut blocks.as_mut_slice()[..5 << 20]).expect("read in blocks");
        assert_eq!(length, (4 << 20) - 1000 - 4096, "the page cache held {held}");
        let mut small = vec![0; if held == "nothing" { 100 } else { length }];
        assert_eq!(file.read(BLOCK, &mut small).expect("read"), small.len());
        assert!(blocks.as_slice()[..length].starts_with(&small), "the page cache held {held}");
    }
    let mut read = vec![0; 5 << 20];
    let length = file.read(0, &mut read).expect("read");
    read.truncate(length);
    read
}

#[test]
fn every_device_leaves_the_same_bytes() {
    run_script();
}

/// Runs the script through every device and compares; answers their descriptions afterwards.
pub(super) fn run_script() -> Vec<String> {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut images, mut lines) = (Vec::new(), Vec::new());
    for (number, device) in devices().iter().enumerate() {
        let path = directory.path().join(format!("{number}.log"));
        let seen = script(device.as_ref(), &path);
        assert_eq!(seen.len(), (4 << 20) - 1000);
        assert!(seen == std::fs::read(&path).expect("readable"), "{} reads what stands there", device.describe());
        images.push(seen);
        lines.push(device.describe());
    }
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]), "devices differ");
    let last = pattern((2 << 20) + 8192, 4);
    let start = (3 * 37 + 1) * 4096;
    assert!(images[0][start..start + (2 << 20) + 8192] == *last.as_slice(), "the last large write stands there");
    lines
}

#[test]
fn large_reads_end_where_the_file_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a.log");
    let content = pattern(3 << 20, 5).as_slice()[..3_000_001].to_vec();
    std::fs::write(&path, &content).expect("written");
    for device in devices() {
        let file = device.open(&path, OpenMode::Read).expect("opened");
        for (position, wanted) in
            [(0, 3 << 20), (17, 3 << 20), (2_999_000, 1 << 20), (3_000_001, 1 << 20), (5 << 20, 1 << 20)]
        {
            let mut buffer = vec![0xee; wanted];
            let read = file.read(position as u64, &mut buffer).expect("read");
            let rest = content.get(position..).unwrap_or_default();
            assert_eq!(read, rest.len().min(wanted), "{} at {position}", device.describe());
            assert!(buffer[..read] == rest[..read]);
        }
    }
}

fn write_many(device: &dyn Device, path: &Path, seed: u64) -> Vec<u8> {
    let file: Arc<dyn DeviceFile> = device.open(path, OpenMode::Create).expect("created");
    file.prepare(0, 2 << 20).expect("prepared");
    let mut expected = vec![0; 2 << 20];
    for round in 0..12 {
        let length = block_aligned([5_000, 700_000, 1_200_000][round % 3]);
        let position = (round * 13 % 100) * 4096;
        let buffer = pattern(length, seed * 100 + round as u64);
        let sync = if round % 2 == 0 { Sync::Data } else { Sync::None };
        file.write(position as u64, &buffer, length, sync).expect("written");
        expected[position..position + length].copy_from_slice(&buffer.as_slice()[..length]);
    }
    expected
}

#[test]
fn many_files_are_written_at_once_through_one_device() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..20)
                .map(|seed| {
                    let (device, path) = (&device, directory.path().join(format!("{seed}.log")));
                    scope.spawn(move || {
                        let expected = write_many(device.as_ref(), &path, seed);
                        assert!(std::fs::read(&path).expect("readable") == expected, "file {seed}");
                    })
                })
                .collect();
            assert!(writers.into_iter().all(|writer| writer.join().is_ok()), "{}", device.describe());
        });
    }
}

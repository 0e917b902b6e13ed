//! Space that a file held before comes back as zeroes, without zeroes being written.

use super::{BLOCK, devices, pattern};
use oncelog_device::{AlignedBuffer, OpenMode, Sync};
use std::os::unix::fs::MetadataExt;

#[test]
fn allocated_space_reads_as_zeroes_and_is_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    for (number, device) in devices().iter().enumerate() {
        let path = dir.path().join(number.to_string());
        let file = device.open(&path, OpenMode::Create).expect("created");
        file.prepare(0, 64 * BLOCK).expect("prepared");
        let old = pattern(64 * BLOCK as usize, 1);
        file.write(0, &old, 64 * BLOCK as usize, Sync::Data).expect("written");
        if !file.allocate(BLOCK, 96 * BLOCK).expect("an answer") {
            println!("skipped: not to be had on this file system");
            continue;
        }
        assert_eq!(file.length().expect("a length"), 96 * BLOCK);
        let metadata = std::fs::metadata(&path).expect("metadata");
        assert!(metadata.blocks() * 512 >= 96 * BLOCK, "no write runs out of space: {} sectors", metadata.blocks());
        // By both ways to read: direct, and through the page cache.
        let mut blocks = AlignedBuffer::new(96 * BLOCK as usize);
        for through_cache in [false, true] {
            let bytes = blocks.as_mut_slice();
            bytes.fill(0x5a);
            let read = if through_cache { file.read(0, bytes) } else { file.read_blocks(0, bytes) };
            assert_eq!(read.expect("read"), bytes.len());
            assert!(bytes[..BLOCK as usize] == old.as_slice()[..BLOCK as usize], "what lies before it stays");
            assert!(bytes[BLOCK as usize..].iter().all(|&byte| byte == 0), "old bytes show through");
        }
        let new = pattern(8 * BLOCK as usize, 2);
        for (position, sync) in [(4 * BLOCK, Sync::Data), (40 * BLOCK, Sync::None), (88 * BLOCK, Sync::Data)] {
            file.write(position, &new, 8 * BLOCK as usize, sync).expect("written");
            let mut read = vec![0; 8 * BLOCK as usize];
            file.read(position, &mut read).expect("read");
            assert!(read == new.as_slice());
        }
        assert!(file.allocate(1, BLOCK).is_err() && file.allocate(2 * BLOCK, BLOCK).is_err());
    }
}

//! Calls that break the contract are errors, and leave the file as it was.

use super::{BLOCK, devices, pattern};
use oncelog_device::{DeviceErrorKind as Kind, OpenMode, Sync};
use std::os::unix::fs::PermissionsExt;

#[test]
fn misaligned_oversized_and_unprepared_writes_are_refused() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let file = device.open(&path, OpenMode::Create).expect("created");
        file.prepare(0, 4 * BLOCK).expect("prepared");
        let buffer = pattern(16 * 4096, 1);
        let refused = [
            (1, 4096),
            (512, 4096),
            (0, 100),
            (0, 17 * 4096),
            (4 * BLOCK, 4096),
            (3 * BLOCK, 8192),
            (0, 16 * 4096),
            (u64::MAX - 4095, 4096),
        ];
        for (position, length) in refused {
            for sync in [Sync::None, Sync::Data] {
                let error = file.write(position, &buffer, length, sync).expect_err("refused");
                assert_eq!(error.kind(), Kind::InvalidRange, "{length} at {position}: {error}");
            }
        }
        assert_eq!(file.prepare(1, 4096).expect_err("refused").kind(), Kind::InvalidRange);
        assert_eq!(file.prepare(8192, 4096).expect_err("refused").kind(), Kind::InvalidRange);
        assert_eq!(std::fs::read(&path).expect("readable"), vec![0; 4 * 4096]);
        file.write(3 * BLOCK, &buffer, 4096, Sync::Data).expect("the last prepared block");
        file.set_length(2 * BLOCK).expect("cut");
        let error = file.write(3 * BLOCK, &buffer, 4096, Sync::Data).expect_err("refused behind the cut");
        assert_eq!(error.kind(), Kind::InvalidRange);
        file.write(BLOCK, &buffer, 4096, Sync::Data).expect("the last block before it");
    }
}

#[test]
fn open_modes_keep_their_word() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a.log");
        let kind = |mode| device.open(&path, mode).map(|_file| ()).expect_err("refused").kind();
        assert_eq!(kind(OpenMode::Write), Kind::NotFound);
        assert_eq!(kind(OpenMode::Read), Kind::NotFound);
        device.open(&path, OpenMode::Create).expect("created").set_length(BLOCK).expect("extended");
        assert_eq!(kind(OpenMode::Create), Kind::AlreadyExists);
        let mode = std::fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o755, 0o644);
        let reader = device.open(&path, OpenMode::Read).expect("opened");
        let error = reader.write(0, &pattern(4096, 1), 4096, Sync::None).expect_err("refused");
        assert_eq!(error.kind(), Kind::PermissionDenied);
        assert_eq!(reader.set_length(0).expect_err("refused").kind(), Kind::PermissionDenied);
        assert_eq!(reader.length().expect("known"), BLOCK);
    }
}

#[test]
fn what_is_no_regular_file_is_never_opened_or_waited_for() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("folder");
        let pipe = directory.path().join("pipe");
        std::fs::create_dir(&folder).expect("made");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        let pipe = made.is_ok_and(|status| status.success()).then_some(pipe);
        for path in std::iter::once(folder.clone()).chain(pipe) {
            for mode in [OpenMode::Read, OpenMode::Write] {
                let error = device.open(&path, mode).map(|_file| ()).expect_err("refused");
                assert_eq!(error.kind(), Kind::IsADirectory, "{error}");
            }
            assert_eq!(device.read_small(&path, 10).expect_err("refused").kind(), Kind::IsADirectory);
            assert_eq!(device.length(&path).expect_err("refused").kind(), Kind::IsADirectory);
        }
        assert_eq!(device.remove(&folder).expect_err("refused").kind(), Kind::IsADirectory);
        let error = device.write_small(&folder, b"x").expect_err("refused");
        assert_eq!(error.kind(), Kind::IsADirectory);
        assert!(!directory.path().join("folder.tmp").exists(), "no temporary is left");
    }
}

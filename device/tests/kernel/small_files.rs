//! Small files, names and directories.

use super::devices;
use oncelog_device::DeviceErrorKind as Kind;

#[test]
fn small_files_are_replaced_whole_and_read_under_a_limit() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("checkpoint");
        assert_eq!(device.read_small(&path, 10).expect("looked"), None);
        std::fs::write(directory.path().join("checkpoint.tmp"), b"left by a crash, and longer").expect("written");
        for content in [&b"0123456789"[..], b"", b"abc"] {
            device.write_small(&path, content).expect("written");
            assert_eq!(device.read_small(&path, 10).expect("read").as_deref(), Some(content));
        }
        device.write_small(&path, b"0123456789").expect("written");
        let error = device.read_small(&path, 9).expect_err("over the limit");
        assert_eq!(error.kind(), Kind::TooLarge);
        let names: Vec<_> =
            device.list(directory.path()).expect("listed").into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["checkpoint"]);
    }
}

#[test]
fn large_content_is_written_whole_to_its_last_byte() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("snapshot");
        for length in [(4 << 20) - 1, 4 << 20, (9 << 20) + 4096 + 123] {
            let content: Vec<u8> = (0..length).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
            device.write_small(&path, &content).expect("written");
            assert!(device.read_small(&path, 1 << 30).expect("read").is_some_and(|read| read == content));
        }
    }
}

#[test]
fn a_failed_replacement_keeps_the_old_content() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("checkpoint");
        device.write_small(&path, b"old").expect("written");
        std::fs::create_dir(directory.path().join("checkpoint.tmp")).expect("made");
        let error = device.write_small(&path, b"new").expect_err("the temporary name is taken");
        assert_eq!(error.kind(), Kind::IsADirectory);
        assert_eq!(device.read_small(&path, 10).expect("read").as_deref(), Some(&b"old"[..]));
    }
}

#[test]
fn names_are_listed_sorted_renamed_and_removed() {
    for device in devices() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("a/b");
        device.create_directory(&folder).expect("made");
        device.create_directory(&folder).expect("made again");
        for name in ["z", "10", "9"] {
            device.write_small(&folder.join(name), name.as_bytes()).expect("written");
        }
        device.rename(&folder.join("z"), &folder.join("9")).expect("replaced");
        device.sync_directory(&folder).expect("synced");
        let listed = device.list(&folder).expect("listed");
        let seen: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.length_bytes)).collect();
        assert_eq!(seen, [("10", 2), ("9", 1)]);
        assert!(listed[0].modified_ms > 1_577_836_800_000);
        assert_eq!(device.read_small(&folder.join("9"), 9).expect("read").as_deref(), Some(&b"z"[..]));
        let above = device.list(folder.parent().expect("a")).expect("listed");
        assert_eq!((above[0].name.as_str(), above[0].is_directory, above[0].length_bytes), ("b", true, 0));
        assert!(device.remove(&folder.join("9")).expect("removed"));
        assert!(!device.remove(&folder.join("9")).expect("looked"));
        assert!(device.remove_directory(&folder).expect("removed"));
        assert!(!device.remove_directory(&folder).expect("looked"));
        assert_eq!(device.list(&folder).expect_err("gone").kind(), Kind::NotFound);
    }
}

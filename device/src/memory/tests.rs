use super::*;
use crate::buffers::AlignedBuffer;
use crate::clock::ManualClock;
use crate::device::{BLOCK_BYTES, Device, DeviceFile, OpenMode, Sync};
use crate::error::DeviceErrorKind;

const B: u64 = BLOCK_BYTES as u64;
const SEEDS: std::ops::Range<u64> = 0..100;

fn at(path: &str) -> &Path {
    Path::new(path)
}

fn filled(blocks: usize, byte: u8) -> AlignedBuffer {
    let mut buffer = AlignedBuffer::new(blocks * BLOCK_BYTES);
    buffer.as_mut_slice().fill(byte);
    buffer
}

/// A disk with `d/log`, four prepared blocks, name and all durable.
fn prepared() -> (MemoryDevice, Arc<dyn DeviceFile>) {
    let device = MemoryDevice::new();
    device.put(at("d/log"), &[]).unwrap();
    let file = device.open(at("d/log"), OpenMode::Write).unwrap();
    file.prepare(0, 4 * B).unwrap();
    (device, file)
}

fn contents(device: &MemoryDevice, path: &str) -> Option<Vec<u8>> {
    device.contents(at(path)).unwrap()
}

/// What `d/log` holds after a power cut, for every seed.
fn outcomes(story: impl Fn(&MemoryDevice, &dyn DeviceFile)) -> Vec<Vec<u8>> {
    let run = |seed| {
        let (device, file) = prepared();
        story(&device, &*file);
        device.power_cut(seed);
        contents(&device, "d/log").expect("its name is durable")
    };
    SEEDS.map(run).collect()
}

fn is_all(bytes: &[u8], byte: u8) -> bool {
    bytes.iter().all(|&found| found == byte)
}

#[test]
fn an_unsynced_write_is_lost_kept_or_torn_at_sectors() {
    let outcomes = outcomes(|_, file| file.write(0, &filled(2, 7), 2 * BLOCK_BYTES, Sync::None).unwrap());
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for bytes in &outcomes {
        assert!(is_all(&bytes[2 * BLOCK_BYTES..], 0));
        let sectors: Vec<u8> = bytes[..2 * BLOCK_BYTES].chunks(512).map(|sector| sector[0]).collect();
        assert!(bytes.chunks(512).all(|sector| is_all(sector, sector[0])), "torn inside a sector");
        match (is_all(&sectors, 0), is_all(&sectors, 7)) {
            (true, _) => lost += 1,
            (_, true) => kept += 1,
            _ => torn += 1,
        }
    }
    assert!(lost > 5 && kept > 5 && torn > 5, "{lost} lost, {kept} kept, {torn} torn");
}

#[test]
fn a_durable_write_survives_alone() {
    let outcomes = outcomes(|_, file| {
        file.write(0, &filled(1, 1), BLOCK_BYTES, Sync::None).unwrap();
        file.write(B, &filled(1, 2), BLOCK_BYTES, Sync::None).unwrap();
        file.write(B, &filled(1, 3), BLOCK_BYTES, Sync::Data).unwrap();
    });
    for bytes in &outcomes {
        assert!(is_all(&bytes[BLOCK_BYTES..2 * BLOCK_BYTES], 3), "an older write came over a durable one");
    }
    assert!(outcomes.iter().any(|bytes| !is_all(&bytes[..BLOCK_BYTES], 1)), "it synced another write");
}

#[test]
fn what_was_synced_survives_every_seed() {
    let outcomes = outcomes(|_, file| {
        file.write(0, &filled(3, 1), 3 * BLOCK_BYTES, Sync::None).unwrap();
        file.write(B, &filled(1, 2), BLOCK_BYTES, Sync::None).unwrap();
        file.set_length(2 * B).unwrap();
        file.sync().unwrap();
    });
    let expected = [[1; BLOCK_BYTES], [2; BLOCK_BYTES]].concat();
    assert!(outcomes.iter().all(|bytes| *bytes == expected));
}

#[test]
fn an_unsynced_length_is_either_and_a_durable_write_beyond_it_is_there() {
    let cut = outcomes(|_, file| file.set_length(B).unwrap());
    assert!(cut.iter().any(|bytes| bytes.len() == BLOCK_BYTES));
    assert!(cut.iter().any(|bytes| bytes.len() == 4 * BLOCK_BYTES));
    let grown = outcomes(|_, file| {
        file.set_length(B).unwrap();
        file.set_length(9 * B).unwrap();
        file.write(7 * B, &filled(1, 5), BLOCK_BYTES, Sync::Data).unwrap();
    });
    assert!(grown.iter().all(|bytes| is_all(&bytes[7 * BLOCK_BYTES..8 * BLOCK_BYTES], 5)));
}

#[test]
fn after_a_cut_the_images_are_equal_and_old_handles_are_stale() {
    for seed in SEEDS {
        let (device, file) = prepared();
        file.write(0, &filled(4, 7), 4 * BLOCK_BYTES, Sync::None).unwrap();
        device.power_cut(seed);
        let first = contents(&device, "d/log");
        device.power_cut(seed + 1);
        assert_eq!(contents(&device, "d/log"), first);
        assert!(file.sync().unwrap_err().is_latched());
        assert!(file.read(0, &mut [0; 8]).unwrap_err().is_latched());
    }
}

#[test]
fn a_kill_loses_nothing_written_and_syncs_nothing() {
    let mut lost = 0;
    for seed in SEEDS {
        let (device, file) = prepared();
        let _lock = device.lock(at("d/.lock")).unwrap();
        file.write(0, &filled(4, 7), 4 * BLOCK_BYTES, Sync::None).unwrap();
        device.kill();
        assert!(is_all(&contents(&device, "d/log").unwrap(), 7));
        device.lock(at("d/.lock")).unwrap();
        device.power_cut(seed);
        lost += usize::from(!is_all(&contents(&device, "d/log").unwrap(), 7));
    }
    assert!(lost > 0);
}

#[test]
fn names_may_vanish_until_their_directory_is_synced() {
    let survivors = |sync: bool| -> Vec<Vec<String>> {
        let run = |seed| {
            let (device, _) = prepared();
            device.open(at("d/new"), OpenMode::Create).unwrap();
            device.rename(at("d/log"), at("d/moved")).unwrap();
            if sync {
                device.sync_directory(at("d")).unwrap();
            }
            device.power_cut(seed);
            let names = device.list(at("d")).unwrap();
            names.into_iter().map(|entry| entry.name).collect()
        };
        SEEDS.map(run).collect()
    };
    let unsynced = survivors(false);
    for expected in [vec!["log"], vec!["moved"], vec!["log", "new"], vec!["moved", "new"]] {
        assert!(unsynced.iter().any(|names| *names == expected), "never {expected:?}");
    }
    assert!(
        unsynced
            .iter()
            .all(|names| names.len() <= 2 && (names.contains(&"log".into()) != names.contains(&"moved".into())))
    );
    assert!(survivors(true).iter().all(|names| *names == ["moved", "new"]));
}

#[test]
fn a_rename_to_another_directory_needs_that_ones_sync() {
    let places = |synced: &str| -> Vec<(bool, bool)> {
        let run = |seed| {
            let (device, _) = prepared();
            device.put(at("spare/x"), b"x").unwrap();
            device.rename(at("d/log"), at("spare/log")).unwrap();
            device.sync_directory(at(synced)).unwrap();
            device.power_cut(seed);
            (contents(&device, "d/log").is_some(), contents(&device, "spare/log").is_some())
        };
        SEEDS.map(run).collect()
    };
    assert!(places("spare").iter().all(|&place| place == (false, true)));
    let left = places("d");
    assert!(left.iter().all(|&(old, _)| !old));
    assert!(left.iter().any(|&(_, new)| new) && left.iter().any(|&(_, new)| !new));
}

#[test]
fn a_name_needs_the_sync_of_its_own_directory_alone() {
    let places = |failing: &str| -> Vec<bool> {
        let run = |seed| {
            let (device, _) = prepared();
            device.put(at("spare/x"), b"x").unwrap();
            device.rename(at("d/log"), at("spare/log")).unwrap();
            device.plant(FaultOp::Sync, 0, 1);
            assert!(device.sync_directory(at(failing)).is_err());
            device.sync_directory(at("spare")).unwrap();
            device.power_cut(seed);
            contents(&device, "spare/log").is_some()
        };
        SEEDS.map(run).collect()
    };
    assert!(places("d").iter().all(|&stands| stands));
    assert!(places("spare").iter().any(|&stands| !stands));
}

#[test]
fn removed_files_may_come_back_and_new_directories_may_go() {
    let (mut back, mut gone) = (0, 0);
    for seed in SEEDS {
        let (device, _) = prepared();
        assert!(device.remove(at("d/log")).unwrap());
        assert!(!device.remove(at("d/log")).unwrap());
        device.create_directory(at("d/e/f")).unwrap();
        device.open(at("d/e/f/x"), OpenMode::Create).unwrap();
        device.sync_directory(at("d/e/f")).unwrap();
        device.power_cut(seed);
        back += usize::from(contents(&device, "d/log").is_some());
        gone += usize::from(contents(&device, "d/e/f/x").is_none());
    }
    assert!((5..95).contains(&back) && (5..95).contains(&gone), "{back} {gone}");
}

#[test]
fn write_small_is_old_or_new_at_every_crash_point_and_seed() {
    let (old, new) = (vec![1; 5_000], vec![2; 9_000]);
    for power_cut in [true, false] {
        let mut seen = [0, 0];
        for crash in 0..=5 {
            for seed in SEEDS {
                let device = MemoryDevice::new();
                device.put(at("d/small"), &old).unwrap();
                device.crash_after(crash);
                let answer = device.write_small(at("d/small"), &new);
                assert_eq!(answer.is_ok(), crash == 5, "five steps");
                if power_cut {
                    device.power_cut(seed)
                } else {
                    device.kill()
                }
                let found = contents(&device, "d/small").unwrap();
                assert!(found == old || found == new, "torn: crash {crash}, seed {seed}");
                assert!(answer.is_err() || found == new, "answered and lost: seed {seed}");
                seen[usize::from(found == new)] += 1;
                device.write_small(at("d/small"), b"third").unwrap();
                assert_eq!(device.read_small(at("d/small"), 100).unwrap().unwrap(), b"third");
                assert!(device.read_small(at("d/small"), 4).is_err());
            }
        }
        assert!(seen[0] > 0 && seen[1] > 0);
    }
}

#[test]
fn what_a_failed_sync_left_is_not_durable_after_a_later_one() {
    let story = |reopen: bool, rewrite: bool| {
        outcomes(move |device, file| {
            file.write(0, &filled(1, 7), BLOCK_BYTES, Sync::None).unwrap();
            device.plant(FaultOp::Sync, 0, 1);
            assert!(file.sync().unwrap_err().is_injected());
            let again = device.open(at("d/log"), OpenMode::Write).unwrap();
            let file = if reopen { &*again } else { file };
            if rewrite {
                file.write(0, &filled(1, 7), BLOCK_BYTES, Sync::None).unwrap();
            }
            file.write(B, &filled(1, 8), BLOCK_BYTES, Sync::None).unwrap();
            file.sync().unwrap();
        })
    };
    for (reopen, rewrite) in [(false, false), (true, false), (true, true)] {
        let outcomes = story(reopen, rewrite);
        assert!(outcomes.iter().all(|bytes| is_all(&bytes[BLOCK_BYTES..2 * BLOCK_BYTES], 8)));
        let kept = outcomes.iter().filter(|bytes| is_all(&bytes[..BLOCK_BYTES], 7)).count();
        assert_eq!(kept == 100, rewrite, "{kept} kept");
        assert!(kept > 0);
    }
}

#[test]
fn a_length_after_a_failed_sync_is_uncertain_but_holds_what_was_synced_later() {
    let outcomes = outcomes(|device, file| {
        file.set_length(8 * B).unwrap();
        device.plant(FaultOp::Sync, 0, 1);
        assert!(file.sync().is_err());
        file.write(5 * B, &filled(1, 7), BLOCK_BYTES, Sync::None).unwrap();
        file.sync().unwrap();
    });
    let synced = 5 * BLOCK_BYTES..6 * BLOCK_BYTES;
    assert!(outcomes.iter().all(|bytes| is_all(&bytes[synced.clone()], 7)));
    for blocks in [6, 8] {
        let length = blocks * BLOCK_BYTES;
        assert!(outcomes.iter().any(|bytes| bytes.len() == length));
    }
}

#[test]
fn a_failed_durable_write_is_written_but_may_be_lost() {
    let outcomes = outcomes(|device, file| {
        device.plant(FaultOp::Sync, 0, 1);
        assert!(file.write(0, &filled(1, 7), BLOCK_BYTES, Sync::Data).is_err());
        let mut read = [0; BLOCK_BYTES];
        file.read(0, &mut read).unwrap();
        assert!(is_all(&read, 7));
        file.sync().unwrap();
    });
    assert!(outcomes.iter().any(|bytes| is_all(bytes, 0)));
    assert!(outcomes.iter().any(|bytes| is_all(&bytes[..BLOCK_BYTES], 7)));
}

#[test]
fn a_name_that_was_synced_is_not_taken_back_by_one_whose_sync_had_failed() {
    for seed in SEEDS {
        let (device, _) = prepared();
        device.plant(FaultOp::Sync, 1, 1);
        assert!(device.write_small(at("d/small"), b"first").is_err());
        device.write_small(at("d/small"), b"second").unwrap();
        device.power_cut(seed);
        assert_eq!(contents(&device, "d/small").as_deref(), Some(&b"second"[..]), "seed {seed}");
    }
}

#[test]
fn a_failed_directory_sync_is_not_forgotten_either() {
    let mut kept = 0;
    for seed in SEEDS {
        let (device, _) = prepared();
        device.rename(at("d/log"), at("d/moved")).unwrap();
        device.plant(FaultOp::Sync, 0, 1);
        assert!(device.sync_directory(at("d")).is_err());
        device.sync_directory(at("d")).unwrap();
        device.power_cut(seed);
        kept += usize::from(contents(&device, "d/moved").is_some());
    }
    assert!((5..95).contains(&kept), "{kept} kept");
}

#[test]
fn a_failed_write_leaves_a_prefix_of_sectors() {
    let (device, file) = prepared();
    let mut lengths = std::collections::BTreeSet::new();
    for _ in 0..40 {
        file.write(0, &filled(4, 1), 4 * BLOCK_BYTES, Sync::Data).unwrap();
        device.plant(FaultOp::Write, 0, 1);
        assert!(file.write(0, &filled(4, 2), 4 * BLOCK_BYTES, Sync::Data).unwrap_err().is_injected());
        let bytes = contents(&device, "d/log").unwrap();
        let torn = bytes.iter().take_while(|&&byte| byte == 2).count();
        assert!(is_all(&bytes[torn..], 1) && torn.is_multiple_of(512));
        lengths.insert(torn);
    }
    assert!(lengths.len() > 5, "{lengths:?}");
}

#[test]
fn a_full_disk_answers_full_and_changes_nothing() {
    let device = MemoryDevice::new().with_capacity_bytes(4 * B);
    device.put(at("d/log"), &[1; BLOCK_BYTES]).unwrap();
    device.put(at("d/small"), b"old").unwrap();
    let file = device.open(at("d/log"), OpenMode::Write).unwrap();
    assert!(file.prepare(B, 4 * B).unwrap_err().is_full());
    assert_eq!(file.length().unwrap(), B);
    file.prepare(B, 3 * B).unwrap();
    assert!(device.write_small(at("d/small"), b"new").unwrap_err().is_full());
    assert_eq!(device.list(at("d")).unwrap().len(), 2, "the temporary file is gone");
    device.set_capacity_bytes(None);
    device.plant(FaultOp::Space, 1, 1);
    file.prepare(3 * B, 4 * B).unwrap();
    assert!(device.write_small(at("d/small"), b"new").unwrap_err().is_full());
    assert_eq!(contents(&device, "d/small").unwrap(), b"old");
    device.write_small(at("d/small"), b"new").unwrap();
}

#[test]
fn the_arguments_of_a_write_are_checked_and_locks_exclude() {
    let (device, file) = prepared();
    let buffer = filled(1, 1);
    for (position, length) in [(1, BLOCK_BYTES), (0, 100), (0, 2 * BLOCK_BYTES), (4 * B, BLOCK_BYTES)] {
        let error = file.write(position, &buffer, length, Sync::None).unwrap_err();
        assert_eq!(error.kind(), DeviceErrorKind::InvalidRange);
    }
    let reader = device.open(at("d/log"), OpenMode::Read).unwrap();
    assert!(reader.write(0, &buffer, BLOCK_BYTES, Sync::None).is_err());
    let kind = |path, mode| device.open(at(path), mode).err().map(|error| error.kind());
    assert_eq!(kind("d/log", OpenMode::Create), Some(DeviceErrorKind::AlreadyExists));
    assert_eq!(kind("d/none", OpenMode::Write), Some(DeviceErrorKind::NotFound));
    assert_eq!(kind("d", OpenMode::Read), Some(DeviceErrorKind::IsADirectory));
    let held = device.lock(at("d/.lock")).unwrap();
    assert_eq!(device.lock(at("d/.lock")).unwrap_err().kind(), DeviceErrorKind::Locked);
    drop(held);
    device.lock(at("d/.lock")).unwrap();
}

#[test]
fn the_same_calls_give_the_same_trace_and_any_other_do_not() {
    let run = |seed: u64, byte: u8, position: u64| {
        let (device, file) = prepared();
        file.write(position, &filled(1, byte), BLOCK_BYTES, Sync::None).unwrap();
        device.power_cut(seed);
        device.read_small(at("d/log"), u64::MAX).unwrap();
        (device.trace_hash(), contents(&device, "d/log"))
    };
    for seed in SEEDS {
        assert_eq!(run(seed, 7, 0), run(seed, 7, 0));
    }
    let traces = [run(1, 7, 0), run(2, 7, 0), run(1, 8, 0), run(1, 7, B)].map(|(trace, _)| trace);
    assert!((1..4).all(|index| !traces[..index].contains(&traces[index])));
}

#[test]
fn a_directory_of_the_host_comes_in_durable_and_goes_out_equal() {
    let host = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(host.path().join("t-0/empty")).unwrap();
    let bytes: Vec<u8> = (0..10_000).map(|number| (number / 4_096 * 100) as u8).collect();
    std::fs::write(host.path().join("t-0/log"), &bytes).unwrap();
    let clock = Arc::new(ManualClock::new(77));
    let device = MemoryDevice::new().with_clock(clock);
    device.load_directory(host.path()).unwrap();
    device.power_cut(1);
    let listed = device.list(&host.path().join("t-0")).unwrap();
    assert_eq!(
        listed.iter().map(|entry| (entry.is_directory, entry.modified_ms)).collect::<Vec<_>>(),
        [(true, 0), (false, 77)]
    );
    device.store_directory_as(host.path(), &host.path().join("out")).unwrap();
    assert_eq!(std::fs::read(host.path().join("out/t-0/log")).unwrap(), bytes);
    assert!(host.path().join("out/t-0/empty").is_dir());
}

/// Files that are written, synced and named at random: what was promised must be there after every cut.
#[test]
fn random_stories_keep_what_was_promised() {
    use crate::fault::chance::{below, mix2};
    for seed in 0..200 {
        let (device, file) = prepared();
        let mut floor = [0u8; 4]; // last durable byte of each block
        let mut allowed: [Vec<u8>; 4] = Default::default(); // bytes written to it since
        for step in 1..40u64 {
            let draw = |what: u64| mix2(mix2(seed, step), what);
            let block = below(draw(0), 4) as usize;
            let byte = step as u8;
            match below(draw(1), 10) {
                0 => {
                    file.sync().unwrap();
                    for block in 0..4 {
                        floor[block] = allowed[block].pop().unwrap_or(floor[block]);
                        allowed[block].clear();
                    }
                }
                1..4 => {
                    file.write(block as u64 * B, &filled(1, byte), BLOCK_BYTES, Sync::Data).unwrap();
                    floor[block] = byte;
                    allowed[block].clear();
                }
                _ => {
                    file.write(block as u64 * B, &filled(1, byte), BLOCK_BYTES, Sync::None).unwrap();
                    allowed[block].push(byte);
                }
            }
        }
        device.power_cut(seed);
        let bytes = contents(&device, "d/log").unwrap();
        for (block, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
            for sector in bytes.chunks(512) {
                let valid = sector[0] == floor[block] || allowed[block].contains(&sector[0]);
                assert!(valid && is_all(sector, sector[0]), "seed {seed} block {block}");
            }
        }
    }
}

#[test]
fn short_reads_are_filled_up_in_one_place() {
    let (device, file) = prepared();
    file.write(0, &filled(4, 7), 4 * BLOCK_BYTES, Sync::None).unwrap();
    device.plant(FaultOp::ShortRead, 0, 3);
    let mut bytes = [0; 5_000];
    let some = file.read_some(10, &mut bytes).unwrap();
    assert!((1..5_000).contains(&some), "{some}");
    assert_eq!(file.read(10, &mut bytes).unwrap(), 5_000);
    assert!(is_all(&bytes, 7));
    assert_eq!(device.faults_struck(), 3);
}

#[test]
fn a_lost_write_answers_well_and_stores_nothing() {
    let (device, file) = prepared();
    device.plant(FaultOp::LostWrite, 1, 1);
    file.write(0, &filled(1, 7), BLOCK_BYTES, Sync::Data).unwrap();
    file.write(B, &filled(1, 8), BLOCK_BYTES, Sync::Data).unwrap();
    file.write(2 * B, &filled(1, 9), BLOCK_BYTES, Sync::Data).unwrap();
    device.power_cut(3);
    let found = contents(&device, "d/log").unwrap();
    let blocks: Vec<u8> = found.chunks(BLOCK_BYTES).map(|block| block[0]).collect();
    assert_eq!(blocks, [7, 0, 9, 0]);
    assert_eq!(device.misplaced_writes(), [(at("/d/log").to_path_buf(), B..2 * B)]);
}

#[test]
fn a_misdirected_write_stands_where_it_is_said_to() {
    for before in 0..20 {
        let (device, file) = prepared();
        (0..before).for_each(|_| device.plant(FaultOp::ShortRead, 0, 1));
        (0..before).for_each(|_| drop(file.read_some(0, &mut [0; 8])));
        device.plant(FaultOp::MisdirectedWrite, 0, 1);
        file.write(B, &filled(1, 8), BLOCK_BYTES, Sync::Data).unwrap();
        device.power_cut(1);
        let found = contents(&device, "d/log").unwrap();
        let misplaced = device.misplaced_writes();
        assert_eq!((misplaced.len(), &misplaced[0].1), (2, &(B..2 * B)));
        let aimed = &found[misplaced[1].1.start as usize..misplaced[1].1.end as usize];
        assert!(is_all(aimed, 8), "{misplaced:?}");
        assert_eq!(found.iter().filter(|&&byte| byte == 8).count(), BLOCK_BYTES);
    }
}

#[test]
fn a_damaged_sector_stays_damaged_until_it_is_written() {
    use crate::memory::SectorDamage;
    for kind in [SectorDamage::Flipped, SectorDamage::Zeroed, SectorDamage::Unreadable] {
        let (device, file) = prepared();
        file.write(0, &filled(4, 7), 4 * BLOCK_BYTES, Sync::None).unwrap();
        assert!(device.damage_sector(at("d/log"), B + 700, kind).unwrap());
        assert!(!device.damage_sector(at("d/log"), 4 * B, kind).unwrap());
        file.sync().unwrap();
        device.power_cut(2);
        let file = device.open(at("d/log"), OpenMode::Write).unwrap();
        let mut sector = [0; 512];
        let answer = file.read(B + 512, &mut sector);
        match kind {
            SectorDamage::Flipped => assert_eq!(sector.iter().filter(|&&byte| byte != 7).count(), 1),
            SectorDamage::Zeroed => assert!(is_all(&sector, 0)),
            SectorDamage::Unreadable => assert_eq!(answer.unwrap_err().errno(), Some(5)),
        }
        assert_eq!(file.read(B, &mut sector).unwrap(), 512);
        assert!(is_all(&sector, 7), "its neighbour");
        file.write(B, &filled(1, 9), BLOCK_BYTES, Sync::Data).unwrap();
        assert_eq!(file.read(B + 512, &mut sector).unwrap(), 512);
        assert!(is_all(&sector, 9));
    }
}

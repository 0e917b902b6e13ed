//! The power cut for the real write path: a run over io_uring or plain system calls is recorded, and every disk that a
//! cut at any moment could have left is opened and held against what had been answered by then.
//!
//! By default a part; `ONCELOG_RECORDER=200,2000` is 200 small histories with all their disks and 2,000 large ones by
//! seed.

mod chance;
mod check;
mod large;
mod run;
mod small;

use check::check;
use oncelog_device::record::Disk;
use run::Run;
use std::collections::HashSet;

/// More disks at one moment than a small history may have: it would not be one that is tried whole.
const MOST_DISKS: usize = 20_000;
/// Moments of a large history at which the power goes.
const CUTS: u64 = 8;

/// Histories to try: small, large.
fn counts() -> (u64, u64) {
    let asked = std::env::var("ONCELOG_RECORDER").unwrap_or_else(|_| "60,60".into());
    let (small, large) = asked.split_once(',').expect("SMALL,LARGE");
    (small.parse().expect("a number"), large.parse().expect("a number"))
}

#[test]
fn every_disk_that_a_cut_can_leave_keeps_what_was_answered() {
    let (mut moments, mut disks) = (0, 0);
    for seed in 0..counts().0 {
        let run = small::record(seed);
        let mut seen = HashSet::new();
        // From the end: a disk that several moments may leave is held against the most that was answered.
        for moment in (0..=run.history.moments()).rev() {
            moments += 1;
            let all = run.history.disks(moment, MOST_DISKS);
            let all = all.unwrap_or_else(|| panic!("seed {seed}: more than {MOST_DISKS} disks at moment {moment}"));
            for disk in all.into_iter().filter(|disk| seen.insert(disk.hash())) {
                disks += 1;
                if let Err(wrong) = check(&run, &disk, moment) {
                    panic!("seed {seed}, power cut at moment {moment}: {wrong}\n{}", report(&run, &disk, moment));
                }
            }
        }
    }
    println!("{} small histories, {moments} moments, {disks} different disks", counts().0);
    assert!(disks > 20 * counts().0, "hardly anything was tried: {disks} disks");
}

#[test]
fn large_histories_of_several_threads_survive_cuts_by_seed() {
    let (mut disks, mut events) = (0, 0);
    for seed in 0..counts().1 {
        let run = large::record(seed);
        events += run.history.moments();
        for cut in 0..CUTS {
            let chance = chance::mix(seed ^ cut << 48);
            let moment = (chance % (run.history.moments() as u64 + 1)) as usize;
            let disk = run.history.disk(moment, chance);
            disks += 1;
            let mut checked = check(&run, &disk, moment);
            if checked.is_ok() && seed % 50 == 0 && cut == 0 {
                checked = in_a_directory(&run, &disk, moment);
            }
            if let Err(wrong) = checked {
                panic!("seed {seed}, cut {cut} at moment {moment}: {wrong}\n{}", report(&run, &disk, moment));
            }
        }
    }
    println!("{} large histories, {events} moments in all, {disks} cuts", counts().1);
}

fn report(run: &Run, disk: &Disk, moment: usize) -> String {
    format!("{}\nleft on the disk:\n{}", run.history.lines(moment).join("\n"), disk.names().join("\n"))
}

/// The same disk on this machine's file system.
fn in_a_directory(run: &Run, disk: &Disk, moment: usize) -> Result<(), String> {
    let place = tempfile::tempdir().expect("a directory");
    disk.write_below(&run.root, place.path()).expect("files");
    check::check_at(run, oncelog_device::open_device(Default::default()).expect("a device"), place.path(), moment)
}

/// The recorder's own worth: what the engine may not rely on must show.
#[test]
fn an_answer_before_the_sync_is_found() {
    let mut run = small::record(3);
    let last = run.sent.len() - 1;
    run.claimed.push(last);
    let first = run.history.moments() / 2;
    let found = (first..=run.history.moments()).any(|moment| {
        let disks = run.history.disks(moment, MOST_DISKS).expect("a small history");
        disks.iter().any(|disk| check(&run, disk, moment).is_err())
    });
    assert!(found, "a false claim of durability was believed");
}

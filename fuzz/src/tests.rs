use super::*;
use crate::run::{guarded, run};
use crate::targets::{ALL, Outcome};

#[test]
fn every_built_in_seed_decodes() {
    for target in &ALL {
        let seeds = seeds::builtin(target.name);
        assert!(!seeds.is_empty(), "{} has seeds", target.name);
        for seed in seeds {
            assert_eq!(guarded(target, &seed), Ok(true), "{} {}", target.name, hex::encode(&seed));
        }
    }
}

#[test]
fn every_target_decodes_some_and_refuses_some_and_finds_nothing() {
    for target in &ALL {
        let summary = run(target, &seeds::builtin(target.name), 1, 500);
        assert_eq!(summary.finding, None, "{}", target.name);
        assert!(summary.decoded > 0 && summary.decoded < summary.inputs, "{}: {summary:?}", target.name);
    }
}

#[test]
fn a_seed_means_the_same_inputs_every_time() {
    for target in &ALL {
        let seeds = seeds::builtin(target.name);
        let [first, again, other] = [7, 7, 8].map(|seed| run(target, &seeds, seed, 200));
        assert_eq!(first, again, "{}", target.name);
        assert_ne!(first.trace, other.trace, "{}", target.name);
    }
}

#[test]
fn a_broken_decoder_is_found() {
    fn panics(input: &[u8]) -> Outcome {
        Ok(input[5] == 0)
    }
    fn lies(input: &[u8]) -> Outcome {
        if input.len() > 20 { Err("longer than 20".to_owned()) } else { Ok(true) }
    }
    /// Believes its first four bytes.
    fn greedy(input: &[u8]) -> Outcome {
        let claimed = input.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
        Ok(Vec::<u8>::with_capacity(claimed as usize).is_empty())
    }
    run::silence_panics();
    let broken = [
        (panics as fn(&[u8]) -> Outcome, "index out of bounds"),
        (lies, "longer than 20"),
        (greedy, "bytes allocated"),
    ];
    for (check, reason) in broken {
        let target = Target::plain("broken", check);
        let finding = run(&target, &seeds::builtin("snapshot"), 1, 1000).finding.expect("found");
        assert!(finding.reason.contains(reason), "{}", finding.reason);
        assert!(guarded(&target, &finding.input).is_err(), "and again");
    }
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory as _;
    Args::command().debug_assert();
    assert!(Args::try_parse_from(["oncelog-fuzz", "--target", "nothing"]).is_err());
}

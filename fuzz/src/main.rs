//! `oncelog-fuzz`: random and injured inputs against every decoder of the formats crate.
//!
//! A plain program and no cargo-fuzz target: it needs no nightly compiler and no coverage runtime, and a seed gives the
//! same inputs on every machine. What it lacks is coverage feedback; valid seeds and repaired checksums stand in for
//! it. Build without `--release` to have arithmetic overflow found as well.

mod mutate;
mod prng;
mod run;
mod seeds;
mod targets;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use targets::Target;

/// Feeds random and injured inputs to every decoder; each must not panic and not allocate more than the input
/// justifies, and what decodes must encode and decode to the same. Exit code 0: nothing found. 1: found, with the input
/// in hexadecimal. 2: could not run.
#[derive(Parser)]
#[command(name = "oncelog-fuzz", version)]
struct Args {
    /// Seed of all chance.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Inputs for each target.
    #[arg(long, default_value_t = 10_000)]
    iterations: u64,
    /// Which decoder.
    #[arg(long, default_value = "all", value_parser = names())]
    target: String,
    /// Directory of files written by Kafka, to start from besides the built-in inputs; `testdata` if that exists.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// Checks this one input (hexadecimal) and nothing else.
    #[arg(long, value_name = "HEX")]
    replay: Option<String>,
}

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(["all"].into_iter().chain(targets::ALL.iter().map(|target| target.name)))
}

fn main() -> ExitCode {
    let args = Args::parse();
    run::silence_panics();
    let outcome = match &args.replay {
        Some(text) => replay(&args, text),
        None => fuzz(&args),
    };
    match outcome {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => ExitCode::from(1),
        Err(error) => {
            eprintln!("oncelog-fuzz: {error}");
            ExitCode::from(2)
        }
    }
}

fn chosen(args: &Args) -> impl Iterator<Item = &'static Target> {
    targets::ALL.iter().filter(|target| args.target == "all" || args.target == target.name)
}

/// Whether anything was found.
fn fuzz(args: &Args) -> io::Result<bool> {
    let fallback = Path::new("testdata");
    let corpus = args.corpus.as_deref().or(fallback.is_dir().then_some(fallback));
    let mut found = false;
    println!("seed {}, {} inputs for each target", args.seed, args.iterations);
    println!("{:<20} {:>6} {:>9} {:>9} {:>9}  trace", "target", "seeds", "inputs", "decoded", "refused");
    for target in chosen(args) {
        let mut seeds = seeds::builtin(target.name);
        if let Some(directory) = corpus {
            seeds.extend(seeds::from_directory(directory, target.name)?);
        }
        let summary = run::run(target, &seeds, args.seed, args.iterations);
        let refused = summary.inputs - summary.decoded - u64::from(summary.finding.is_some());
        println!(
            "{:<20} {:>6} {:>9} {:>9} {:>9}  {:016x}",
            target.name,
            seeds.len(),
            summary.inputs,
            summary.decoded,
            refused,
            summary.trace
        );
        if let Some(finding) = summary.finding {
            found = true;
            println!("  FOUND at input {}: {}", finding.iteration, finding.reason);
            println!("  --target {} --replay {}", target.name, hex::encode(&finding.input));
        }
    }
    println!("{}", if found { "findings: see above" } else { "no findings" });
    Ok(found)
}

fn replay(args: &Args, text: &str) -> io::Result<bool> {
    let input = hex::decode(text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let mut found = false;
    for target in chosen(args) {
        let outcome = run::guarded(target, &input);
        found |= outcome.is_err();
        match outcome {
            Ok(true) => println!("{}: decoded", target.name),
            Ok(false) => println!("{}: refused", target.name),
            Err(reason) => println!("{}: FOUND {reason}", target.name),
        }
    }
    Ok(found)
}

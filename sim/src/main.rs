//! `oncelog-sim`: tells seeded crash histories and says what they came to.

use clap::Parser;
use oncelog_sim::{STEPS, Shortest, Total, run_seeds, shortest};
use std::ops::Range;
use std::process::ExitCode;

/// Runs seeded crash histories and checks what was acknowledged against what is found.
#[derive(Debug, Parser)]
#[command(name = "oncelog-sim", version)]
struct Arguments {
    /// Seeds to run: first..behind the last, or one seed.
    #[arg(long, default_value = "0..100", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Steps of each story.
    #[arg(long, default_value_t = STEPS)]
    operations: usize,
    /// Threads to run stories on, each story on one; the output is the same for any number.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Make the first seed that fails as short as it gets, and print it with `play` scripts.
    #[arg(long)]
    minimise: bool,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let number = |part: &str| {
        let parsed = part.trim().parse::<u64>();
        parsed.map_err(|error| format!("{part:?}: {error}"))
    };
    let seeds = match text.split_once("..") {
        Some((first, behind)) => number(first)?..number(behind)?,
        None => {
            let seed = number(text)?;
            seed..seed.checked_add(1).ok_or("the seed is the last number there is")?
        }
    };
    if seeds.is_empty() {
        return Err(format!("{text:?} holds no seed"));
    }
    Ok(seeds)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A panic inside a story is one of its violations and is printed as such.
    std::panic::set_hook(Box::new(|_| {}));
    let total = run_seeds(arguments.seeds, arguments.operations, arguments.jobs);
    for (seed, reason) in &total.violations {
        eprintln!("seed {seed}: {reason}");
    }
    let failing = total.violations.first().filter(|_| arguments.minimise);
    if let Some(shortest) = failing.and_then(|(seed, _)| shortest(*seed, arguments.operations)) {
        print_shortest(&shortest);
    }
    print_total(&total, arguments.json);
    ExitCode::from(u8::from(!total.violations.is_empty()))
}

fn print_shortest(shortest: &Shortest) {
    eprintln!("{}", shortest.setup);
    shortest.steps.iter().for_each(|step| eprintln!("  {step}"));
    shortest.violations.iter().for_each(|reason| eprintln!("=> {reason}"));
    for (log, lines) in shortest.scripts.iter().enumerate() {
        eprintln!("-- play script of log {log}");
        lines.iter().for_each(|line| eprintln!("{line}"));
    }
}

fn print_total(total: &Total, json: bool) {
    let (violations, trace_hash) = (total.violations.len(), format!("{:016x}", total.trace_hash));
    let Total { seeds, operations, power_cuts, .. } = total;
    if json {
        let object = serde_json::json!({
            "seeds": seeds,
            "operations": operations,
            "power_cuts": power_cuts,
            "violations": violations,
            "trace_hash": trace_hash,
        });
        println!("{object}");
    } else {
        println!(
            "{seeds} seeds, {operations} operations, {power_cuts} power cuts, {violations} violations, trace {trace_hash}"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_a_range_or_one() {
        assert_eq!(parse_seeds("3..5"), Ok(3..5));
        assert_eq!(parse_seeds("7"), Ok(7..8));
        assert!(parse_seeds("5..5").is_err());
        assert!(parse_seeds("x").is_err());
    }
}

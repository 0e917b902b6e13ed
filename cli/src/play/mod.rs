//! `oncelog play`: operations in, answers out, one JSON object a line. `play.md` is the reference.

mod answer;
mod batches;
mod explain;
mod files;
mod growth;
mod guards;
mod operations;
mod places;
mod script;
mod session;
mod settings;

use answer::Stop;
use clap::Args;
use oncelog_device::DeviceKind;
use serde_json::{Value, json};
use session::Session;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Runs a script of operations and prints an answer for each line.
#[derive(Args, Debug)]
pub struct PlayArgs {
    /// Script, one JSON object a line; standard input where it is left out or `-`.
    script: Option<PathBuf>,
    /// Directory that relative `dir` fields lie below; a fresh one, removed at the end, where it is left out.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Device of logs whose `config` names none.
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceKind,
}

fn parse_device(name: &str) -> Result<DeviceKind, String> {
    settings::device_kind(name).ok_or_else(|| "auto, uring, blocking or memory".to_owned())
}

/// Exit code 0 after the last line, 2 at a line that cannot be followed; the answers up to there are printed.
pub fn run(args: PlayArgs) -> Result<ExitCode, Box<dyn Error>> {
    let script: Box<dyn BufRead> = match args.script {
        Some(path) if path != Path::new("-") => {
            Box::new(BufReader::new(File::open(&path).map_err(|error| format!("{}: {error}", path.display()))?))
        }
        _ => Box::new(io::stdin().lock()),
    };
    match args.root {
        Some(root) => {
            std::fs::create_dir_all(&root).map_err(|error| format!("{}: {error}", root.display()))?;
            follow(Session::new(&std::path::absolute(root)?, args.device), script, None)
        }
        None => {
            let fresh = tempfile::tempdir()?;
            follow(Session::new(fresh.path(), args.device), script, fresh.path().to_str())
        }
    }
}

/// Answers line by line. `hidden` is a name that differs from run to run and is cut out of the answers.
fn follow(mut session: Session, script: impl BufRead, hidden: Option<&str>) -> Result<ExitCode, Box<dyn Error>> {
    let mut out = BufWriter::new(io::stdout().lock());
    for (number, line) in (1..).zip(script.split(b'\n')) {
        let line = line?;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let answer = serde_json::from_slice(&line)
            .map_err(|error| Stop::Mistake(script::Mistake::new(format!("no JSON: {error}"))))
            .and_then(|line: Value| session.run(&line));
        let answer = match answer {
            Ok(answer) => json!({ "ok": answer }),
            Err(Stop::Refused(refusal)) => refusal.to_json(),
            Err(Stop::Mistake(mistake)) => {
                out.flush()?;
                eprintln!("line {number}: {mistake}");
                return Ok(ExitCode::from(2));
            }
        };
        let mut answer = answer.to_string();
        if let Some(hidden) = hidden {
            answer = answer.replace(hidden, "");
        }
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(ExitCode::SUCCESS)
}

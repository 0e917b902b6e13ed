//! `oncelog demo`: the main job in under a minute.
//!
//! A child process appends from several producers, with retries that nobody needed. It is killed with SIGKILL at random
//! moments, also while it recovers. The parent keeps the books of what was acknowledged as durable; at the end
//! everything is read back and held against them. Nothing in the table is assumed: losses and doubles are counted from
//! what is stored.

pub mod ledger;
pub mod workload;
pub mod writer;

use crate::common::{CliError, CliResult, DeviceArg, Outcome, Output, Place, open_for_reading};
use crate::read::each_record;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use ledger::{Ledger, Tally};
use oncelog::{Ack, Clock, Isolation, SystemClock};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};
use workload::{BATCH_RECORDS, Chance, VALUE_BYTES};
use writer::{Plan, Told};

/// The name of the hidden command that the child runs.
pub const WRITER_COMMAND: &str = "demo-writer";
/// One session in this many is killed while it opens, or shortly after.
const EARLY_KILL_EVERY: u64 = 4;
const EARLY_KILL_MS: u64 = 40;

/// Shows that nothing is lost and nothing doubled, by killing a writer again and again.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How long to write.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// How often to kill the writer.
    #[arg(long, default_value_t = 10)]
    kills: u64,
    /// How many producers.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=256))]
    producers: u64,
    /// Where to put the data directory; a temporary one where it is not given.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Keep the data directory and say where it is.
    #[arg(long)]
    keep: bool,
    /// From which the records and the moments of the kills follow; the clock's where it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How to reach the disk.
    #[arg(long, value_enum, default_value_t)]
    device: DeviceArg,
    /// One JSON object as the last line.
    #[arg(long)]
    json: bool,
}

/// Runs `oncelog demo`.
pub fn run(args: &DemoArgs) -> CliResult {
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    std::fs::create_dir_all(&parent).map_err(|e| CliError::io(parent.display(), e))?;
    let data = tempfile::Builder::new().prefix("oncelog-demo-").tempdir_in(&parent);
    let mut data = data.map_err(|e| CliError::io(parent.display(), e))?;
    data.disable_cleanup(args.keep);
    let seed = args.seed.unwrap_or_else(|| SystemClock::new().now_ms().unsigned_abs());
    let mut demo = Demo {
        args,
        directory: data.path().join("demo-0"),
        seed,
        chance: Chance::new(seed),
        ledger: Ledger::new(seed, args.producers as usize),
        kills: 0,
        recoveries_ms: Vec::new(),
        writing: Duration::ZERO,
    };
    demo.write_and_kill()?;
    let (tally, stored_bytes) = demo.read_back()?;
    demo.print(&tally, stored_bytes)?;
    if args.keep {
        eprintln!("kept: {}", demo.directory.display());
    }
    let fine = tally.is_fine() && demo.ledger.contradictions.is_empty();
    Ok(if fine { Outcome::Fine } else { Outcome::Wrong })
}

struct Demo<'a> {
    args: &'a DemoArgs,
    directory: PathBuf,
    seed: u64,
    chance: Chance,
    ledger: Ledger,
    kills: u64,
    recoveries_ms: Vec<f64>,
    writing: Duration,
}

impl Demo<'_> {
    fn write_and_kill(&mut self) -> CliResult<()> {
        let bar = ProgressBar::new(self.args.kills + 1);
        let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_message("sessions");
        bar.enable_steady_tick(Duration::from_millis(200));
        let session_ms = self.args.seconds * 1000 / (self.args.kills + 1);
        for session in 0..=self.args.kills {
            let killed = session < self.args.kills;
            let early = killed && session % EARLY_KILL_EVERY == EARLY_KILL_EVERY - 1;
            let ms = match killed {
                _ if early => self.chance.below(EARLY_KILL_MS),
                true => session_ms / 2 + self.chance.below(session_ms.max(1)),
                false => session_ms,
            };
            self.session(Duration::from_millis(ms), killed, early)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// One life of the writer. The time counts from its start if it dies `early`, else from the moment the log is open.
    fn session(&mut self, length: Duration, killed: bool, early: bool) -> CliResult<()> {
        let started = Instant::now();
        let (mut child, stdin) = start(&self.plan())?;
        let stdout = child.stdout.take().ok_or_else(|| CliError::Refused("the writer has no output".into()))?;
        let (opened, is_open) = std::sync::mpsc::channel();
        let ledger = &mut self.ledger;
        let recoveries_ms = &mut self.recoveries_ms;
        let first = self.kills == 0;
        let status = std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut stdout = BufReader::new(stdout);
                let mut line = String::new();
                while stdout.read_line(&mut line).is_ok_and(|read| read > 0) {
                    match Told::parse(&line) {
                        Some(Told::Open(ms)) => {
                            if !first {
                                recoveries_ms.push(ms);
                            }
                            let _ = opened.send(());
                        }
                        Some(Told::Answer(producer, batch, offset, answer)) => {
                            ledger.enter(producer, batch, offset, answer)
                        }
                        Some(Told::Bad(text)) => ledger.contradictions.push(text),
                        None => {}
                    }
                    line.clear();
                }
            });
            if !early {
                // An error here means that the writer died by itself, which its exit status shows.
                let _ = is_open.recv();
            }
            std::thread::sleep(length);
            if killed {
                child.kill()?;
            }
            drop(stdin);
            child.wait()
        });
        let status = status.map_err(|e| CliError::io("the writer", e))?;
        if killed && status.code().is_none() {
            self.kills += 1;
        } else if killed || !status.success() {
            return Err(CliError::Refused(format!("the writer stopped by itself: {status}")));
        }
        self.writing += started.elapsed();
        Ok(())
    }

    fn plan(&self) -> Plan {
        Plan {
            directory: self.directory.clone(),
            device: self.args.device,
            seed: self.seed,
            ack: Some(Ack::Durable),
            segment_bytes: 64 << 20,
            next: self.ledger.acknowledged().iter().map(|offsets| offsets.len() as u64).collect(),
        }
    }

    fn read_back(&self) -> CliResult<(Tally, u64)> {
        let bar = crate::common::spinner("records read back");
        let place = Place::existing(&self.directory)?;
        let (_engine, log) = open_for_reading(&place)?;
        let state = log.describe()?;
        let mut reading = self.ledger.reading();
        each_record(&log, state.log_start_offset, Isolation::Committed, &mut |_, record| {
            reading.found(record.offset, record.value.unwrap_or_default());
            bar.inc(1);
            Ok(ControlFlow::Continue(()))
        })?;
        bar.finish_and_clear();
        Ok((reading.finish(), state.segments.iter().map(|segment| segment.size_bytes).sum()))
    }

    fn print(&self, tally: &Tally, stored_bytes: u64) -> CliResult<()> {
        let seconds = self.writing.as_secs_f64();
        let records_per_s = tally.sent as f64 / seconds;
        let mb_per_s = records_per_s * VALUE_BYTES as f64 / 1e6;
        let recovery_ms_max = self.recoveries_ms.iter().copied().fold(0.0, f64::max);
        let duplicates = self.ledger.duplicates_answered;
        let mut output = Output::new();
        for text in self.ledger.contradictions.iter().take(20) {
            output.line(format_args!("contradiction: {text}"))?;
        }
        if self.args.json {
            output.line(json!({
                "sent": tally.sent, "lost": tally.lost, "doubled": tally.doubled, "moved": tally.moved, "foreign": tally.foreign,
                "contradictions": self.ledger.contradictions.len(), "kills": self.kills, "duplicates_answered": duplicates,
                "recovery_ms_max": recovery_ms_max, "records_per_s": records_per_s.round(), "mb_per_s": (mb_per_s * 10.0).round() / 10.0,
                "seconds": (seconds * 10.0).round() / 10.0, "producers": self.args.producers, "batch_records": BATCH_RECORDS,
                "stored_bytes": stored_bytes, "seed": self.seed,
            }))?;
            return output.flush();
        }
        let mut row = |name: &str, value: String| output.line(format_args!("{name:<38}{value:>16}"));
        row("records acknowledged as durable", tally.sent.to_string())?;
        row("lost", tally.lost.to_string())?;
        row("doubled", tally.doubled.to_string())?;
        row("at another offset than acknowledged", tally.moved.to_string())?;
        row("that nobody wrote", tally.foreign.to_string())?;
        row("answers that contradict each other", self.ledger.contradictions.len().to_string())?;
        row("kills", self.kills.to_string())?;
        row("retries answered as duplicates", duplicates.to_string())?;
        row("longest recovery", format!("{recovery_ms_max:.1} ms"))?;
        row("throughput, records", format!("{records_per_s:.0}/s"))?;
        row("throughput, values", format!("{mb_per_s:.1} MB/s"))?;
        row("stored", format!("{:.1} MB", stored_bytes as f64 / 1e6))?;
        row("seed", self.seed.to_string())?;
        output.flush()
    }
}

fn start(plan: &Plan) -> CliResult<(Child, ChildStdin)> {
    let program = std::env::current_exe().map_err(|e| CliError::io("this program", e))?;
    let spawned = Command::new(&program).arg(WRITER_COMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|e| CliError::io(program.display(), e))?;
    let mut stdin = child.stdin.take().ok_or_else(|| CliError::Refused("the writer has no input".into()))?;
    writeln!(stdin, "{}", plan.to_json()).map_err(|e| CliError::io(Path::new("the writer").display(), e))?;
    Ok((child, stdin))
}

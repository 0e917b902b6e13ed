//! The `oncelog` command. Exit codes: 0 fine, 1 found something wrong, 2 could not run.

mod common;

mod append;
mod demo;
mod doctor;
mod document;
mod dump;
mod play;
mod producers;
mod read;
mod recover;
mod verify;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// An exactly-once log that reads and writes Apache Kafka's files.
#[derive(Parser)]
#[command(name = "oncelog", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Append(append::AppendArgs),
    Demo(demo::DemoArgs),
    #[command(name = demo::WRITER_COMMAND, hide = true)]
    DemoWriter,
    Doctor(doctor::DoctorArgs),
    Dump(dump::DumpArgs),
    Play(play::PlayArgs),
    Producers(producers::ProducersArgs),
    Read(read::ReadArgs),
    Recover(recover::RecoverArgs),
    Verify(verify::VerifyArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Append(args) => return common::finish(append::run(&args)),
        Command::Demo(args) => return common::finish(demo::run(&args)),
        Command::DemoWriter => return common::finish(demo::writer::run()),
        Command::Doctor(args) => return common::finish(doctor::run(&args)),
        Command::Dump(args) => dump::run(args),
        Command::Play(args) => play::run(args),
        Command::Producers(args) => return common::finish(producers::run(&args)),
        Command::Read(args) => return common::finish(read::run(&args)),
        Command::Recover(args) => return common::finish(recover::run(&args)),
        Command::Verify(args) => return common::finish(verify::run(&args)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("oncelog: {error}");
        ExitCode::from(2)
    })
}

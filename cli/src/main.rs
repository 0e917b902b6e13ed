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
mod transactions;
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
    Abort(transactions::abort::AbortArgs),
    Append(append::AppendArgs),
    Demo(demo::DemoArgs),
    #[command(name = demo::WRITER_COMMAND, hide = true)]
    DemoWriter,
    Doctor(doctor::DoctorArgs),
    Dump(dump::DumpArgs),
    Explain(transactions::explain::ExplainArgs),
    FindHanging(transactions::hanging::HangingArgs),
    Play(play::PlayArgs),
    Producers(producers::ProducersArgs),
    Read(read::ReadArgs),
    Recover(recover::RecoverArgs),
    Transactions(transactions::TransactionsArgs),
    Verify(verify::VerifyArgs),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Abort(args) => return common::finish(transactions::abort::run(&args)),
        Command::Append(args) => return common::finish(append::run(&args)),
        Command::Demo(args) => return common::finish(demo::run(&args)),
        Command::DemoWriter => return common::finish(demo::writer::run()),
        Command::Doctor(args) => return common::finish(doctor::run(&args)),
        Command::Explain(args) => return common::finish(transactions::explain::run(&args)),
        Command::FindHanging(args) => return common::finish(transactions::hanging::run(&args)),
        Command::Transactions(args) => return common::finish(transactions::run(&args)),
        Command::Dump(args) => return common::finish(dump::run(&args)),
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

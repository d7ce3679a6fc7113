//! The commands.

mod infra;
mod signals;
mod up;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Runs kontor on this machine.
#[derive(Parser)]
#[command(name = "local", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs PostgreSQL, Redis, Kafka and all services until Ctrl-C.
    Up(up::Options),
    /// Runs throw-away PostgreSQL, Redis and Kafka for a command, or until standard input ends.
    Infra(infra::Options),
}

/// Does what the arguments say.
pub async fn run() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Up(options) => up::run(options).await,
        Command::Infra(options) => infra::run(options).await,
    }
}

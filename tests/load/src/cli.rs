//! The commands.

use std::io::Write;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{ledger, memory, startup};

#[derive(Parser)]
#[command(
    name = "load",
    version,
    about = "Measures kontor on this machine. Build with --release."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What the ledger does in a second and how long each takes, against pgbench on the same server.
    Ledger(ledger::Options),
    /// How long `local up` takes, on an empty data folder and later.
    Startup(startup::Options),
    /// Resident memory of each process when idle.
    Memory(memory::Options),
}

/// Does what the arguments say.
pub async fn run() -> Result<()> {
    match Arguments::parse().command {
        Command::Ledger(options) => ledger::run(&options).await,
        Command::Startup(options) => startup::run(&options).await,
        Command::Memory(options) => memory::run(&options).await,
    }
}

/// Prints a line.
pub fn say(line: &str) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

//! `local infra`: one set of throw-away servers for many test processes.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::Args;
use local::{Infra, InfraOptions, Progress, SHARED};
use tokio::{process::Command, sync::oneshot};

use super::signals::Signals;

#[derive(Args)]
pub(super) struct Options {
    /// A command to run with the servers' addresses in `KONTOR_TEST_*`; its exit code becomes ours. Without one, the addresses
    /// are printed as a line of JSON (the value of `KONTOR_TEST_INFRA`).
    #[arg(trailing_var_arg = true)]
    command: Vec<String>,
}

pub(super) async fn run(options: Options) -> Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let infra = tokio::select! {
        infra = Infra::start(InfraOptions::default()) => infra?,
        () = signals.next() => return Ok(ExitCode::FAILURE),
    };
    let json = serde_json::to_string(infra.addresses())?;
    let Some((program, arguments)) = options.command.split_first() else {
        Progress::print().say(&json);
        tokio::select! {
            () = input_ends() => {}
            () = signals.next() => {}
        }
        return Ok(ExitCode::SUCCESS);
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .env(SHARED, json)
        .env("KONTOR_TEST_POSTGRES_URL", infra.postgres_url("postgres"))
        .env("KONTOR_TEST_REDIS_URL", infra.redis_url())
        .env("KONTOR_TEST_KAFKA_BROKERS", infra.kafka_brokers())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("Cannot run {program}"))?;
    tokio::select! {
        status = child.wait() => {
            let code = status?.code().and_then(|code| u8::try_from(code).ok());
            Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
        }
        // the command is in our process group, so a terminal has told it too
        () = signals.next() => Ok(ExitCode::FAILURE),
    }
}

/// Whoever started us holds the other end of standard input; when that ends, so do we.
async fn input_ends() {
    let (ended, end) = oneshot::channel::<()>();
    // a thread of its own, not the runtime's, which would wait for it when a signal comes first
    std::thread::spawn(move || {
        let copied = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop((copied, ended));
    });
    // the sender is only dropped, never used
    let _ = end.await;
}

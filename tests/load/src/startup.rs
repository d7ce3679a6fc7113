//! How long `local up` takes from its start to the line that says that everything is up.

use std::{
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::cli::say;

/// A start that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(2);

#[derive(Args)]
pub(crate) struct Options {
    /// How many later starts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    repeat: u32,
    /// Instances of each service.
    #[arg(long, default_value_t = 1)]
    replicas: u16,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let own = std::env::current_exe()?;
    let program = own.with_file_name("local");
    ensure!(
        program.exists(),
        "{} is missing: run cargo build --release --workspace --bins",
        program.display()
    );
    let data = tempfile::tempdir()?;
    say("| start | up after | stopped after |\n|---|---|---|")?;
    for round in 0..=options.repeat {
        let name = if round == 0 {
            "empty data folder".to_owned()
        } else {
            format!("later start {round}")
        };
        let (started, stopped) = once(&program, data.path(), options.replicas).await?;
        say(&format!(
            "| {name} | {} ms | {} ms |",
            started.as_millis(),
            stopped.as_millis()
        ))?;
    }
    Ok(())
}

async fn once(program: &Path, data: &Path, replicas: u16) -> Result<(Duration, Duration)> {
    let since = Instant::now();
    let mut child = Command::new(program)
        .arg("up")
        .arg("--data")
        .arg(data)
        .args([
            "--port",
            &local::ports::free_row(&(0..replicas).collect::<Vec<_>>())?.to_string(),
            "--inner-port",
            "32100",
        ])
        .args(["--replicas", &replicas.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("local has no process number")?;
    let mut lines = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let mut said = Vec::new();
    let up = timeout(LIMIT, async {
        while let Some(line) = lines.next_line().await? {
            let is_up = line.starts_with("kontor is up");
            said.push(line);
            if is_up {
                return anyhow::Ok(true);
            }
        }
        Ok(false)
    });
    let is_up = up.await.context("local up takes too long")??;
    ensure!(is_up, "local up failed:\n{}", said.join("\n"));
    let started = since.elapsed();
    let since = Instant::now();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGINT)?;
    // what it still says must be read, or it would wait for us
    while timeout(LIMIT, lines.next_line())
        .await
        .context("local up does not stop")??
        .is_some()
    {}
    let status = timeout(LIMIT, child.wait())
        .await
        .context("local up does not stop")??;
    ensure!(status.success(), "local up ended with {status}");
    Ok((started, since.elapsed()))
}

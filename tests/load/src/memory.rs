//! Resident memory of each process when idle.

use std::{fs, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Args;
use local::{Infra, InfraOptions, World, WorldOptions, demo};

use crate::cli::say;

#[derive(Args)]
pub(crate) struct Options {
    /// How long the processes rest before they are measured, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=600))]
    rest: u64,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    let infra = Arc::new(
        Infra::start(InfraOptions {
            durable: true,
            ..InfraOptions::default()
        })
        .await?,
    );
    let world = World::start(Arc::clone(&infra), WorldOptions::default()).await?;
    // each service has served something, so that what is made on first use is there
    demo::load(&world).await?;
    tokio::time::sleep(Duration::from_secs(options.rest)).await;
    say("| process | resident MB | with its children, shared pages once |\n|---|---|---|")?;
    for process in world.processes().iter().chain(&infra.processes()) {
        let pid = process
            .pid()
            .with_context(|| format!("{} does not run", process.name()))?;
        let (own, all) = (megabytes(resident(pid)?), megabytes(with_children(pid)?));
        say(&format!("| {} | {own} | {all} |", process.name()))?;
    }
    world.stop().await?;
    infra.stop().await
}

/// What the kernel counts for one process, shared libraries included, in KiB.
fn resident(pid: u32) -> Result<u64> {
    kib(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// What a process and its children take, in KiB; pages that several of them share (PostgreSQL's buffers) count once.
fn with_children(pid: u32) -> Result<u64> {
    family(pid)?
        .into_iter()
        .map(|pid| kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:"))
        .sum()
}

/// A line such as `VmRSS:   12345 kB`.
fn kib(file: &str, label: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(label))
        .with_context(|| format!("no {label} in {file}"))?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A process and its children.
fn family(parent: u32) -> Result<Vec<u32>> {
    let mut family = vec![parent];
    for thread in fs::read_dir(format!("/proc/{parent}/task"))? {
        let children = fs::read_to_string(thread?.path().join("children"))?;
        family.extend(
            children
                .split_whitespace()
                .filter_map(|pid| pid.parse::<u32>().ok()),
        );
    }
    Ok(family)
}

fn megabytes(kib: u64) -> String {
    format!("{}.{}", kib / 1024, kib % 1024 * 10 / 1024)
}

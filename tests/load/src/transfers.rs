//! Transfers per second through the gateway, against one transaction per transfer by pgbench on the same server.

mod client;
mod figures;
mod pgbench;
mod users;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use local::{Infra, InfraOptions, World, WorldOptions};
use rand::RngExt;
use serde_json::json;
use tokio::task::JoinSet;
use uuid::Uuid;

use self::{client::Client, figures::Figures, users::User};
use crate::cli::say;

#[derive(Args)]
pub(crate) struct Options {
    /// Users, who pay each other at random.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(2..=5_000))]
    users: u32,
    /// Clients at once, each waiting for its answer.
    #[arg(long, value_delimiter = ',', default_value = "8,32,64")]
    clients: Vec<usize>,
    /// How long each figure is measured, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// Instances of each service.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10))]
    replicas: u16,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "a debug build measures nothing: cargo run --release -p load -- transfers"
    );
    ensure!(
        options.clients.iter().all(|clients| (1..=500).contains(clients)),
        "--clients takes 1 to 500"
    );
    let infra = Arc::new(
        Infra::start(InfraOptions {
            durable: true,
            ..InfraOptions::default()
        })
        .await?,
    );
    let world = World::start(
        Arc::clone(&infra),
        WorldOptions {
            replicas: options.replicas.into(),
            ..WorldOptions::default()
        },
    )
    .await?;
    let users: Arc<[User]> = users::sign_up(&world, options.users).await?.into();
    pgbench::prepare(&infra, options.users).await?;
    let seconds = Duration::from_secs(options.seconds);
    say(&format!(
        "{} users, {} s each, {} instance(s) of each service",
        options.users, options.seconds, options.replicas
    ))?;
    say(
        "| clients | | transfers/s | p50 ms | p95 ms | p99 ms | max ms | of pgbench |\n|---|---|---|---|---|---|---|---|",
    )?;
    for clients in &options.clients {
        let peer = pgbench::measure(&infra, options.users, *clients, options.seconds).await?;
        say(&format!("| {clients} | pgbench {peer} | |"))?;
        // connections, caches and prepared statements first
        measure(&world, &users, *clients, Duration::from_secs(2)).await?;
        let ours = measure(&world, &users, *clients, seconds).await?;
        say(&format!(
            "| {clients} | kontor {ours} | {} % |",
            ours.per_second() * 100 / peer.per_second().max(1)
        ))?;
    }
    world.stop().await?;
    infra.stop().await
}

/// A closed loop: each client sends its next transfer when the last one is answered.
async fn measure(world: &World, users: &Arc<[User]>, clients: usize, during: Duration) -> Result<Figures> {
    let gateways = world.addresses(local::Service::Gateway);
    let mut workers = JoinSet::new();
    let since = Instant::now();
    for index in 0..clients {
        let address = gateways[index % gateways.len()].to_string();
        workers.spawn(work(address, Arc::clone(users), since + during));
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    Ok(Figures::new(latencies, since.elapsed()))
}

/// One client; returns the microseconds of each transfer. A transfer that is not accepted ends the measurement.
async fn work(address: String, users: Arc<[User]>, until: Instant) -> Result<Vec<u32>> {
    let mut client = Client::connect(&address).await?;
    let mut latencies = Vec::new();
    while Instant::now() < until {
        let (from, to) = pair(users.len());
        let (from, to) = (&users[from], &users[to]);
        let transfer = json!({"from": from.id, "to": to.id, "amount": 1, "transfer_id": Uuid::new_v4()});
        let since = Instant::now();
        let (status, answer) = client.post("/api/transfer", Some(&from.token), &transfer).await?;
        let latency = u32::try_from(since.elapsed().as_micros()).context("a transfer took an hour")?;
        ensure!(
            status.is_success(),
            "a transfer was not accepted: {status} {answer}"
        );
        latencies.push(latency);
    }
    Ok(latencies)
}

/// Two different numbers below `length`.
fn pair(length: usize) -> (usize, usize) {
    let first = rand::rng().random_range(0..length);
    let second = rand::rng().random_range(0..length - 1);
    (first, if second < first { second } else { second + 1 })
}

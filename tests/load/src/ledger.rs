//! The ledger's speed, against one transaction for each transfer by pgbench on the same server.

mod bulk;
mod generator;
mod history;
mod latency;
mod overload;
mod peer;
mod people;
mod rates;
mod requests;
mod table;
mod turns;
mod usage;

use std::{sync::Arc, time::Duration};

use anyhow::{Result, ensure};
use clap::{Args, ValueEnum};
use local::{Infra, InfraOptions, World, WorldOptions};
use rpc::caller::Key;
use sqlx::{Connection, PgConnection};

use self::{
    generator::{Link, Measured, Plan, Source},
    peer::Peer,
    table::Line,
    usage::Meter,
};
use crate::cli::say;

#[derive(Args)]
pub(crate) struct Options {
    /// How long each figure is measured, in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only these rows.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Row>,
    /// Transfers of the past, where reading is measured. Ten million take some minutes and 6 GB of disk.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(10_000..=100_000_000))]
    history: i64,
    /// Makes the same requests come at the same moments again; else by chance, and printed.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    /// The peer, which the ratios need.
    Pgbench,
    /// Single transfers by gRPC, 512 in flight.
    Uniform,
    /// The same through the gateway, by REST.
    Gateway,
    /// All on one account.
    Hot,
    /// Thousands in a call.
    Bulk,
    /// One client, no concurrency.
    Single,
    /// Latencies at half of the highest rates.
    Latency,
    /// Ten times as much as can be done.
    Overload,
    /// Lists and balances when there was much before.
    History,
}

/// A running kontor and what was found so far.
struct Bench {
    infra: Arc<Infra>,
    world: World,
    key: Key,
    meter: Meter,
    seconds: u64,
    next_seed: u64,
    peer: Option<Peer>,
    /// The highest rates that were found, straight and through the gateway.
    most: Option<u64>,
    most_by_gateway: Option<u64>,
    lines: Vec<Line>,
}

pub(crate) async fn run(options: &Options) -> Result<()> {
    ensure!(
        !cfg!(debug_assertions),
        "a debug build measures nothing: cargo run --release -p load -- ledger"
    );
    let mut bench = Bench::start(options).await?;
    let mut failed = 0;
    for row in Row::value_variants() {
        if !options.only.is_empty() && !options.only.contains(row) {
            continue;
        }
        // the other rows are worth having
        if let Err(error) = bench.measure_row(*row, options).await {
            failed += 1;
            say(&format!("could not be measured: {error:#}"))?;
        }
    }
    table::print(&bench.lines)?;
    bench.world.stop().await?;
    bench.infra.stop().await?;
    ensure!(failed == 0, "{failed} rows could not be measured");
    Ok(())
}

impl Bench {
    async fn start(options: &Options) -> Result<Self> {
        let infra = InfraOptions {
            durable: true,
            ..InfraOptions::default()
        };
        let infra = Arc::new(Infra::start(infra).await?);
        let world = World::start(Arc::clone(&infra), WorldOptions::default()).await?;
        let bench = Self {
            key: Key::new(&world.caller_secret().to_owned().into())?,
            meter: Meter::new(&world, &infra),
            infra,
            world,
            seconds: options.seconds,
            next_seed: options.seed.unwrap_or_else(|| u64::from(rand::random::<u32>())),
            peer: None,
            most: None,
            most_by_gateway: None,
            lines: Vec::new(),
        };
        say(&format!(
            "{} users, {} s for each figure, --seed {}",
            requests::USERS,
            bench.seconds,
            bench.next_seed
        ))?;
        people::open_accounts(&bench.world, &bench.key, &bench.meter).await?;
        people::sign_in(&bench.world).await?;
        Ok(bench)
    }

    async fn measure_row(&mut self, row: Row, options: &Options) -> Result<()> {
        match row {
            Row::Pgbench => {
                self.peer = Some(Peer::find(&self.infra, &self.meter, self.seconds).await?);
                Ok(())
            }
            Row::Uniform => rates::uniform(self).await.map(drop),
            Row::Gateway => rates::gateway(self).await,
            Row::Hot => rates::hot(self).await,
            Row::Bulk => bulk::measure(self).await,
            Row::Single => rates::single(self).await,
            Row::Latency => latency::measure(self).await,
            Row::Overload => overload::measure(self).await,
            Row::History => history::measure(self, options.history).await,
        }
    }

    /// The highest rate of single transfers, measured now unless it was before.
    async fn most(&mut self) -> Result<u64> {
        match self.most {
            Some(most) => Ok(most),
            None => rates::uniform(self).await,
        }
    }

    /// A seed that no other measurement of this run has: ids must not come twice.
    fn seed(&mut self) -> u64 {
        self.next_seed += 1;
        self.next_seed
    }

    fn during(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// No measurement shall pay for the pages that another has made dirty.
    async fn settle(&self) -> Result<()> {
        let mut postgres = PgConnection::connect(&self.infra.postgres_url("postgres")).await?;
        sqlx::query("CHECKPOINT").execute(&mut postgres).await?;
        postgres.close().await?;
        Ok(())
    }

    async fn measure<L: Link + 'static>(
        &self,
        name: &str,
        plan: Plan,
        source: impl Source,
    ) -> Result<Measured> {
        self.settle().await?;
        let measured = generator::run::<L, _>(plan, source, self.meter.clone()).await?;
        let latencies = measured.latencies().map(ToString::to_string).unwrap_or_default();
        say(&format!("{name}: {}/s, {latencies}", measured.per_second()))?;
        if !measured.refusals().is_empty() {
            say(&format!(
                "  not accepted (status: times): {}",
                measured.refusals()
            ))?;
        }
        say_usage(&measured)?;
        Ok(measured)
    }
}

fn say_usage(measured: &Measured) -> Result<()> {
    let usage = measured.usage.per_request(measured.finished);
    say(&format!("  CPU µs each: {usage}"))
}

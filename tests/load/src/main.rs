//! The benchmarks. Each runs for a bounded time on this machine, the peer in the same run. See README.md.

mod cli;
mod ledger;
mod memory;
mod startup;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cli::run().await
}

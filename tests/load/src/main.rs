//! The benchmarks. Each runs for a bounded time on this machine, the peer in the same run. See README.md.

mod cli;
mod memory;
mod startup;
mod transfers;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    cli::run().await
}

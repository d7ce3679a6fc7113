//! The `transfer` service as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rpc::process::run("transfer", "The ledger of kontor.", transfer::run).await
}

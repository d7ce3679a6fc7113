//! The `account` service as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rpc::process::run("account", "The users of kontor.", account::run).await
}

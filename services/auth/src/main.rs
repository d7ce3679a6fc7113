//! The `auth` service as a process.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    rpc::process::run("auth", "Sign-in and sessions of kontor.", auth::run).await
}

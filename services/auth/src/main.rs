//! The `auth` service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc::process::run("auth", "Sign-in and sessions of kontor.", auth::run)
}

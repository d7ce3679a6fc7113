//! The `transfer` service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc::process::run("transfer", "The ledger of kontor.", transfer::run)
}

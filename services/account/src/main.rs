//! The `account` service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc::process::run("account", "The users of kontor.", account::run)
}

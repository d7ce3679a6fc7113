//! The `gateway` as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc::process::run(
        "gateway",
        "The public door of kontor: REST and gRPC on one port.",
        gateway::run,
    )
}

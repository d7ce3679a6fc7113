//! The `chat` service as a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    rpc::process::run("chat", "Rooms, messages and their delivery.", chat::run)
}

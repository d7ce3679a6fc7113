//! `local up` runs a whole kontor, `local infra` lends its servers to tests. See README.md.

mod cli;

use std::{io::Write, process::ExitCode};

fn main() -> ExitCode {
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(cli::run()));
    outcome.unwrap_or_else(|error| {
        // standard error may be closed: the exit code still says it
        let _ = writeln!(std::io::stderr(), "✗ {error:#}");
        ExitCode::FAILURE
    })
}

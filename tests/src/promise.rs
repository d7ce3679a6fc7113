//! How a promise runs: on a runtime of its own, within a time limit, with a seed that is printed.

use std::{future::Future, time::Duration};

use anyhow::{Context as _, Result};

use crate::random;

/// A test that takes longer hangs.
const LIMIT: Duration = Duration::from_mins(4);

/// Runs a promise to its end. An error, or [a few minutes](LIMIT) without an end, fails it.
pub fn promise<F>(body: F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    promise_within(LIMIT, body)
}

/// Runs a promise that may take longer.
pub fn promise_within<F>(limit: Duration, body: F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    // libtest shows it when the test fails
    random::announce();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let outcome = runtime.block_on(async { tokio::time::timeout(limit, body).await });
    // what is left of it must not keep the test from ending
    runtime.shutdown_timeout(Duration::from_secs(5));
    outcome.with_context(|| format!("still not done after {} s", limit.as_secs()))?
}

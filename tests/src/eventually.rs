//! Waiting for a condition instead of a time.

use std::{
    fmt::Debug,
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const EVERY: Duration = Duration::from_millis(20);

/// Looks until `condition` returns a value, for at most `within`; then the error says what was waited for, and the last reason.
pub async fn eventually<T, F, Fut>(what: &str, within: Duration, condition: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    eventually_every(EVERY, what, within, condition).await
}

/// The same for a look that costs something.
pub async fn eventually_every<T, F, Fut>(
    every: Duration,
    what: &str,
    within: Duration,
    mut condition: F,
) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + within;
    let mut reason = "it was not looked at".to_owned();
    loop {
        // a look that hangs is one that failed
        let left = deadline.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => reason = format!("{error:#}"),
            Err(_) => reason.push_str(" (and the next look did not end)"),
        }
        if Instant::now() >= deadline {
            bail!("{what}: not within {} s; {reason}", within.as_secs_f32());
        }
        tokio::time::sleep(every).await;
    }
}

/// An error unless both are equal, for conditions.
pub fn same<T: PartialEq + Debug>(found: &T, wanted: &T) -> Result<()> {
    if found != wanted {
        bail!("{found:?} instead of {wanted:?}");
    }
    Ok(())
}

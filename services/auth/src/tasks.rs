//! What runs beside the requests.

use std::{sync::Arc, time::Duration};

use cache::Cache;
use lifecycle::Lifecycle;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    app::{Auth, CACHED, Clock, Passwords, SessionCache, Store},
    domain::session::TokenDigest,
    session_cache::Redis,
};

/// How often expired sessions are removed. They are refused from the moment they expire; this is only about space.
const SWEEP_EVERY: Duration = Duration::from_mins(1);
/// Ends of sessions that wait for Redis at most.
const REVOCATIONS: usize = 4_096;
const RETRY: Duration = Duration::from_millis(500);

/// Removes expired sessions, for as long as the process runs.
pub fn sweep<S, C, P, K>(lifecycle: &Lifecycle, auth: Arc<Auth<S, C, P, K>>)
where
    S: Store,
    C: SessionCache,
    P: Passwords,
    K: Clock,
{
    let life = lifecycle.clone();
    lifecycle.spawn("session sweeper", async move {
        loop {
            tokio::select! {
                () = life.stopping() => return,
                () = sleep(SWEEP_EVERY) => {}
            }
            match auth.sweep().await {
                Ok(0) => {}
                Ok(removed) => tracing::info!(sessions.removed = removed, "expired sessions removed"),
                Err(error) => tracing::warn!(%error, "expired sessions could not be removed"),
            }
        }
    });
}

/// Takes the ends of sessions that the cache missed, and tells it as soon as it can hear. After [`CACHED`] there can be no
/// copy left, so nothing is tried for longer.
pub fn revocations(lifecycle: &Lifecycle, config: cache::Config) -> mpsc::Sender<TokenDigest> {
    let (sender, mut waiting) = mpsc::channel::<TokenDigest>(REVOCATIONS);
    let life = lifecycle.clone();
    lifecycle.spawn("revocations", async move {
        let cache = Redis::new(Cache::connect(&config));
        loop {
            let digest = tokio::select! {
                () = life.stopping() => return,
                digest = waiting.recv() => digest,
            };
            // all senders gone: the service is being dropped
            let Some(digest) = digest else {
                return life.stopping().await;
            };
            tokio::select! {
                () = life.stopping() => return,
                () = revoke(&cache, digest) => {}
            }
        }
    });
    sender
}

async fn revoke(cache: &Redis, digest: TokenDigest) {
    let start = Instant::now();
    while let Err(error) = cache.revoke(digest).await {
        if start.elapsed() > CACHED {
            tracing::warn!(%error, "the cache never heard of the end of a session; no copy can be left");
            return;
        }
        sleep(RETRY).await;
    }
}

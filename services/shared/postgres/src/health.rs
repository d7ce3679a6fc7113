use std::time::{Duration, Instant};

use lifecycle::Lifecycle;
use sqlx::{Connection as _, PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::time::{sleep, timeout};

use crate::pool::{connect_once, session_lifetime};

const INTERVAL: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells `report` whether the database answers: first when it is known, then at each change, and false when the draining
/// begins.
///
/// It asks on a connection of its own, so that a pool that is only busy does not look like a database that is away (all
/// replicas would leave the balancer at the moment of the highest load).
pub fn watch_health<F, R>(pool: &PgPool, lifecycle: &Lifecycle, mut report: F)
where
    F: FnMut(bool) -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    let options = (*pool.connect_options()).clone();
    let lifetime = session_lifetime(pool);
    let life = lifecycle.clone();
    lifecycle.spawn("database health", async move {
        let watch = async {
            let mut session = None;
            let mut reported = None;
            loop {
                let good = answers(&mut session, lifetime, &options).await;
                if reported != Some(good) {
                    if good {
                        tracing::info!("the database answers");
                    } else {
                        tracing::warn!("the database is away");
                    }
                    report(good).await;
                    reported = Some(good);
                }
                sleep(INTERVAL).await;
            }
        };
        tokio::select! {
            () = watch => {}
            () = life.draining() => {}
        }
        report(false).await;
    });
}

/// A broken connection is no verdict yet: a new one is tried at once.
async fn answers(
    session: &mut Option<(PgConnection, Instant)>,
    lifetime: Duration,
    options: &PgConnectOptions,
) -> bool {
    if let Some((mut old, since)) = session.take()
        && let Ok(Ok(())) = timeout(ANSWER_TIMEOUT, old.ping()).await
    {
        // the database answers, whether a new session can be had at once or not
        let new = if since.elapsed() < lifetime {
            None
        } else {
            connect_once(options).await.ok()
        };
        *session = Some(new.map_or((old, since), |new| (new, Instant::now())));
        return true;
    }
    match connect_once(options).await {
        Ok(mut new) => {
            let good = matches!(timeout(ANSWER_TIMEOUT, new.ping()).await, Ok(Ok(())));
            *session = Some((new, Instant::now()));
            good
        }
        Err(error) => {
            tracing::debug!(%error, "no connection");
            false
        }
    }
}

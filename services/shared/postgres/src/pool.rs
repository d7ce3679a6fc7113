use std::time::Duration;

use opentelemetry::KeyValue;
use sqlx::{
    Connection as _, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgConnection, PgPoolOptions},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{Config, Error};

/// How long a service waits for its database when it starts: as long as whole clusters take that start at once. One that gave
/// up early would be started again by its supervisor, and later each time.
const START_TIMEOUT: Duration = Duration::from_secs(270);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for a free connection: longer, and it is better told to come back. A new one may have to be made, and TCP
/// asks again after 1 s and 3 s when nobody answers, as when a router has just gone.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(4);
/// Connections that are opened before somebody waits for one, as those that end are replaced.
const AT_LEAST: u32 = 2;
/// A connection that rested longer is tried before use: the server may have gone in the meantime. In a busy pool the
/// round trip is saved.
const TRUSTED: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// Set where a session has just been lost: others of the pool may be so too, however shortly they rested.
    static WARY: ();
}

/// Waits for the database to answer, at most four and a half minutes, and opens a pool.
///
/// # Errors
/// At once for a wrong user, password or database name; after the waiting time otherwise.
pub async fn connect(config: &Config) -> Result<PgPool, Error> {
    wait_for_server(&config.options).await?;
    let lifetime = config.lifetime;
    let pool = PgPoolOptions::new()
        .max_connections(config.connections)
        .min_connections(config.connections.min(AT_LEAST))
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(Duration::from_mins(10))
        .max_lifetime(lifetime)
        .test_before_acquire(false)
        .before_acquire(move |connection, metadata| {
            Box::pin(async move {
                // one that is over is used once more: the pool closes it behind that, and opens another meanwhile
                if metadata.age >= 2 * lifetime {
                    return Ok(false);
                }
                let is_trusted = metadata.idle_for < TRUSTED && WARY.try_with(|()| ()).is_err();
                Ok(is_trusted
                    || matches!(
                        timeout(Duration::from_secs(1), connection.ping()).await,
                        Ok(Ok(()))
                    ))
            })
        })
        .connect_lazy_with(config.options.clone());
    observe(&pool);
    Ok(pool)
}

/// Every session of a pool that the work takes is tried before use.
pub(crate) async fn wary<T>(work: impl Future<Output = T>) -> T {
    WARY.scope((), work).await
}

/// A session that was tried: for what takes one seldom and keeps it.
///
/// # Errors
/// As when any session is taken: above all when none can be had in time.
pub async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    wary(pool.acquire()).await
}

/// How long a session may last that is not the pool's: as long as the pool's own.
pub fn session_lifetime(pool: &PgPool) -> Duration {
    pool.options().get_max_lifetime().unwrap_or(Duration::MAX)
}

async fn wait_for_server(options: &PgConnectOptions) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(50);
    loop {
        let error = match connect_once(options).await {
            Ok(connection) => {
                // the server notices either way
                let _ = connection.close().await;
                return Ok(());
            }
            Err(error) => error,
        };
        if is_hopeless(&error) || start.elapsed() + pause > START_TIMEOUT {
            return Err(Error::Connect(error));
        }
        if start.elapsed() > Duration::from_secs(2) {
            tracing::warn!(%error, waited.seconds = start.elapsed().as_secs(), "waiting for the database");
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// One attempt to connect, with a time limit: a host that swallows packets must not hold it up for minutes.
pub(crate) async fn connect_once(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    match timeout(CONNECT_TIMEOUT, PgConnection::connect_with(options)).await {
        Ok(result) => result,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Wrong credentials (class 28) and a database that does not exist (3D000) do not mend themselves.
fn is_hopeless(error: &sqlx::Error) -> bool {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.is_some_and(|code| code.starts_with("28") || code == "3D000")
}

fn observe(pool: &PgPool) {
    let pool = pool.clone();
    // the meter keeps the callback; the returned handle has no use
    let _ = opentelemetry::global::meter("kontor")
        .u64_observable_gauge("db.client.connection.count")
        .with_description("connections of the pool, by state")
        .with_callback(move |gauge| {
            let idle = pool.num_idle() as u64;
            gauge.observe(idle, &[KeyValue::new("state", "idle")]);
            gauge.observe(
                u64::from(pool.size()).saturating_sub(idle),
                &[KeyValue::new("state", "used")],
            );
        })
        .build();
}

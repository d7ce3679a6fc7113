use sqlx::{PgPool, Postgres, Transaction};

/// Begins a transaction on a connection of the pool. Whoever gives up on it, at whatever moment, leaves nothing behind.
///
/// `Pool::begin` of sqlx 0.9.0 may not be given up, as happens to each handler whose client goes away: the session comes back to the
/// pool inside a transaction that nobody ends, and what the next one writes there is acknowledged, but not committed
/// (issue 4385 of sqlx; mended after 0.9.0, see its pull request 4394).
///
/// # Errors
/// As `Pool::begin`.
pub async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let connection = pool.acquire().await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "it ends with the answer to BEGIN, which the caller waits for; without the caller, its transaction is rolled back"
    )]
    let begun = tokio::spawn(Transaction::begin(connection, None));
    begun
        .await
        .unwrap_or_else(|ended| Err(sqlx::Error::Io(ended.into())))
}

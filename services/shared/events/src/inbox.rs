//! Remembers the events that a consumer has processed.
//!
//! The statements are checked at run time and not by `sqlx::query!`: the table stands in the database of every service that
//! uses it, and this crate has none to be checked against. The tests run them on the table of [`SCHEMA`].

use std::time::Duration;

use lifecycle::Lifecycle;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// The statements that create the table, for the migration of a service.
pub const SCHEMA: &str = include_str!("../schema/inbox.sql");

/// Kafka keeps records for seven days; an event cannot come again later than that.
const KEPT_DAYS: i32 = 14;
const PRUNE_EVERY: Duration = Duration::from_hours(1);
const PRUNE_BATCH: i64 = 1_000;

/// True when `consumer` has not processed the event. Call it in the transaction of the effect, and have the effect only then.
///
/// A second transaction with the same event waits for the first one.
pub async fn first_time(
    connection: &mut PgConnection,
    consumer: &str,
    event_id: Uuid,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query(
        "INSERT INTO inbox (consumer, event_id)
         VALUES ($1, $2)
         ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING",
    )
    .bind(consumer)
    .bind(event_id)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Removes rows older than 14 days, now and every hour, in small batches.
pub fn prune_old(pool: PgPool, lifecycle: &Lifecycle) {
    lifecycle.spawn_until_stopping("inbox pruning", async move {
        loop {
            match prune_batch(&pool).await {
                Ok(PRUNE_BATCH..) => tokio::time::sleep(Duration::from_millis(100)).await,
                Ok(_) => tokio::time::sleep(PRUNE_EVERY).await,
                Err(error) => {
                    tracing::debug!(%error, "the inbox was not pruned");
                    tokio::time::sleep(PRUNE_EVERY).await;
                }
            }
        }
    });
}

async fn prune_batch(pool: &PgPool) -> Result<i64, sqlx::Error> {
    let deleted = sqlx::query(
        "DELETE FROM inbox
          WHERE (consumer, event_id) IN (
                SELECT consumer, event_id
                  FROM inbox
                 WHERE processed_at < now() - make_interval(days => $1)
                 ORDER BY processed_at
                 LIMIT $2)",
    )
    .bind(KEPT_DAYS)
    .bind(PRUNE_BATCH)
    .execute(pool)
    .await?;
    Ok(i64::try_from(deleted.rows_affected()).unwrap_or(i64::MAX))
}

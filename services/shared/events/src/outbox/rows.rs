//! The relay's statements.

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

/// Any number, the same in every process; advisory locks are per database, so the services do not meet.
const LOCK: i64 = 0x6b6f_6e74_6f72_0001;

/// The channel on which writers wake a relay that runs elsewhere.
pub(super) const CHANNEL: &str = "outbox";

/// A waiting event.
#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub id: i64,
    pub event_id: Uuid,
    pub event_type: String,
    pub topic: String,
    pub key: String,
    pub payload: Vec<u8>,
    pub headers: Json<BTreeMap<String, String>>,
    pub age_ms: i64,
}

/// Bounds what the session may wait for, and lets the server notice within half a minute that its client is gone.
pub(super) async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "SET application_name = 'outbox relay';
         SET statement_timeout = '4s';
         SET tcp_keepalives_idle = 10;
         SET tcp_keepalives_interval = 5;
         SET tcp_keepalives_count = 3",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Tries to become the one relay of this database, for as long as the session lives.
pub(super) async fn try_lock(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_try_advisory_lock($1)")
        .bind(LOCK)
        .fetch_one(connection)
        .await
}

/// Wakes the relay, wherever it runs. Sent outside of any transaction: NOTIFY serialises commits.
pub(super) async fn notify(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, '')")
        .bind(CHANNEL)
        .execute(connection)
        .await?;
    Ok(())
}

/// Reads waiting events, oldest first, without those in flight and those whose key is held back.
///
/// There is no cursor: a transaction with a lower id may commit later, and is found by the next read.
pub(super) async fn read(
    connection: &mut PgConnection,
    in_flight: &[i64],
    held: (&[String], &[String]),
    limit: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT id, event_id, event_type, topic, key, payload, headers,
                (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint AS age_ms
           FROM outbox
          WHERE id <> ALL ($1)
            AND NOT EXISTS (SELECT
                              FROM unnest($2::text[], $3::text[]) AS held (topic, key)
                             WHERE held.topic = outbox.topic
                               AND held.key   = outbox.key)
          ORDER BY id -- the order of events within a key
          LIMIT $4",
    )
    .bind(in_flight)
    .bind(held.0)
    .bind(held.1)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Deletes events that Kafka has acknowledged.
pub(super) async fn delete(connection: &mut PgConnection, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM outbox WHERE id = ANY ($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// The age of the oldest event in milliseconds; zero when none waits.
pub(super) async fn lag_ms(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let age: Option<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM clock_timestamp() - created_at) * 1000)::bigint
           FROM outbox
          ORDER BY id
          LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    Ok(age.unwrap_or(0))
}

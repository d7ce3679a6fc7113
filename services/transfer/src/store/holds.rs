//! The pending transfers that have not ended.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Postgres, classify};
use crate::app::{
    error::Error,
    expiry::{Hold, Holds},
};

impl Holds for Postgres {
    async fn due(&self, now: DateTime<Utc>, behind: Hold, limit: i64) -> Result<Vec<Hold>, Error> {
        sqlx::query_as!(
            Hold,
            r#"SELECT expires_at, pending_id AS pending
                 FROM holds
                WHERE expires_at <= $1
                  AND expires_at >= $2
                  AND (expires_at, pending_id) > ($2, $3)
                ORDER BY expires_at, pending_id
                LIMIT $4"#,
            now,
            behind.expires_at,
            behind.pending,
            limit,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(classify)
    }

    async fn remaining(&self, pending: &[Uuid]) -> Result<i64, Error> {
        sqlx::query_scalar!(
            r#"SELECT count(*) AS "count!" FROM holds WHERE pending_id = ANY ($1)"#,
            pending
        )
        .fetch_one(&self.pool)
        .await
        .map_err(classify)
    }

    async fn next_expiry(&self, after: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, Error> {
        sqlx::query_scalar!("SELECT min(expires_at) FROM holds WHERE expires_at > $1", after)
            .fetch_one(&self.pool)
            .await
            .map_err(classify)
    }
}

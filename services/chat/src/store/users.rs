//! What chat knows about users.

use ::events::{
    Record,
    consume::{Failed, Handler},
    inbox,
};
use sqlx::PgPool;

use crate::{domain::user::Status, events::incoming};

/// The name under which the inbox remembers what was processed.
const CONSUMER: &str = "users";

/// The database has a status that this version does not know.
#[derive(Debug, thiserror::Error)]
#[error("unknown user status {0:?}")]
pub struct Unreadable(String);

/// What is known about some users.
pub(super) async fn statuses(pool: &PgPool, ids: &[i64]) -> Result<Vec<(i64, Status)>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT id, status
           FROM users
          WHERE id = ANY ($1)",
        ids
    )
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let status = parse(&row.status).ok_or(Unreadable(row.status));
            Ok((row.id, status.map_err(|error| sqlx::Error::Decode(error.into()))?))
        })
        .collect()
}

/// Remembers an answer of account, unless an event has told more by now.
pub(super) async fn remember_active(pool: &PgPool, user: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO users (id, status)
         VALUES ($1, 'active')
         ON CONFLICT ON CONSTRAINT users_pkey DO NOTHING",
        user
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Keeps the users up to date from account's events.
pub struct Projection {
    pool: PgPool,
}

impl Projection {
    /// Keeps the users of the database behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

impl Handler for Projection {
    async fn handle(&self, record: &Record) -> Result<(), Failed> {
        let (user, status) = incoming::user_changed(&record.payload)?;
        let mut transaction = postgres::begin(&self.pool).await?;
        if inbox::first_time(&mut transaction, CONSUMER, record.event_id()?).await? {
            sqlx::query!(
                "INSERT INTO users (id, status)
                 VALUES ($1, $2)
                 ON CONFLICT ON CONSTRAINT users_pkey DO UPDATE
                    SET status = excluded.status",
                user,
                text(status)
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

fn text(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Active => "active",
        Status::Frozen => "frozen",
        Status::Closed => "closed",
    }
}

fn parse(text: &str) -> Option<Status> {
    match text {
        "pending" => Some(Status::Pending),
        "active" => Some(Status::Active),
        "frozen" => Some(Status::Frozen),
        "closed" => Some(Status::Closed),
        _ => None,
    }
}

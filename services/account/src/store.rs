//! Users in PostgreSQL.

use std::time::Duration;

use ::events::Relay;
use chrono::{DateTime, Utc};
use proto::account::v1::UserStatus;
use sqlx::PgPool;

use crate::{
    app::{Attempt, Error, SignUp, Store, User},
    domain::user::Status,
    events,
};

/// Pending users that one round of the sweeper takes.
const LEASES: i64 = 20;
/// How long they are its own, in seconds.
const LEASE_S: f64 = 60.0;

/// The users of one database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
    relay: Relay,
}

impl Postgres {
    /// The users of the database behind `pool`; `relay` publishes their events.
    pub fn new(pool: PgPool, relay: Relay) -> Self {
        Self { pool, relay }
    }

    async fn find(&self, sign_up: &SignUp) -> Result<Option<User>, Error> {
        let row = postgres::retry(|| {
            sqlx::query_as!(
                Row,
                "SELECT id, name, email, has_password, status, attempted_at
                   FROM users
                  WHERE request_id = $1",
                sign_up.request_id,
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        row.map(User::try_from).transpose()
    }

    /// The user of an earlier attempt. A pending one is marked: from here on nobody else gives it up.
    async fn take_up(&self, sign_up: &SignUp) -> Result<Option<User>, Error> {
        let found = self.find(sign_up).await?;
        if found.as_ref().is_none_or(|user| user.status != Status::Pending) {
            return Ok(found);
        }
        let row = postgres::retry(|| {
            sqlx::query_as!(
                Row,
                // grows even when the clock does not: it tells one attempt from the next
                "UPDATE users
                    SET attempted_at = greatest(clock_timestamp(), attempted_at + interval '1 microsecond')
                  WHERE request_id = $1
                    AND status = 'pending'
                 RETURNING id, name, email, has_password, status, attempted_at",
                sign_up.request_id,
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        match row {
            Some(row) => Ok(Some(row.try_into()?)),
            // finished or given up in between
            None => self.find(sign_up).await,
        }
    }

    /// False when the user is not pending.
    async fn try_activate(&self, id: i64) -> Result<bool, sqlx::Error> {
        let mut transaction = postgres::begin(&self.pool).await?;
        let activated = sqlx::query_scalar!(
            "UPDATE users
                SET status = 'active', leased_until = NULL
              WHERE id = $1
                AND status = 'pending'
             RETURNING id",
            id,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if activated.is_none() {
            return Ok(false);
        }
        events::user_changed(&mut transaction, id, UserStatus::Active).await?;
        transaction.commit().await?;
        Ok(true)
    }

    async fn again(&self, sign_up: &SignUp) -> Result<Option<Attempt>, Error> {
        let user = self.take_up(sign_up).await?;
        Ok(user.map(|user| Attempt { user, first: false }))
    }
}

impl Store for Postgres {
    async fn begin(&self, sign_up: &SignUp) -> Result<Attempt, Error> {
        // looked up first: an insert that conflicts would use up a number each time
        if let Some(attempt) = self.again(sign_up).await? {
            return Ok(attempt);
        }
        let inserted = postgres::retry(|| {
            sqlx::query_as!(
                Row,
                "INSERT INTO users (request_id, name, email, has_password)
                 SELECT $1, $2, $3, $4
                  WHERE NOT EXISTS (SELECT 1 FROM users WHERE lower(email) = lower($3))
                 RETURNING id, name, email, has_password, status, attempted_at",
                sign_up.request_id,
                sign_up.name.as_str(),
                sign_up.email.as_str(),
                sign_up.password.is_some(),
            )
            .fetch_optional(&self.pool)
        })
        .await;
        match inserted {
            Ok(Some(row)) => Ok(Attempt {
                user: row.try_into()?,
                first: true,
            }),
            // perhaps by this very request, sent twice at the same moment
            Ok(None) => self.again(sign_up).await?.ok_or(Error::EmailTaken),
            Err(error) => match postgres::constraint(&error) {
                Some("users_email_unique" | "users_request_id_unique") => {
                    self.again(sign_up).await?.ok_or(Error::EmailTaken)
                }
                _ => Err(classify(error)),
            },
        }
    }

    async fn activate(&self, id: i64) -> Result<(), Error> {
        if postgres::retry(|| self.try_activate(id))
            .await
            .map_err(classify)?
        {
            self.relay.wake();
            return Ok(());
        }
        // another attempt was faster; or the row was given up, and the caller has to begin anew
        let known = self
            .user(id)
            .await?
            .is_some_and(|user| user.status != Status::Pending);
        if known {
            Ok(())
        } else {
            Err(Error::Unavailable("the sign-up was given up".into()))
        }
    }

    async fn abandon(&self, user: &User) -> Result<(), Error> {
        sqlx::query!(
            "DELETE FROM users
              WHERE id = $1
                AND status = 'pending'
                AND attempted_at = $2",
            user.id,
            user.attempted_at,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn user(&self, id: i64) -> Result<Option<User>, Error> {
        let row = postgres::retry(|| {
            sqlx::query_as!(
                Row,
                "SELECT id, name, email, has_password, status, attempted_at
                   FROM users
                  WHERE id = $1",
                id,
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        row.map(User::try_from).transpose()
    }

    async fn lease(&self, idle: Duration, forlorn: Duration) -> Result<Vec<(User, bool)>, Error> {
        let rows = sqlx::query!(
            // SKIP LOCKED: two sweepers at once take different users. The lock ends with this statement; the lease stays.
            "UPDATE users
                SET leased_until = now() + make_interval(secs => $4)
              WHERE id IN (SELECT id
                             FROM users
                            WHERE status = 'pending'
                              AND attempted_at < now() - make_interval(secs => $1)
                              AND (leased_until IS NULL OR leased_until < now())
                            ORDER BY attempted_at
                            LIMIT $3
                              FOR UPDATE SKIP LOCKED)
             RETURNING id, name, email, has_password, status, attempted_at,
                       attempted_at < now() - make_interval(secs => $2) AS \"forlorn!\"",
            idle.as_secs_f64(),
            forlorn.as_secs_f64(),
            LEASES,
            LEASE_S,
        )
        .fetch_all(&self.pool)
        .await
        .map_err(classify)?;
        rows.into_iter()
            .map(|row| {
                let user = Row {
                    id: row.id,
                    name: row.name,
                    email: row.email,
                    has_password: row.has_password,
                    status: row.status,
                    attempted_at: row.attempted_at,
                };
                Ok((user.try_into()?, row.forlorn))
            })
            .collect()
    }
}

struct Row {
    id: i64,
    name: String,
    email: String,
    has_password: bool,
    status: String,
    attempted_at: DateTime<Utc>,
}

impl TryFrom<Row> for User {
    type Error = Error;

    fn try_from(row: Row) -> Result<Self, Error> {
        let status = Status::from_name(&row.status)
            .ok_or_else(|| Error::Internal(format!("user {} has an unknown status", row.id).into()))?;
        Ok(Self {
            id: row.id,
            name: row.name,
            email: row.email,
            has_password: row.has_password,
            status,
            attempted_at: row.attempted_at,
        })
    }
}

fn classify(error: sqlx::Error) -> Error {
    if postgres::is_unavailable(&error) {
        Error::Unavailable(error.into())
    } else {
        Error::Internal(error.into())
    }
}

//! Credentials and sessions in PostgreSQL.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use crate::{
    app::{Credential, Error, Store},
    domain::{
        Role,
        email::LoginKey,
        session::{Session, TokenDigest},
    },
};

/// The tables of one database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// The tables behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

impl Store for Postgres {
    async fn credential(&self, email: LoginKey) -> Result<Option<Credential>, Error> {
        let row = postgres::retry(|| {
            sqlx::query!(
                "SELECT user_id, role, password_hash
                   FROM credentials
                  WHERE login_key = $1",
                email.as_bytes(),
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        row.map(|row| {
            Ok(Credential {
                user_id: row.user_id,
                role: role(&row.role)?,
                password_hash: row.password_hash,
            })
        })
        .transpose()
    }

    async fn login_key(&self, user_id: i64) -> Result<Option<LoginKey>, Error> {
        let key = postgres::retry(|| {
            sqlx::query_scalar!("SELECT login_key FROM credentials WHERE user_id = $1", user_id)
                .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        key.map(|bytes| LoginKey::from_bytes(&bytes).ok_or_else(|| broken("login_key")))
            .transpose()
    }

    async fn create_credential(
        &self,
        user_id: i64,
        email: LoginKey,
        password_hash: Option<&str>,
    ) -> Result<LoginKey, Error> {
        let inserted = postgres::retry(|| {
            sqlx::query!(
                "INSERT INTO credentials (user_id, login_key, password_hash)
                 VALUES ($1, $2, $3)
                 ON CONFLICT ON CONSTRAINT credentials_pkey DO NOTHING",
                user_id,
                email.as_bytes(),
                password_hash,
            )
            .execute(&self.pool)
        })
        .await;
        match inserted {
            Ok(result) if result.rows_affected() == 1 => Ok(email),
            // another attempt came first
            Ok(_) => self.login_key(user_id).await?.ok_or_else(|| broken("credential")),
            Err(error) if postgres::constraint(&error) == Some("credentials_login_key_unique") => {
                Err(Error::EmailTaken)
            }
            Err(error) => Err(classify(error)),
        }
    }

    async fn replace_hash(&self, user_id: i64, old: &str, new: &str) -> Result<(), Error> {
        postgres::retry(|| {
            sqlx::query!(
                "UPDATE credentials
                    SET password_hash = $3
                  WHERE user_id = $1
                    AND password_hash = $2",
                user_id,
                old,
                new,
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn grant_role(&self, user_id: i64, role: Role) -> Result<bool, Error> {
        let result = postgres::retry(|| {
            sqlx::query!(
                "UPDATE credentials SET role = $2 WHERE user_id = $1",
                user_id,
                role.name()
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(result.rows_affected() == 1)
    }

    async fn start_session(
        &self,
        digest: TokenDigest,
        session: &Session,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        postgres::retry(|| {
            sqlx::query!(
                // the token is new: what is there already is this very session, whose answer was lost
                "INSERT INTO sessions (token_digest, user_id, role, created_at, expires_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT ON CONSTRAINT sessions_pkey DO NOTHING",
                digest.as_bytes(),
                session.user_id,
                session.role.name(),
                now,
                session.expires_at,
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn session(&self, digest: TokenDigest, now: DateTime<Utc>) -> Result<Option<Session>, Error> {
        let row = postgres::retry(|| {
            sqlx::query!(
                "SELECT user_id, role, expires_at
                   FROM sessions
                  WHERE token_digest = $1
                    AND expires_at > $2",
                digest.as_bytes(),
                now,
            )
            .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        row.map(|row| {
            Ok(Session {
                user_id: row.user_id,
                role: role(&row.role)?,
                expires_at: row.expires_at,
            })
        })
        .transpose()
    }

    async fn end_session(&self, digest: TokenDigest) -> Result<(), Error> {
        postgres::retry(|| {
            sqlx::query!("DELETE FROM sessions WHERE token_digest = $1", digest.as_bytes())
                .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(())
    }

    async fn remove_expired(&self, now: DateTime<Utc>, limit: i64) -> Result<u64, Error> {
        // SKIP LOCKED: the sweepers of several replicas share the work instead of waiting for each other
        let result = sqlx::query!(
            "DELETE FROM sessions
              WHERE token_digest IN (
                    SELECT token_digest
                      FROM sessions
                     WHERE expires_at <= $1
                     ORDER BY expires_at
                     LIMIT $2
                       FOR UPDATE SKIP LOCKED)",
            now,
            limit,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)?;
        Ok(result.rows_affected())
    }
}

fn role(name: &str) -> Result<Role, Error> {
    Role::from_name(name).ok_or_else(|| broken("role"))
}

/// The database holds what its constraints forbid.
fn broken(what: &str) -> Error {
    Error::Internal(format!("the database has an impossible {what}").into())
}

fn classify(error: sqlx::Error) -> Error {
    if postgres::is_unavailable(&error) {
        Error::Unavailable(error.into())
    } else {
        Error::Internal(error.into())
    }
}

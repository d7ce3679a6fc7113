//! Accounts: found, opened, changed.

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Postgres, classify,
    reads::unknown,
    rows::{RecordRow, role_name, status_name},
};
use crate::{
    app::{
        accounts::{Opened, Opening, Store, Whose},
        directory::Accounts,
        error::Error,
        reads::AccountRecord,
    },
    domain::{
        account::{Change, Role},
        command::Refusal,
        money::{Currency, MAX_MINOR},
    },
};

/// Accounts of the bank in one list: more than there are currencies, for each role.
const MAX_SYSTEM: i64 = 1_000;

impl Accounts for Postgres {
    async fn main_accounts(&self, users: &[i64]) -> Result<Vec<(i64, i64)>, Error> {
        let rows = postgres::retry(|| {
            sqlx::query!(
                r#"SELECT user_id AS "user_id!", id
                     FROM accounts
                    WHERE user_id = ANY ($1)
                      AND role = 'main'"#,
                users,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(rows.into_iter().map(|row| (row.user_id, row.id)).collect())
    }

    async fn currency(&self, account: i64) -> Result<Option<Currency>, Error> {
        let code = postgres::retry(|| {
            sqlx::query_scalar!("SELECT currency FROM accounts WHERE id = $1", account)
                .fetch_optional(&self.pool)
        })
        .await
        .map_err(classify)?;
        code.map(|code| {
            Currency::from_code(&code)
                .ok_or_else(|| Error::Internal("an account has an unknown currency".into()))
        })
        .transpose()
    }

    async fn system_account(&self, role: Role, currency: Currency) -> Result<i64, Error> {
        let opened = self.find_or_open_system(role, currency, None).await?;
        Ok(opened.record.account.id)
    }

    async fn open_main(&self, user: i64, currency: Currency) -> Result<(i64, Currency), Error> {
        postgres::retry(|| {
            sqlx::query!(
                "WITH opened AS (
                     INSERT INTO accounts (user_id, role, currency)
                     VALUES ($1, 'main', $2)
                     ON CONFLICT (user_id) WHERE role = 'main' DO NOTHING
                  RETURNING id, status, floor, ceiling
                 )
                 INSERT INTO account_changes (account_id, change, status, floor, ceiling)
                 SELECT id, 'open', status, floor, ceiling
                   FROM opened",
                user,
                currency.code(),
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        let row = postgres::retry(|| {
            sqlx::query!(
                "SELECT id, currency
                   FROM accounts
                  WHERE user_id = $1
                    AND role = 'main'",
                user,
            )
            .fetch_one(&self.pool)
        })
        .await
        .map_err(classify)?;
        let currency = Currency::from_code(&row.currency)
            .ok_or_else(|| Error::Internal("an account has an unknown currency".into()))?;
        Ok((row.id, currency))
    }
}

impl Store for Postgres {
    async fn open(&self, opening: &Opening, limit: i64) -> Result<Opened, Error> {
        postgres::retry(|| self.try_open(opening, limit))
            .await
            .map_err(classify)?
    }

    async fn open_system(&self, role: Role, currency: Currency, by: i64) -> Result<Opened, Error> {
        self.find_or_open_system(role, currency, Some(by)).await
    }

    async fn list(&self, whose: Whose) -> Result<Vec<AccountRecord>, Error> {
        let user = match whose {
            Whose::User(user) => Some(user),
            Whose::Bank => None,
        };
        let rows = postgres::retry(|| {
            sqlx::query_as!(
                RecordRow,
                // each branch has its own index; with a user the second one is not even begun
                r#"SELECT id AS "id!", user_id, role AS "role!", status AS "status!", currency AS "currency!",
                          posted AS "posted!", held AS "held!", incoming AS "incoming!", floor AS "floor!",
                          ceiling AS "ceiling!", revision AS "revision!", position AS "position!", last_at AS "last_at!", label AS "label!",
                          created_at AS "created_at!"
                     FROM (SELECT * FROM accounts WHERE user_id = $1
                            UNION ALL
                           SELECT * FROM accounts WHERE role = 'treasury' AND $1::bigint IS NULL
                            UNION ALL
                           SELECT * FROM accounts WHERE role = 'fees' AND $1::bigint IS NULL) AS account
                    ORDER BY id
                    LIMIT $2"#,
                user,
                MAX_SYSTEM,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        rows.into_iter()
            .map(|row| AccountRecord::try_from(row).map_err(unknown))
            .collect()
    }

    async fn change(&self, account: i64, change: Change, by: i64) -> Result<AccountRecord, Error> {
        postgres::retry(|| self.try_change(account, change, by))
            .await
            .map_err(classify)?
    }
}

impl Postgres {
    async fn try_open(&self, opening: &Opening, limit: i64) -> Result<Result<Opened, Error>, sqlx::Error> {
        let mut transaction = postgres::begin(&self.pool).await?;
        // one opening of a user at a time: else two could both see room for one more
        let main = sqlx::query_scalar!(
            "SELECT id
               FROM accounts
              WHERE user_id = $1
                AND role = 'main'
                FOR NO KEY UPDATE",
            opening.owner,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        if main.is_none() {
            return Ok(Err(Error::UserNotFound));
        }
        let opened = insert_additional(&mut transaction, opening, limit).await?;
        let found = by_request(&mut transaction, opening.request_id).await?;
        transaction.commit().await?;
        Ok(match found {
            Some(record) => Ok(Opened {
                record,
                replayed: !opened,
            }),
            None => Err(Error::TooManyAccounts),
        })
    }

    async fn find_or_open_system(
        &self,
        role: Role,
        currency: Currency,
        by: Option<i64>,
    ) -> Result<Opened, Error> {
        // the treasury is the other side of all money: it may be as far below zero as others are above
        let floor = if role == Role::Treasury { -MAX_MINOR } else { 0 };
        let opened = postgres::retry(|| {
            sqlx::query!(
                "WITH opened AS (
                     INSERT INTO accounts (role, currency, floor)
                     VALUES ($1, $2, $3)
                     ON CONFLICT DO NOTHING
                  RETURNING id, status, floor, ceiling
                 )
                 INSERT INTO account_changes (account_id, changed_by, change, status, floor, ceiling)
                 SELECT id, $4, 'open', status, floor, ceiling
                   FROM opened",
                role_name(role),
                currency.code(),
                floor,
                by,
            )
            .execute(&self.pool)
        })
        .await
        .map_err(classify)?;
        let row = postgres::retry(|| {
            sqlx::query_as!(
                RecordRow,
                "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at, label,
                        created_at
                   FROM accounts
                  WHERE role = $1
                    AND currency = $2
                    AND user_id IS NULL",
                role_name(role),
                currency.code(),
            )
            .fetch_one(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(Opened {
            record: row.try_into().map_err(unknown)?,
            replayed: opened.rows_affected() == 0,
        })
    }

    async fn try_change(
        &self,
        account: i64,
        change: Change,
        by: i64,
    ) -> Result<Result<AccountRecord, Error>, sqlx::Error> {
        let mut transaction = postgres::begin(&self.pool).await?;
        let found = sqlx::query_as!(
            RecordRow,
            // as batches lock it: transfers are before the change or behind it
            "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at, label,
                    created_at
               FROM accounts
              WHERE id = $1
                FOR NO KEY UPDATE",
            account,
        )
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(row) = found else {
            return Ok(Err(Refusal::AccountNotFound.into()));
        };
        let mut record = AccountRecord::try_from(row)?;
        match record.account.change(change) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(record)),
            Err(refusal) => return Ok(Err(Error::NotChanged(refusal))),
        }
        sqlx::query!(
            "WITH changed AS (
                 UPDATE accounts
                    SET status = $2, floor = $3, ceiling = $4, revision = revision + 1
                  WHERE id = $1
              RETURNING id, status, floor, ceiling
             )
             INSERT INTO account_changes (account_id, changed_by, change, status, floor, ceiling)
             SELECT id, $5, $6, status, floor, ceiling
               FROM changed",
            account,
            status_name(record.account.status),
            record.account.floor,
            record.account.ceiling,
            by,
            change_name(change),
        )
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Ok(record))
    }
}

/// Whether there was room, and no account with the id.
async fn insert_additional(
    connection: &mut PgConnection,
    opening: &Opening,
    limit: i64,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "WITH opened AS (
             INSERT INTO accounts (user_id, role, currency, label, request_id)
             SELECT $1, 'additional', $2, $3, $4
              WHERE (SELECT count(*) FROM accounts WHERE user_id = $1 AND role = 'additional') < $5
                 ON CONFLICT (request_id) DO NOTHING
          RETURNING id, status, floor, ceiling
         )
         INSERT INTO account_changes (account_id, changed_by, change, status, floor, ceiling)
         SELECT id, $1, 'open', status, floor, ceiling
           FROM opened",
        opening.owner,
        opening.currency.code(),
        opening.label,
        opening.request_id,
        limit,
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

async fn by_request(
    connection: &mut PgConnection,
    request: Uuid,
) -> Result<Option<AccountRecord>, sqlx::Error> {
    let row = sqlx::query_as!(
        RecordRow,
        "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at, label,
                created_at
           FROM accounts
          WHERE request_id = $1",
        request,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(AccountRecord::try_from).transpose()?)
}

fn change_name(change: Change) -> &'static str {
    match change {
        Change::Limits { .. } => "limits",
        Change::Freeze => "freeze",
        Change::Unfreeze => "unfreeze",
        Change::Close => "close",
        Change::Reopen => "reopen",
    }
}

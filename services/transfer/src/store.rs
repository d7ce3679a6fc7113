//! The ledger in PostgreSQL: one transaction for each transfer.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    app::{Error, Order, Party, Store, Transfer},
    domain::{
        money::Currency,
        posting::{self, Account, Leg},
    },
};

/// The ledger of one database.
#[derive(Clone)]
pub struct Postgres {
    pool: PgPool,
}

impl Postgres {
    /// The ledger of the database behind `pool`.
    pub fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// One attempt to post, in one transaction.
    async fn try_post(&self, order: &Order) -> Result<Posting, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let (debit, credit) = match lock(&mut transaction, order).await? {
            Ok(pair) => pair,
            Err(refused) => return Ok(Posting::Refused(refused)),
        };
        // behind the locks: an attempt with the same id that came first has committed by now
        if let Some(earlier) = find(&mut transaction, order.id).await? {
            return Ok(Posting::Posted(earlier));
        }
        let legs = match posting::post(&debit, &credit, order.amount, order.currency) {
            Ok(legs) => legs,
            Err(refusal) => return Ok(Posting::Refused(Error::Refused(refusal))),
        };
        let created_at = insert(&mut transaction, order, &legs, debit.currency).await?;
        transaction.commit().await?;
        Ok(Posting::Posted(Transfer {
            id: order.id,
            from: order.from,
            to: order.to,
            amount: order.amount.minor(),
            currency: debit.currency.code().to_owned(),
            created_at,
        }))
    }
}

enum Posting {
    Posted(Transfer),
    Refused(Error),
}

impl Store for Postgres {
    async fn post(&self, order: &Order) -> Result<Transfer, Error> {
        match postgres::retry(|| self.try_post(order)).await {
            Ok(Posting::Posted(transfer)) => Ok(transfer),
            Ok(Posting::Refused(error)) => Err(error),
            // the same id with other accounts, at the same moment: the other one has it
            Err(error) if postgres::constraint(&error) == Some("transfers_pkey") => Err(Error::IdReused),
            Err(error) => Err(classify(error)),
        }
    }

    async fn transfer(&self, id: Uuid) -> Result<Option<Transfer>, Error> {
        let mut connection = self.pool.acquire().await.map_err(classify)?;
        find(&mut connection, id).await.map_err(classify)
    }

    async fn open(&self, user_id: i64, currency: Currency) -> Result<Account, Error> {
        let code = currency.code();
        // the two inserts need no common transaction: a treasury without accounts harms nobody
        sqlx::query!(
            "INSERT INTO accounts (role, currency, floor)
             VALUES ('treasury', $1, -9007199254740991)
             ON CONFLICT (currency) WHERE role = 'treasury' DO NOTHING",
            code,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)?;
        sqlx::query!(
            "INSERT INTO accounts (user_id, role, currency)
             VALUES ($1, 'main', $2)
             ON CONFLICT (user_id) WHERE role = 'main' DO NOTHING",
            user_id,
            code,
        )
        .execute(&self.pool)
        .await
        .map_err(classify)?;
        self.account(user_id)
            .await?
            .ok_or_else(|| Error::Internal("the opened account is gone".into()))
    }

    async fn account(&self, user_id: i64) -> Result<Option<Account>, Error> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, user_id, posted, held, floor, currency
               FROM accounts
              WHERE user_id = $1
                AND role = 'main'",
            user_id,
        )
        .fetch_optional(&self.pool)
        .await
        .map_err(classify)?;
        row.map(Account::try_from)
            .transpose()
            .map_err(|error| classify(error.into()))
    }
}

struct Row {
    id: i64,
    user_id: Option<i64>,
    posted: i64,
    held: i64,
    floor: i64,
    currency: String,
}

impl TryFrom<Row> for Account {
    type Error = UnknownCurrency;

    fn try_from(row: Row) -> Result<Self, UnknownCurrency> {
        let currency = Currency::from_code(&row.currency).ok_or(UnknownCurrency(row.id))?;
        Ok(Self {
            id: row.id,
            posted: row.posted,
            held: row.held,
            floor: row.floor,
            currency,
        })
    }
}

/// An account of the database has a currency that this build does not know.
#[derive(Debug, thiserror::Error)]
#[error("account {0} has an unknown currency")]
struct UnknownCurrency(i64);

impl From<UnknownCurrency> for sqlx::Error {
    fn from(error: UnknownCurrency) -> Self {
        Self::Decode(error.into())
    }
}

/// Locks the accounts of both sides, the debited one first in the answer.
async fn lock(
    connection: &mut PgConnection,
    order: &Order,
) -> Result<Result<(Account, Account), Error>, sqlx::Error> {
    let parties = [order.from, order.to];
    let users: Vec<i64> = parties.iter().filter_map(|party| party.user()).collect();
    let rows = sqlx::query_as!(
        Row,
        // ORDER BY id: every transaction locks accounts in this order, so that two can never wait for each other.
        // NO KEY: a foreign key check of another transaction's posting need not wait.
        "SELECT id, user_id, posted, held, floor, currency
           FROM accounts
          WHERE (role = 'main' AND user_id = ANY ($1))
             OR (role = 'treasury' AND $2 AND currency = (SELECT currency
                                                            FROM accounts
                                                           WHERE role = 'main'
                                                             AND user_id = $1[1]))
          ORDER BY id
            FOR NO KEY UPDATE",
        &users,
        parties.contains(&Party::Treasury),
    )
    .fetch_all(connection)
    .await?;
    let mut accounts = rows
        .into_iter()
        .map(|row| Ok((row.user_id, Account::try_from(row)?)))
        .collect::<Result<Vec<_>, UnknownCurrency>>()?;
    let mut take = |party: Party| {
        let at = accounts.iter().position(|(user, _)| *user == party.user())?;
        Some(accounts.swap_remove(at).1)
    };
    Ok(match (take(order.from), take(order.to)) {
        (Some(debit), Some(credit)) => Ok((debit, credit)),
        _ => Err(Error::UserNotFound),
    })
}

async fn find(connection: &mut PgConnection, id: Uuid) -> Result<Option<Transfer>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT t.id, d.user_id AS debit_user, c.user_id AS credit_user, t.amount, t.currency, t.created_at
           FROM transfers t
           JOIN accounts d ON d.id = t.debit_account
           JOIN accounts c ON c.id = t.credit_account
          WHERE t.id = $1",
        id,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Transfer {
        id: row.id,
        from: Party::of(row.debit_user),
        to: Party::of(row.credit_user),
        amount: row.amount,
        currency: row.currency,
        created_at: row.created_at,
    }))
}

/// Writes the transfer, its legs and the new balances in one statement: one round trip.
async fn insert(
    connection: &mut PgConnection,
    order: &Order,
    legs: &[Leg; 2],
    currency: Currency,
) -> Result<DateTime<Utc>, sqlx::Error> {
    let [debit, credit] = legs;
    sqlx::query_scalar!(
        "WITH leg AS (
             SELECT *
               FROM unnest($5::bigint[], $6::bigint[], $7::bigint[]) AS leg (account_id, amount, balance_after)
         ), transfer AS (
             INSERT INTO transfers (id, debit_account, credit_account, amount, currency)
             VALUES ($1, ($5::bigint[])[1], ($5::bigint[])[2], $2, $3)
             RETURNING created_at
         ), posting AS (
             INSERT INTO postings (transfer_id, account_id, amount, balance_after)
             SELECT $1, account_id, amount, balance_after
               FROM leg
         ), balance AS (
             UPDATE accounts
                SET posted = leg.balance_after
               FROM leg
              WHERE accounts.id = leg.account_id
             RETURNING accounts.id
         )
         SELECT created_at
           FROM transfer
          WHERE (SELECT count(*) FROM balance) = $4",
        order.id,
        order.amount.minor(),
        currency.code(),
        2,
        &[debit.account_id, credit.account_id],
        &[debit.amount, credit.amount],
        &[debit.balance_after, credit.balance_after],
    )
    .fetch_one(connection)
    .await
}

impl Party {
    fn user(self) -> Option<i64> {
        match self {
            Self::User(id) => Some(id),
            Self::Treasury => None,
        }
    }

    fn of(user: Option<i64>) -> Self {
        user.map_or(Self::Treasury, Self::User)
    }
}

fn classify(error: sqlx::Error) -> Error {
    if postgres::is_unavailable(&error) {
        Error::Unavailable(error.into())
    } else {
        Error::Internal(error.into())
    }
}

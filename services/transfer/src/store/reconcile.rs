//! Balances beside their entries. Each statement is one snapshot: an account and its entries are changed in one commit.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use super::{Postgres, classify};
use crate::app::{
    error::Error,
    reconcile::{Balances, Compared, Figures, Session},
};

/// The advisory lock: "RECO" in ASCII, and nothing to tell apart.
const LOCK: (i32, i32) = (0x5245_434f, 0);
/// The longest that a statement or a connection attempt may take before the session counts as lost.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(12);

/// The session that compares, or would like to.
pub struct PgReconciler {
    connection: PgConnection,
}

impl Balances for Postgres {
    type Session = PgReconciler;

    async fn connect(&self) -> Result<PgReconciler, Error> {
        let options = self.pool.connect_options();
        let options = options.as_ref().clone().application_name("ledger reconciler");
        let mut connection = bounded(PgConnection::connect_with(&options)).await?;
        let prepared = sqlx::raw_sql(
            // a plan for a table that is still small stays in use while it grows: it must use the index from the beginning
            "SET enable_seqscan = off;
             SET enable_bitmapscan = off;
             SET statement_timeout = '10s';
             SET tcp_keepalives_idle = 10;
             SET tcp_keepalives_interval = 5;
             SET tcp_keepalives_count = 3",
        )
        .execute(&mut connection);
        bounded(prepared).await?;
        Ok(PgReconciler { connection })
    }
}

impl Session for PgReconciler {
    async fn try_lead(&mut self) -> Result<bool, Error> {
        let locked = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock($1, $2) AS "locked!""#,
            LOCK.0,
            LOCK.1
        )
        .fetch_one(&mut self.connection);
        bounded(locked).await
    }

    async fn last_entries(&mut self, behind: i64, accounts: i64) -> Result<Vec<Compared>, Error> {
        let found = sqlx::query!(
            r#"SELECT account.id, account.posted, account.held, account.incoming, account.position,
                      coalesce(last.posted, 0) AS "last_posted!", coalesce(last.held, 0) AS "last_held!",
                      coalesce(last.position, 0) AS "last_position!"
                 FROM (SELECT id, posted, held, incoming, position
                         FROM accounts
                        WHERE id > $1
                        ORDER BY id
                        LIMIT $2) AS account
                 LEFT JOIN LATERAL (
                          (SELECT debit_position AS position, debit_posted AS posted, debit_held AS held
                             FROM journal
                            WHERE debit_account = account.id
                            ORDER BY debit_account DESC, debit_position DESC -- the index journal_debit_position
                            LIMIT 1)
                           UNION ALL
                          (SELECT credit_position, credit_posted, credit_held
                             FROM journal
                            WHERE credit_account = account.id
                            ORDER BY credit_account DESC, credit_position DESC -- the index journal_credit_position
                            LIMIT 1)
                           ORDER BY position DESC
                           LIMIT 1) AS last ON true
                ORDER BY account.id"#,
            behind,
            accounts,
        )
        .fetch_all(&mut self.connection);
        let found = bounded(found).await?;
        Ok(found
            .into_iter()
            .map(|row| Compared {
                account: row.id,
                stored: Figures {
                    posted: row.posted,
                    held: row.held,
                    incoming: row.incoming,
                    position: row.position,
                },
                journal: Figures {
                    posted: row.last_posted,
                    held: row.last_held,
                    incoming: row.incoming,
                    position: row.last_position,
                },
            })
            .collect())
    }

    async fn sums(&mut self, behind: i64, accounts: i64, entries: i64) -> Result<Vec<Compared>, Error> {
        let found = sqlx::query_as!(
            Sums,
            // the limits within are for an account whose stored number of entries is wrong
            r#"WITH page AS MATERIALIZED (
                   SELECT *, sum(position) OVER (ORDER BY id) AS entries
                     FROM (SELECT id, posted, held, incoming, position
                             FROM accounts
                            WHERE id > $1
                            ORDER BY id
                            LIMIT $2) AS account
               )
               SELECT page.id AS "id!", page.posted AS "posted!", page.held AS "held!", page.incoming AS "incoming!",
                      page.position AS "position!",
                      paid.rows AS "paid_rows!", paid.moved AS "paid!", paid.held AS "sum_held!",
                      got.rows AS "got_rows!", got.moved AS "got!", got.held AS "sum_incoming!"
                 FROM page
                CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(moved), 0)::bigint AS moved,
                                           coalesce(sum(held), 0)::bigint AS held
                                      FROM (SELECT moved, held
                                              FROM journal
                                             WHERE debit_account = page.id
                                             LIMIT $3::bigint + 1) AS entry) AS paid
                CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(moved), 0)::bigint AS moved,
                                           coalesce(sum(held), 0)::bigint AS held
                                      FROM (SELECT moved, held
                                              FROM journal
                                             WHERE credit_account = page.id
                                             LIMIT $3::bigint + 1) AS entry) AS got
                WHERE page.entries <= $3
                ORDER BY page.id"#,
            behind,
            accounts,
            entries,
        )
        .fetch_all(&mut self.connection);
        Ok(bounded(found).await?.into_iter().map(Compared::from).collect())
    }

    async fn part(&mut self, behind: i64, from: i64, to: i64) -> Result<Option<Compared>, Error> {
        let found = sqlx::query_as!(
            Sums,
            r#"SELECT account.id AS "id!", account.posted AS "posted!", account.held AS "held!",
                      account.incoming AS "incoming!", account.position AS "position!",
                      paid.rows AS "paid_rows!", paid.moved AS "paid!", paid.held AS "sum_held!",
                      got.rows AS "got_rows!", got.moved AS "got!", got.held AS "sum_incoming!"
                 FROM (SELECT id, posted, held, incoming, position
                         FROM accounts
                        WHERE id > $1
                        ORDER BY id
                        LIMIT 1) AS account
                CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(moved), 0)::bigint AS moved,
                                           coalesce(sum(held), 0)::bigint AS held
                                      FROM journal
                                     WHERE debit_account = account.id
                                       AND debit_position > $2
                                       AND debit_position <= $3) AS paid
                CROSS JOIN LATERAL (SELECT count(*) AS rows, coalesce(sum(moved), 0)::bigint AS moved,
                                           coalesce(sum(held), 0)::bigint AS held
                                      FROM journal
                                     WHERE credit_account = account.id
                                       AND credit_position > $2
                                       AND credit_position <= $3) AS got"#,
            behind,
            from,
            to,
        )
        .fetch_optional(&mut self.connection);
        Ok(bounded(found).await?.map(Compared::from))
    }
}

/// An account, and the sums of its entries on both sides.
struct Sums {
    id: i64,
    posted: i64,
    held: i64,
    incoming: i64,
    position: i64,
    paid_rows: i64,
    paid: i64,
    sum_held: i64,
    got_rows: i64,
    got: i64,
    sum_incoming: i64,
}

impl From<Sums> for Compared {
    fn from(row: Sums) -> Self {
        Self {
            account: row.id,
            stored: Figures {
                posted: row.posted,
                held: row.held,
                incoming: row.incoming,
                position: row.position,
            },
            journal: Figures {
                posted: row.got.saturating_sub(row.paid),
                held: row.sum_held,
                incoming: row.sum_incoming,
                position: row.paid_rows + row.got_rows,
            },
        }
    }
}

async fn bounded<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match timeout(STATEMENT_TIMEOUT, statement).await {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(Error::Unavailable("the database does not answer".into())),
    }
}

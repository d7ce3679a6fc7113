//! The whole ledger at one moment, on a connection of its own and in pages, each of which is a walk along an index.

use std::{collections::HashMap, time::Duration};

use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::{Postgres, classify, rows::JournalRow};
use crate::{
    app::{
        audit::{Balance, Batch, Snapshot, Snapshots, Stored},
        error::Error,
        expiry::Hold,
    },
    domain::{audit::Figures, journal::Row, money::Currency},
};

/// The longest that a page or a connection attempt may take before the session counts as lost.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(35);

/// A snapshot, which ends with the value.
pub struct PgSnapshot {
    pub(super) connection: PgConnection,
}

impl Snapshots for Postgres {
    type Snapshot = PgSnapshot;

    async fn open(&self) -> Result<PgSnapshot, Error> {
        let mut snapshot = PgSnapshot::connect(self, "ledger snapshot").await?;
        let begun = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .execute(&mut snapshot.connection);
        bounded(begun).await?;
        Ok(snapshot)
    }
}

impl PgSnapshot {
    /// A session that is not one of the pool's: those are few, and others wait for them.
    pub(super) async fn connect(store: &Postgres, name: &str) -> Result<Self, Error> {
        let options = store.pool.connect_options();
        let options = options.as_ref().clone().application_name(name);
        let mut connection = bounded(PgConnection::connect_with(&options)).await?;
        // The client may be slower than the ledger, but not for ever: a snapshot keeps the database from tidying up.
        // A plan for a table that is still small stays in use while it grows: it must use the index from the beginning.
        let prepared = sqlx::raw_sql(
            "SET statement_timeout = '30s';
             SET idle_in_transaction_session_timeout = '2min';
             SET enable_seqscan = off;
             SET enable_bitmapscan = off;
             SET tcp_keepalives_idle = 10;
             SET tcp_keepalives_interval = 5;
             SET tcp_keepalives_count = 3",
        )
        .execute(&mut connection);
        bounded(prepared).await?;
        Ok(Self { connection })
    }
}

/// A statement that ends in time.
pub(super) async fn bounded<T>(statement: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Error> {
    match timeout(STATEMENT_TIMEOUT, statement).await {
        Ok(result) => result.map_err(classify),
        Err(_) => Err(Error::Unavailable("the database does not answer".into())),
    }
}

impl Snapshot for PgSnapshot {
    async fn lanes(&mut self) -> Result<Vec<(i32, i64)>, Error> {
        let lanes = sqlx::query!(
            // from lane to lane, not through all rows
            r#"WITH RECURSIVE lane (lane) AS (
                   SELECT least((SELECT min(lane) FROM journal), (SELECT min(lane) FROM batches))
                    UNION ALL
                   SELECT least((SELECT min(journal.lane) FROM journal WHERE journal.lane > lane.lane),
                                (SELECT min(batches.lane) FROM batches WHERE batches.lane > lane.lane))
                     FROM lane
                    WHERE lane IS NOT NULL
               )
               SELECT lane AS "lane!",
                      coalesce((SELECT max(sequence) FROM journal WHERE journal.lane = lane.lane), 0) AS "last!"
                 FROM lane
                WHERE lane IS NOT NULL
                ORDER BY lane"#,
        )
        .fetch_all(&mut self.connection);
        let lanes = bounded(lanes).await?;
        Ok(lanes.into_iter().map(|row| (row.lane, row.last)).collect())
    }

    async fn rows(&mut self, lane: i32, behind: i64, limit: i64) -> Result<Vec<Stored>, Error> {
        let found = sqlx::query_as!(
            JournalRow,
            // metadata of another form than is ever written is told as a pair that is never written, and so not as signed
            r#"SELECT lane, leg, sequence, id, debit_account, credit_account, moved, held, debit_position, credit_position,
                      debit_posted, debit_held, credit_posted, credit_held, created_at, signature, kind, currency,
                      original_id, expires_at, reference, description,
                      CASE WHEN metadata IS NULL
                             OR jsonb_typeof(metadata) = 'object'
                                AND NOT jsonb_path_exists(metadata, '$.* ? (@.type() != "string")')
                           THEN metadata
                           ELSE '{"": ""}'
                       END AS "metadata: _"
                 FROM journal
                WHERE lane = $1
                  AND sequence > $2
                ORDER BY lane, sequence -- the index journal_sequence
                LIMIT $3"#,
            lane,
            behind,
            limit,
        )
        .fetch_all(&mut self.connection);
        let found = bounded(found).await?;
        Ok(found
            .into_iter()
            .map(|row| Stored {
                sequence: row.sequence,
                signature: row.signature,
                id: row.id,
                at: row.created_at,
                row: Row::try_from(row).ok(),
            })
            .collect())
    }

    async fn batches(&mut self, lane: i32, behind: i64, limit: i64) -> Result<Vec<Batch>, Error> {
        let found = sqlx::query_as!(
            Batch,
            "SELECT number, first_sequence, row_count, created_at AS at, hash
               FROM batches
              WHERE lane = $1
                AND number > $2
              ORDER BY lane, number
              LIMIT $3",
            lane,
            behind,
            limit,
        )
        .fetch_all(&mut self.connection);
        bounded(found).await
    }

    async fn families(&mut self, ids: &[Uuid]) -> Result<HashMap<Uuid, Vec<Row>>, Error> {
        let found = sqlx::query_as!(
            JournalRow,
            // each branch has its own index
            r#"SELECT lane AS "lane!", leg AS "leg!", sequence AS "sequence!", id AS "id!",
                      debit_account AS "debit_account!", credit_account AS "credit_account!", moved AS "moved!",
                      held AS "held!", debit_position AS "debit_position!", credit_position AS "credit_position!",
                      debit_posted AS "debit_posted!", debit_held AS "debit_held!", credit_posted AS "credit_posted!",
                      credit_held AS "credit_held!", created_at AS "created_at!", signature AS "signature!",
                      kind AS "kind!", currency AS "currency!", original_id, expires_at, reference, description,
                      NULL::jsonb AS "metadata: _"
                 FROM (SELECT * FROM journal WHERE id = ANY ($1)
                        UNION ALL
                       SELECT * FROM journal WHERE original_id = ANY ($1)) AS family"#,
            ids,
        )
        .fetch_all(&mut self.connection);
        let found = bounded(found).await?;
        let mut families: HashMap<Uuid, Vec<Row>> = HashMap::with_capacity(ids.len());
        // one that this version does not know is found in its own place
        for row in found.into_iter().filter_map(|row| Row::try_from(row).ok()) {
            let root = row.original.unwrap_or(row.id);
            families.entry(root).or_default().push(row);
        }
        Ok(families)
    }

    async fn balances(&mut self, behind: i64, limit: i64) -> Result<Vec<Balance>, Error> {
        let found = sqlx::query!(
            "SELECT id, currency, posted, held, incoming, position, last_at
               FROM accounts
              WHERE id > $1
              ORDER BY id
              LIMIT $2",
            behind,
            limit,
        )
        .fetch_all(&mut self.connection);
        let found = bounded(found).await?;
        Ok(found
            .into_iter()
            .map(|row| Balance {
                account: row.id,
                figures: Currency::from_code(&row.currency).map(|currency| Figures {
                    currency,
                    posted: row.posted,
                    held: row.held,
                    incoming: row.incoming,
                    position: row.position,
                    last_at: row.last_at,
                }),
            })
            .collect())
    }

    async fn holds(&mut self, behind: Option<Uuid>, limit: i64) -> Result<Vec<Hold>, Error> {
        let found = sqlx::query_as!(
            Hold,
            "SELECT pending_id AS pending, expires_at
               FROM holds
              WHERE pending_id > $1
              ORDER BY pending_id
              LIMIT $2",
            // no transfer has it
            behind.unwrap_or(Uuid::nil()),
            limit,
        )
        .fetch_all(&mut self.connection);
        bounded(found).await
    }
}

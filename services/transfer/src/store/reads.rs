//! Reads: each is a few looks into an index, however long the journal is.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Postgres, classify,
    rows::{JournalRow, RecordRow, Unknown, journal_row},
};
use crate::{
    app::{
        error::Error,
        reads::{
            AccountRecord, Journal,
            history::{Entry, Scan},
            transfer::Family,
        },
    },
    domain::journal::Row,
};

impl Journal for Postgres {
    async fn records(&self, accounts: &[i64]) -> Result<Vec<AccountRecord>, Error> {
        let rows = postgres::retry(|| {
            sqlx::query_as!(
                RecordRow,
                "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at, label,
                        created_at
                   FROM accounts
                  WHERE id = ANY ($1)",
                accounts,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        rows.into_iter()
            .map(|row| AccountRecord::try_from(row).map_err(unknown))
            .collect()
    }

    async fn families(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Arc<Family>>, Error> {
        let mut families: HashMap<Uuid, Family> = HashMap::new();
        let mut root_of: HashMap<Uuid, Uuid> = HashMap::with_capacity(ids.len());
        for (row, users) in self.family_rows(ids).await.map_err(classify)? {
            let root = row.original_id.unwrap_or(row.id);
            root_of.insert(row.id, root);
            let family = families.entry(root).or_default();
            let owned = [(row.debit_account, users[0]), (row.credit_account, users[1])];
            family.owners.extend(
                owned
                    .into_iter()
                    .filter_map(|(account, user)| Some((account, user?))),
            );
            family.rows.push(Row::try_from(row).map_err(unknown)?);
        }
        let families: HashMap<Uuid, Arc<Family>> = families
            .into_iter()
            .map(|(root, family)| (root, Arc::new(family)))
            .collect();
        Ok(ids
            .iter()
            .filter_map(|id| Some((*id, Arc::clone(families.get(root_of.get(id)?)?))))
            .collect())
    }

    async fn entries(&self, scan: &Scan) -> Result<Vec<Entry>, Error> {
        self.scan(scan).await
    }

    async fn entries_before(&self, account: i64, moments: &[DateTime<Utc>]) -> Result<Vec<i64>, Error> {
        postgres::retry(|| {
            sqlx::query_scalar!(
                r#"SELECT entries_before($1, moment) AS "position!"
                     FROM unnest($2::timestamptz[]) WITH ORDINALITY AS asked (moment, number)
                    ORDER BY number"#,
                account,
                moments,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)
    }
}

impl Postgres {
    /// The rows of the transfers that the ids name or belong to, by id and leg, with the users of both sides.
    async fn family_rows(&self, ids: &[Uuid]) -> Result<Vec<(JournalRow, [Option<i64>; 2])>, sqlx::Error> {
        let found = postgres::retry(|| {
            sqlx::query!(
                // Each branch has its own index, the last two partial ones. Owners are looked up row by row: a join could become
                // a pass over all accounts.
                r#"WITH root AS MATERIALIZED (
                       SELECT coalesce(original_id, id) AS id
                         FROM journal
                        WHERE id = ANY ($1)
                          AND leg = 0
                   ), family AS (
                       SELECT * FROM journal WHERE id = ANY (ARRAY (SELECT id FROM root))
                        UNION ALL
                       SELECT *
                         FROM journal
                        WHERE original_id = ANY (ARRAY (SELECT id FROM root))
                          AND kind IN ('post', 'void', 'expire')
                        UNION ALL
                       SELECT * FROM journal WHERE original_id = ANY (ARRAY (SELECT id FROM root)) AND kind = 'reversal'
                   )
                   SELECT lane AS "lane!", leg AS "leg!", sequence AS "sequence!", id AS "id!",
                          debit_account AS "debit_account!", credit_account AS "credit_account!", moved AS "moved!",
                          held AS "held!", debit_position AS "debit_position!", credit_position AS "credit_position!",
                          debit_posted AS "debit_posted!", debit_held AS "debit_held!", credit_posted AS "credit_posted!",
                          credit_held AS "credit_held!", created_at AS "created_at!", signature AS "signature!",
                          kind AS "kind!", currency AS "currency!", original_id, expires_at, reference, description,
                          metadata AS "metadata: Json<std::collections::BTreeMap<String, String>>",
                          (SELECT user_id FROM accounts WHERE accounts.id = debit_account) AS debit_user,
                          (SELECT user_id FROM accounts WHERE accounts.id = credit_account) AS credit_user
                     FROM family
                    ORDER BY id, leg"#,
                ids,
            )
            .fetch_all(&self.pool)
        })
        .await?;
        Ok(found
            .into_iter()
            .map(|row| {
                let users = [row.debit_user, row.credit_user];
                (journal_row!(row), users)
            })
            .collect())
    }
}

/// A row that this version cannot read.
pub(super) fn unknown(error: Unknown) -> Error {
    Error::Internal(error.into())
}

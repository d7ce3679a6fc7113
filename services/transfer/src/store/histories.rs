//! Histories of accounts: parts of them, and what has been added.

use std::{collections::HashMap, sync::Arc};

use sqlx::types::Json;

use super::{
    Postgres, classify,
    reads::unknown,
    rows::{JournalRow, journal_row},
};
use crate::{
    app::{
        error::Error,
        reads::history::{Entry, Scan},
        watch::{Tail, Tails},
    },
    domain::journal::Row,
};

/// A part of an account's history: behind a position, up to another one.
struct Part {
    account: i64,
    after: i64,
    until: i64,
}

/// Which entries of a part: with a reference, so many at most in one direction; else all of them.
#[derive(Default)]
struct Only<'a> {
    reference: Option<&'a str>,
    oldest_first: bool,
    most: i64,
}

impl Postgres {
    /// The part of a scan. Positions have no gap, so without a reference the limit is a limit of positions.
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Vec<Entry>, Error> {
        let (mut after, mut until) = (scan.after, scan.until);
        if scan.reference.is_none() && scan.oldest_first {
            until = until.min(after.saturating_add(scan.limit));
        } else if scan.reference.is_none() {
            after = after.max(until.saturating_sub(scan.limit));
        }
        let part = Part {
            account: scan.account,
            after,
            until,
        };
        let only = Only {
            reference: scan.reference.as_deref(),
            oldest_first: scan.oldest_first,
            most: scan.limit,
        };
        let found = self.rows_of(&[part], &only).await?;
        let mut entries = found
            .into_iter()
            .map(|(_, row)| Ok(Entry::of(Row::try_from(row).map_err(unknown)?, scan.account)))
            .collect::<Result<Vec<_>, Error>>()?;
        if scan.oldest_first {
            entries.sort_unstable_by_key(|entry| entry.position);
        } else {
            entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.position));
        }
        // of each side of the account there may be as many
        entries.truncate(usize::try_from(scan.limit).unwrap_or(0));
        Ok(entries)
    }

    /// The rows of parts, each with the number of its part.
    async fn rows_of(&self, parts: &[Part], only: &Only<'_>) -> Result<Vec<(usize, JournalRow)>, Error> {
        let numbers = |of: fn(&Part) -> i64| parts.iter().map(of).collect::<Vec<_>>();
        let found = postgres::retry(|| {
            sqlx::query!(
                r#"SELECT number AS "number!", lane AS "lane!", leg AS "leg!", sequence AS "sequence!", id AS "id!",
                          debit_account AS "debit_account!", credit_account AS "credit_account!", moved AS "moved!",
                          held AS "held!", debit_position AS "debit_position!", credit_position AS "credit_position!",
                          debit_posted AS "debit_posted!", debit_held AS "debit_held!", credit_posted AS "credit_posted!",
                          credit_held AS "credit_held!", created_at AS "created_at!", signature AS "signature!",
                          kind AS "kind!", currency AS "currency!", original_id, expires_at, reference, description,
                          metadata AS "metadata: Json<std::collections::BTreeMap<String, String>>"
                     FROM unnest($1::bigint[], $2::bigint[], $3::bigint[]) WITH ORDINALITY
                              AS part (account, after, until, number)
                    CROSS JOIN LATERAL entries_of(account, after, until, $4, $5, $6)"#,
                &numbers(|part| part.account),
                &numbers(|part| part.after),
                &numbers(|part| part.until),
                only.reference,
                only.oldest_first,
                only.most,
            )
            .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(found
            .into_iter()
            .map(|row| (usize::try_from(row.number - 1).unwrap_or(0), journal_row!(row)))
            .collect())
    }
}

impl Tails for Postgres {
    async fn positions(&self, accounts: &[i64]) -> Result<Vec<(i64, i64)>, Error> {
        let rows = postgres::retry(|| {
            sqlx::query!("SELECT id, position FROM accounts WHERE id = ANY ($1)", accounts)
                .fetch_all(&self.pool)
        })
        .await
        .map_err(classify)?;
        Ok(rows.into_iter().map(|row| (row.id, row.position)).collect())
    }

    async fn tails(&self, known: &[(i64, i64)], most: i64) -> Result<HashMap<(i64, i64), Tail>, Error> {
        let parts: Vec<Part> = known
            .iter()
            .map(|(account, after)| Part {
                account: *account,
                after: *after,
                until: after.saturating_add(most),
            })
            .collect();
        let mut entries: Vec<Vec<Entry>> = known.iter().map(|_| Vec::new()).collect();
        for (number, row) in self.rows_of(&parts, &Only::default()).await? {
            if let (Some((account, _)), Some(entries)) = (known.get(number), entries.get_mut(number)) {
                entries.push(Entry::of(Row::try_from(row).map_err(unknown)?, *account));
            }
        }
        let tails = known.iter().copied().zip(entries);
        Ok(tails
            .map(|(key, mut entries)| {
                entries.sort_unstable_by_key(|entry| entry.position);
                (key, Arc::from(entries))
            })
            .collect())
    }
}

//! The ledger's own tables when everything is over, and what must hold in them whatever happened before.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result, ensure};
use sqlx::PgPool;
use uuid::Uuid;

/// A row of the journal; times are microseconds since 1970.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    pub lane: i32,
    pub leg: i16,
    pub sequence: i64,
    pub id: Uuid,
    pub debit: i64,
    pub credit: i64,
    pub moved: i64,
    pub held: i64,
    pub debit_position: i64,
    pub credit_position: i64,
    pub debit_posted: i64,
    pub debit_held: i64,
    pub credit_posted: i64,
    pub credit_held: i64,
    pub at: i64,
    pub kind: String,
    pub currency: String,
    pub original_id: Option<Uuid>,
    pub expires: Option<i64>,
    pub reference: Option<String>,
    pub description: Option<String>,
    pub note: Option<String>,
}

#[derive(Debug, sqlx::FromRow)]
struct Stored {
    id: i64,
    role: String,
    currency: String,
    posted: i64,
    held: i64,
    incoming: i64,
    floor: i64,
    ceiling: i64,
    position: i64,
}

/// The state of an account by the rows up to one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Replayed {
    posted: i64,
    held: i64,
    incoming: i64,
    position: i64,
    at: i64,
}

/// All rows, by lane and sequence.
pub async fn journal(ledger: &PgPool) -> Result<Vec<Row>> {
    let select = "SELECT lane, leg, sequence, id, debit_account AS debit, credit_account AS credit, moved, held,
                         debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                         (extract(epoch FROM created_at) * 1000000)::bigint AS at, kind, currency, original_id,
                         (extract(epoch FROM expires_at) * 1000000)::bigint AS expires, reference, description,
                         metadata ->> 'note' AS note
                    FROM journal
                   ORDER BY lane, sequence";
    Ok(sqlx::query_as(select).fetch_all(ledger).await?)
}

/// The bank's side of deposits and withdrawals, by currency.
pub async fn treasuries(ledger: &PgPool) -> Result<HashMap<String, i64>> {
    let select = "SELECT currency, id FROM accounts WHERE role = 'treasury'";
    let rows: Vec<(String, i64)> = sqlx::query_as(select).fetch_all(ledger).await?;
    Ok(rows.into_iter().collect())
}

/// Everything that must hold. `restless` is an account whose limits were changed; how many accounts there are.
pub async fn check(ledger: &PgPool, journal: &[Row], restless: i64) -> Result<usize> {
    lanes_have_no_gap(ledger, journal).await?;
    let replayed = replay(journal)?;
    let accounts: Vec<Stored> = sqlx::query_as(
        "SELECT id, role, currency, posted, held, incoming, floor, ceiling, position FROM accounts",
    )
    .fetch_all(ledger)
    .await?;
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for account in &accounts {
        let by_rows = replayed.get(&account.id).copied().unwrap_or_default();
        let stored = Replayed {
            posted: account.posted,
            held: account.held,
            incoming: account.incoming,
            position: account.position,
            at: by_rows.at,
        };
        ensure!(stored == by_rows, "{account:?} should be {by_rows:?}");
        *sums.entry(&account.currency).or_default() += account.posted;
        if account.id != restless {
            ensure!(
                account.posted - account.held >= account.floor,
                "overspent: {account:?}"
            );
            ensure!(
                account.posted + account.incoming <= account.ceiling,
                "too full: {account:?}"
            );
        }
        ensure!(
            account.role == "treasury" || account.floor >= -1_000,
            "{account:?}"
        );
    }
    ensure!(
        sums.values().all(|sum| *sum == 0),
        "money was made or lost: {sums:?}"
    );
    holds_are_the_open_pendings(ledger, journal).await?;
    Ok(accounts.len())
}

async fn lanes_have_no_gap(ledger: &PgPool, journal: &[Row]) -> Result<()> {
    let mut ends: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for row in journal {
        let (sequence, at) = ends.entry(row.lane).or_default();
        ensure!(row.sequence == *sequence + 1, "a gap behind {sequence}: {row:?}");
        ensure!(row.at >= *at, "older than the row before: {row:?}");
        (*sequence, *at) = (row.sequence, row.at);
    }
    let batches: Vec<(i32, i64, i64, i32, i64)> = sqlx::query_as(
        "SELECT lane, number, first_sequence, row_count, (extract(epoch FROM created_at) * 1000000)::bigint
           FROM batches
          ORDER BY lane, number",
    )
    .fetch_all(ledger)
    .await?;
    let mut covered: BTreeMap<i32, (i64, i64)> = BTreeMap::new();
    for batch @ (lane, number, first, rows, _) in &batches {
        let (last, end) = covered.entry(*lane).or_default();
        ensure!(
            *number == *last + 1 && *first == *end + 1,
            "behind batch {last} and row {end}: {batch:?}"
        );
        (*last, *end) = (*number, *end + i64::from(*rows));
    }
    for (lane, (sequence, _)) in &ends {
        let end = covered.get(lane).map(|(_, end)| *end);
        ensure!(
            end == Some(*sequence),
            "lane {lane} has {sequence} rows, and batches of {end:?}"
        );
    }
    Ok(())
}

/// Every account from its first entry on: positions without a gap, the balances as each row says them, times in order.
fn replay(journal: &[Row]) -> Result<HashMap<i64, Replayed>> {
    let mut entries: HashMap<i64, Vec<&Row>> = HashMap::new();
    for row in journal {
        entries.entry(row.debit).or_default().push(row);
        entries.entry(row.credit).or_default().push(row);
    }
    let mut replayed = HashMap::new();
    for (account, mut rows) in entries {
        let position = |row: &Row| {
            if row.debit == account {
                row.debit_position
            } else {
                row.credit_position
            }
        };
        rows.sort_by_key(|row| position(row));
        let mut state = Replayed::default();
        for row in rows {
            let pays = row.debit == account;
            state.posted += if pays { -row.moved } else { row.moved };
            *(if pays {
                &mut state.held
            } else {
                &mut state.incoming
            }) += row.held;
            let (posted, held) = if pays {
                (row.debit_posted, row.debit_held)
            } else {
                (row.credit_posted, row.credit_held)
            };
            ensure!(
                position(row) == state.position + 1,
                "a gap behind {state:?}: {row:?}"
            );
            ensure!(
                (posted, held) == (state.posted, state.held),
                "{state:?} by all rows up to {row:?}"
            );
            ensure!(row.at >= state.at, "older than the entry before: {row:?}");
            ensure!(
                state.held >= 0 && state.incoming >= 0,
                "{state:?} by all rows up to {row:?}"
            );
            (state.position, state.at) = (position(row), row.at);
        }
        replayed.insert(account, state);
    }
    Ok(replayed)
}

/// Each pending transfer ends at most once and in its time, and `holds` lists those that have not.
async fn holds_are_the_open_pendings(ledger: &PgPool, journal: &[Row]) -> Result<()> {
    let mut open: HashMap<Uuid, i64> = HashMap::new();
    for row in journal.iter().filter(|row| row.kind == "pending") {
        open.insert(row.id, row.expires.context("a pending transfer without an end")?);
    }
    let ends = journal
        .iter()
        .filter(|row| row.leg == 0 && matches!(row.kind.as_str(), "post" | "void" | "expire"));
    for row in ends {
        let original = row.original_id.context("an end of nothing")?;
        let expires = open.remove(&original);
        let expires = expires.with_context(|| format!("it had ended before, or was never there: {row:?}"))?;
        ensure!(
            (row.kind == "expire") == (row.at >= expires),
            "not in its time ({expires}): {row:?}"
        );
    }
    let holds: Vec<(Uuid, i64)> =
        sqlx::query_as("SELECT pending_id, (extract(epoch FROM expires_at) * 1000000)::bigint FROM holds")
            .fetch_all(ledger)
            .await?;
    let holds: HashMap<Uuid, i64> = holds.into_iter().collect();
    ensure!(
        holds == open,
        "{} holds, and {} pending transfers are open",
        holds.len(),
        open.len()
    );
    Ok(())
}

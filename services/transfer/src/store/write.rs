//! Writes a batch: rows, the batch itself, balances, holds.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::writer::Ready;
use crate::{
    app::chain::{Place, Signed},
    domain::{
        account::Account,
        books::Books,
        journal::{Kind, Row},
    },
};

pub(super) async fn begin(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("BEGIN").execute(connection).await.map(|_| ())
}

pub(super) async fn commit(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("COMMIT").execute(connection).await.map(|_| ())
}

pub(super) async fn rollback(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!("ROLLBACK").execute(connection).await.map(|_| ())
}

/// Writes everything that the books have made.
pub(super) async fn batch(
    connection: &mut PgConnection,
    books: &Books,
    place: &Place,
    signed: &Signed,
) -> Result<(), sqlx::Error> {
    let made = books.made();
    if made.iter().all(|row| is_plain(row, made)) {
        rows_and_balances(connection, books, place, signed).await
    } else {
        rows_with_everything(connection, made, place, signed).await?;
        balances(connection, books, place, signed).await?;
        holds(connection, made).await
    }
}

/// Whether a row differs from the others of its batch only in what every row has of its own.
fn is_plain(row: &Row, made: &[Row]) -> bool {
    row.kind == Kind::Transfer
        && row.leg == 0
        && row.note.is_none()
        && made.first().is_some_and(|first| first.currency == row.currency)
}

/// The columns in which every row differs from the next one.
///
/// The statements unnest them in the list of the SELECT, not in its FROM: there the server would first write all of them to
/// a store of tuples, a third of the whole statement's time.
pub(super) struct Columns {
    pub id: Vec<Uuid>,
    pub debit: Vec<i64>,
    pub credit: Vec<i64>,
    pub moved: Vec<i64>,
    pub debit_position: Vec<i64>,
    pub credit_position: Vec<i64>,
    pub debit_posted: Vec<i64>,
    pub debit_held: Vec<i64>,
    pub credit_posted: Vec<i64>,
    pub credit_held: Vec<i64>,
}

impl Columns {
    pub fn of(rows: &[Row]) -> Self {
        let numbers = |of: fn(&Row) -> i64| rows.iter().map(of).collect::<Vec<_>>();
        Self {
            id: rows.iter().map(|row| row.id).collect(),
            debit: numbers(|row| row.debit),
            credit: numbers(|row| row.credit),
            moved: numbers(|row| row.moved),
            debit_position: numbers(|row| row.debit_position),
            credit_position: numbers(|row| row.credit_position),
            debit_posted: numbers(|row| row.debit_posted),
            debit_held: numbers(|row| row.debit_held),
            credit_posted: numbers(|row| row.credit_posted),
            credit_held: numbers(|row| row.credit_held),
        }
    }
}

/// The new figures of the accounts that the batch has changed.
#[derive(Default)]
struct Balances {
    id: Vec<i64>,
    posted: Vec<i64>,
    held: Vec<i64>,
    incoming: Vec<i64>,
    position: Vec<i64>,
}

impl Balances {
    fn of(books: &Books, at: DateTime<Utc>) -> Self {
        let mut balances = Self::default();
        // what the batch has changed has its time, which is later than that of all others
        for account in books.accounts().filter(|account| account.last_at == at) {
            balances.id.push(account.id);
            balances.posted.push(account.posted);
            balances.held.push(account.held);
            balances.incoming.push(account.incoming);
            balances.position.push(account.position);
        }
        balances
    }
}

/// Accounts that are changed where they are as expected.
pub(super) struct Changes {
    pub id: Vec<i64>,
    pub expected_position: Vec<i64>,
    pub expected_revision: Vec<i64>,
    pub posted: Vec<i64>,
    pub position: Vec<i64>,
}

impl Changes {
    pub fn of(expected: &[Account], books: &Books) -> Self {
        let before = |of: fn(&Account) -> i64| expected.iter().map(of).collect();
        let after = |of: fn(&Account) -> i64| {
            let changed = expected.iter().filter_map(|account| books.account(account.id));
            changed.map(of).collect()
        };
        Self {
            id: before(|account| account.id),
            expected_position: before(|account| account.position),
            expected_revision: before(|account| account.revision),
            posted: after(|account| account.posted),
            position: after(|account| account.position),
        }
    }
}

/// Plain transfers of one currency, most of all batches: everything in one statement, and no column for what is the same.
async fn rows_and_balances(
    connection: &mut PgConnection,
    books: &Books,
    place: &Place,
    signed: &Signed,
) -> Result<(), sqlx::Error> {
    let rows = Columns::of(books.made());
    let currency = books
        .made()
        .first()
        .map(|row| row.currency.code())
        .unwrap_or_default();
    let accounts = Balances::of(books, place.at);
    sqlx::query!(
        "WITH row AS (
             INSERT INTO journal (lane, created_at, leg, sequence, id, debit_account, credit_account, moved, held,
                                  debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                                  signature, kind, currency)
             SELECT $1, $2, 0, unnest($3::bigint[]), unnest($4::uuid[]), unnest($5::bigint[]), unnest($6::bigint[]),
                    unnest($7::bigint[]), 0, unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::bigint[]),
                    unnest($11::bigint[]), unnest($12::bigint[]), unnest($13::bigint[]), unnest($14::bigint[]),
                    'transfer', $15
         ), batch AS (
             INSERT INTO batches (lane, created_at, number, first_sequence, row_count, hash)
             VALUES ($1, $2, $16, $17, $18, $19)
         )
         UPDATE accounts
            SET posted = changed.posted, held = changed.held, incoming = changed.incoming,
                position = changed.position, last_at = $2
           FROM (SELECT unnest($20::bigint[]) AS id, unnest($21::bigint[]) AS posted, unnest($22::bigint[]) AS held,
                        unnest($23::bigint[]) AS incoming, unnest($24::bigint[]) AS position) AS changed
          WHERE accounts.id = changed.id",
        place.lane,
        place.at,
        &sequences(place, books.made()),
        &rows.id,
        &rows.debit,
        &rows.credit,
        &rows.moved,
        &rows.debit_position,
        &rows.credit_position,
        &rows.debit_posted,
        &rows.debit_held,
        &rows.credit_posted,
        &rows.credit_held,
        &signed.signatures,
        currency,
        place.number,
        place.first_sequence,
        row_count(books.made()),
        &signed.hash,
        &accounts.id,
        &accounts.posted,
        &accounts.held,
        &accounts.incoming,
        &accounts.position,
    )
    .execute(connection)
    .await
    .map(|_| ())
}

/// What `accounts_have_changed` raises.
const HAVE_CHANGED: &str = "KT001";

/// Plain transfers of one currency, provided that their accounts are as expected, in one statement that commits by itself.
///
/// The accounts come first, in the order of the locks; when one has changed, the statement ends there. To lock them all and then
/// to change them would cost each account twice.
pub(super) fn proposal(expected: &[Account], books: &Books, place: &Place, signed: &Signed) -> Ready<bool> {
    let rows = Columns::of(books.made());
    let accounts = Changes::of(expected, books);
    let statement = sqlx::query_scalar!(
        r#"WITH balance AS (
               UPDATE accounts
                  SET posted = changed.posted, position = changed.position, last_at = $2
                 FROM (SELECT unnest($16::bigint[]) AS id, unnest($17::bigint[]) AS expected_position,
                              unnest($18::bigint[]) AS expected_revision, unnest($22::bigint[]) AS posted,
                              unnest($23::bigint[]) AS position) AS changed
                WHERE accounts.id = changed.id
                  AND accounts.position = changed.expected_position
                  AND accounts.revision = changed.expected_revision
               RETURNING 1
           ), row AS (
               INSERT INTO journal (lane, created_at, leg, sequence, id, debit_account, credit_account, moved, held,
                                    debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                                    signature, kind, currency)
               SELECT $1, $2, 0, $3::bigint + generate_series(0, $19::integer - 1), unnest($4::uuid[]), unnest($5::bigint[]),
                      unnest($6::bigint[]), unnest($7::bigint[]), 0, unnest($8::bigint[]), unnest($9::bigint[]),
                      unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::bigint[]), unnest($13::bigint[]),
                      unnest($14::bigint[]), 'transfer', $15
           ), batch AS (
               INSERT INTO batches (lane, created_at, number, first_sequence, row_count, hash)
               SELECT $1, $2, $20, $3, $19, $21
           )
           -- PostgreSQL does first what the answer depends on
           SELECT CASE WHEN count(*) = cardinality($16) THEN true ELSE accounts_have_changed() END AS "yes!"
             FROM balance"#,
        place.lane,
        place.at,
        place.first_sequence,
        &rows.id,
        &rows.debit,
        &rows.credit,
        &rows.moved,
        &rows.debit_position,
        &rows.credit_position,
        &rows.debit_posted,
        &rows.debit_held,
        &rows.credit_posted,
        &rows.credit_held,
        &signed.signatures,
        expected.first().map_or("", |account| account.currency.code()),
        &accounts.id,
        &accounts.expected_position,
        &accounts.expected_revision,
        row_count(books.made()),
        place.number,
        &signed.hash,
        &accounts.posted,
        &accounts.position,
    );
    Box::new(move |connection| {
        async {
            match statement.fetch_one(connection).await {
                Err(sqlx::Error::Database(error))
                    if error.code().is_some_and(|code| code == HAVE_CHANGED) =>
                {
                    Ok(false)
                }
                result => result,
            }
        }
        .boxed()
    })
}

async fn rows_with_everything(
    connection: &mut PgConnection,
    made: &[Row],
    place: &Place,
    signed: &Signed,
) -> Result<(), sqlx::Error> {
    let rows = Columns::of(made);
    let leg: Vec<i16> = made.iter().map(|row| row.leg).collect();
    let held: Vec<i64> = made.iter().map(|row| row.held).collect();
    let kind: Vec<&str> = made.iter().map(|row| row.kind.name()).collect();
    let currency: Vec<&str> = made.iter().map(|row| row.currency.code()).collect();
    let original: Vec<Option<Uuid>> = made.iter().map(|row| row.original).collect();
    let expires: Vec<Option<DateTime<Utc>>> = made.iter().map(|row| row.expires_at).collect();
    let notes = || made.iter().map(|row| row.note.as_deref());
    let reference: Vec<Option<&str>> = notes().map(|note| note?.reference.as_deref()).collect();
    let description: Vec<Option<&str>> = notes().map(|note| note?.description.as_deref()).collect();
    let metadata: Vec<Option<Json<_>>> = notes()
        .map(|note| {
            note.map(|note| &note.metadata)
                .filter(|pairs| !pairs.is_empty())
                .map(Json)
        })
        .collect();
    sqlx::query!(
        "INSERT INTO journal (lane, created_at, leg, sequence, id, debit_account, credit_account, moved, held,
                              debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                              signature, kind, currency, original_id, expires_at, reference, description, metadata)
         SELECT $1, $2, unnest($3::smallint[]), unnest($4::bigint[]), unnest($5::uuid[]), unnest($6::bigint[]),
                unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]), unnest($10::bigint[]),
                unnest($11::bigint[]), unnest($12::bigint[]), unnest($13::bigint[]), unnest($14::bigint[]),
                unnest($15::bigint[]), unnest($16::bigint[]), unnest($17::text[]), unnest($18::text[]),
                unnest($19::uuid[]), unnest($20::timestamptz[]), unnest($21::text[]), unnest($22::text[]),
                unnest($23::jsonb[])",
        place.lane,
        place.at,
        &leg,
        &sequences(place, made),
        &rows.id,
        &rows.debit,
        &rows.credit,
        &rows.moved,
        &held,
        &rows.debit_position,
        &rows.credit_position,
        &rows.debit_posted,
        &rows.debit_held,
        &rows.credit_posted,
        &rows.credit_held,
        &signed.signatures,
        &kind as &[&str],
        &currency as &[&str],
        &original as &[Option<Uuid>],
        &expires as &[Option<DateTime<Utc>>],
        &reference as &[Option<&str>],
        &description as &[Option<&str>],
        &metadata as &[Option<Json<&std::collections::BTreeMap<String, String>>>],
    )
    .execute(connection)
    .await
    .map(|_| ())
}

async fn balances(
    connection: &mut PgConnection,
    books: &Books,
    place: &Place,
    signed: &Signed,
) -> Result<(), sqlx::Error> {
    let accounts = Balances::of(books, place.at);
    sqlx::query!(
        "WITH batch AS (
             INSERT INTO batches (lane, created_at, number, first_sequence, row_count, hash)
             VALUES ($1, $2, $3, $4, $5, $6)
         )
         UPDATE accounts
            SET posted = changed.posted, held = changed.held, incoming = changed.incoming,
                position = changed.position, last_at = $2
           FROM (SELECT unnest($7::bigint[]) AS id, unnest($8::bigint[]) AS posted, unnest($9::bigint[]) AS held,
                        unnest($10::bigint[]) AS incoming, unnest($11::bigint[]) AS position) AS changed
          WHERE accounts.id = changed.id",
        place.lane,
        place.at,
        place.number,
        place.first_sequence,
        row_count(books.made()),
        &signed.hash,
        &accounts.id,
        &accounts.posted,
        &accounts.held,
        &accounts.incoming,
        &accounts.position,
    )
    .execute(connection)
    .await
    .map(|_| ())
}

/// Keeps `holds` in step with the journal: what began to be pending, less what ended, in this batch or before.
async fn holds(connection: &mut PgConnection, made: &[Row]) -> Result<(), sqlx::Error> {
    let ended: HashSet<Uuid> = made
        .iter()
        .filter(|row| row.kind.ends_pending())
        .filter_map(|row| row.original)
        .collect();
    let begun: Vec<&Row> = made
        .iter()
        .filter(|row| row.kind == Kind::Pending && row.leg == 0 && !ended.contains(&row.id))
        .collect();
    if ended.is_empty() && begun.is_empty() {
        return Ok(());
    }
    let ended: Vec<Uuid> = ended.into_iter().collect();
    let ids: Vec<Uuid> = begun.iter().map(|row| row.id).collect();
    let expires: Vec<Option<DateTime<Utc>>> = begun.iter().map(|row| row.expires_at).collect();
    sqlx::query!(
        "WITH ended AS (
             DELETE FROM holds WHERE pending_id = ANY ($1)
         )
         INSERT INTO holds (pending_id, expires_at)
         SELECT *
           FROM unnest($2::uuid[], $3::timestamptz[])",
        &ended,
        &ids,
        &expires as &[Option<DateTime<Utc>>],
    )
    .execute(connection)
    .await
    .map(|_| ())
}

fn sequences(place: &Place, rows: &[Row]) -> Vec<i64> {
    (place.first_sequence..).take(rows.len()).collect()
}

pub(super) fn row_count(rows: &[Row]) -> i32 {
    i32::try_from(rows.len()).unwrap_or(i32::MAX)
}

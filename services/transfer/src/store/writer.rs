//! Sessions beside a lane's own: each writes the rows of a large batch before the turn of its accounts has come.

use futures_util::{FutureExt as _, future::BoxFuture};
use sqlx::PgConnection;

use super::{
    Postgres,
    lane::keep_order,
    write::{self, Changes, Columns, row_count},
};
use crate::{
    app::{
        chain::{Place, Signed, Tip},
        engine::{Failure, Writer},
    },
    domain::{account::Account, books::Books},
};

/// The first half of the keys that writers share: "ROWS" in ASCII. Who claims a lane must be able to have it alone.
pub(super) const LOCKS: i32 = 0x524f_5753;

/// Where another replica works on the same rows, it may wait for these while it holds their accounts: to write and then to wait
/// for accounts would be a deadlock. So a writer hardly waits; the batch then goes the slow way.
const HURRY: &str = "SET lock_timeout = '50ms'";

/// A statement with its arguments in the form that is sent.
pub type Ready<T> =
    Box<dyn for<'a> FnOnce(&'a mut PgConnection) -> BoxFuture<'a, Result<T, sqlx::Error>> + Send>;

/// A session with a transaction under way, or none.
pub struct PgWriter(PgConnection);

impl Postgres {
    pub(super) async fn open_writer(&self, lane: i32) -> Result<PgWriter, Failure> {
        // not given back to the pool: its locks are bound to the session
        let mut connection = postgres::acquire(&self.pool).await?.detach();
        keep_order(&mut connection).await?;
        sqlx::raw_sql(HURRY).execute(&mut connection).await?;
        let shared = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock_shared($1, $2) AS "shared!""#,
            LOCKS,
            lane
        )
        .fetch_one(&mut connection)
        .await?;
        if shared {
            Ok(PgWriter(connection))
        } else {
            Err(Failure::Unavailable("somebody else claims the lane".into()))
        }
    }
}

impl Writer for PgWriter {
    type Rows = Ready<()>;
    type Rest = Ready<bool>;

    async fn write(&mut self, rows: Ready<()>) -> Result<bool, Failure> {
        write::begin(&mut self.0).await?;
        match rows(&mut self.0).await {
            Err(error) if is_taken(&error) => Ok(false),
            result => Ok(result.map(|()| true)?),
        }
    }

    async fn settle(&mut self, rest: Ready<bool>) -> Result<bool, Failure> {
        match rest(&mut self.0).await {
            Ok(true) => {
                write::commit(&mut self.0).await?;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) if is_taken(&error) => Ok(false),
            // whatever it was: nothing is committed that was not asked to be
            Err(error) => Err(Failure::Conflict(error.into())),
        }
    }
}

/// Whether another replica was first with an entry of an account, or is about to.
fn is_taken(error: &sqlx::Error) -> bool {
    let lost = matches!(
        postgres::constraint(error),
        Some("journal_debit_position" | "journal_credit_position")
    );
    lost || error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == "55P03")
}

pub(super) fn rows(books: &Books, place: &Place, signed: &Signed, currency: &str) -> Ready<()> {
    let rows = Columns::of(books.made());
    let statement = sqlx::query!(
        "INSERT INTO journal (lane, created_at, leg, sequence, id, debit_account, credit_account, moved, held,
                              debit_position, credit_position, debit_posted, debit_held, credit_posted, credit_held,
                              signature, kind, currency)
         SELECT $1, $2, 0, $3::bigint + generate_series(0, $4::integer - 1), unnest($5::uuid[]), unnest($6::bigint[]),
                unnest($7::bigint[]), unnest($8::bigint[]), 0, unnest($9::bigint[]), unnest($10::bigint[]),
                unnest($11::bigint[]), unnest($12::bigint[]), unnest($13::bigint[]), unnest($14::bigint[]),
                unnest($15::bigint[]), 'transfer', $16",
        place.lane,
        place.at,
        place.first_sequence,
        row_count(books.made()),
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
    );
    Box::new(move |connection| async { statement.execute(connection).await.map(|_| ()) }.boxed())
}

/// The accounts where they are as expected, in the order of the locks, and the batch; false when one is not as expected, or
/// when the lane has another end than the batch was made for. A session of its own may have reached another database than the
/// lane's: one that has taken over, and lacks what was committed last.
pub(super) fn rest(
    expected: &[Account],
    books: &Books,
    from: &Tip,
    place: &Place,
    signed: &Signed,
) -> Ready<bool> {
    let accounts = Changes::of(expected, books);
    let statement = sqlx::query_scalar!(
        r#"WITH balance AS (
               UPDATE accounts
                  SET posted = changed.posted, position = changed.position, last_at = $2
                 FROM (SELECT unnest($7::bigint[]) AS id, unnest($8::bigint[]) AS expected_position,
                              unnest($9::bigint[]) AS expected_revision, unnest($10::bigint[]) AS posted,
                              unnest($11::bigint[]) AS position) AS changed
                WHERE accounts.id = changed.id
                  AND accounts.position = changed.expected_position
                  AND accounts.revision = changed.expected_revision
               RETURNING 1
           ), batch AS (
               INSERT INTO batches (lane, created_at, number, first_sequence, row_count, hash)
               SELECT $1, $2, $3, $4, $5, $6
                WHERE $3::bigint = 1
                   OR EXISTS (SELECT FROM batches WHERE lane = $1 AND number = $3::bigint - 1 AND hash = $12)
               RETURNING 1
           )
           SELECT count(*) = cardinality($7) AND EXISTS (SELECT FROM batch) AS "yes!"
             FROM balance"#,
        place.lane,
        place.at,
        place.number,
        place.first_sequence,
        row_count(books.made()),
        &signed.hash,
        &accounts.id,
        &accounts.expected_position,
        &accounts.expected_revision,
        &accounts.posted,
        &accounts.position,
        &from.hash,
    );
    Box::new(move |connection| statement.fetch_one(connection).boxed())
}

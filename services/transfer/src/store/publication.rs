//! What of the journal is published, and what is to be published next.
//!
//! One session per database publishes: the one that holds the advisory lock. It reads and moves the cursors on that very
//! session; when it is lost, both stop.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;
use uuid::Uuid;

use super::lane;

/// The advisory lock: "PUBL" in ASCII, and nothing to tell apart.
const LOCK: (i32, i32) = (0x5055_424c, 0);
/// The longest that a statement or a connection attempt may take before the session counts as lost.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A row that is to be published.
#[derive(Clone, Debug)]
pub struct Unpublished {
    /// The lane.
    pub lane: i32,
    /// The position in the lane.
    pub sequence: i64,
    /// The client's id.
    pub id: Uuid,
    /// The number of the leg.
    pub leg: i16,
    /// The name of the kind.
    pub kind: String,
    /// The account that pays.
    pub debit_account: i64,
    /// The account that is paid.
    pub credit_account: i64,
    /// By how much posted money moves.
    pub moved: i64,
    /// By how much the payer's held amount changes.
    pub held: i64,
    /// The code.
    pub currency: String,
    /// The entry's number in the paying account.
    pub debit_position: i64,
    /// The entry's number in the paid account.
    pub credit_position: i64,
    /// The payer's posted balance afterwards.
    pub debit_posted: i64,
    /// The payer's held amount afterwards.
    pub debit_held: i64,
    /// The payee's posted balance afterwards.
    pub credit_posted: i64,
    /// The payee's held amount afterwards.
    pub credit_held: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The pending or reversed transfer.
    pub original_id: Option<Uuid>,
    /// What the parties find it by.
    pub reference: Option<String>,
}

/// The next rows, in an order in which they could have happened.
#[derive(Debug)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Unpublished>,
    /// Whether there may be more.
    pub full: bool,
}

/// What waits to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lag {
    /// Rows.
    pub rows: i64,
    /// The age of the oldest one.
    pub millis: i64,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// A statement failed.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// The database does not answer.
    #[error("a statement took longer than {STATEMENT_TIMEOUT:?}")]
    TimedOut(#[from] tokio::time::error::Elapsed),
}

/// The session that publishes, or would like to.
pub struct Publication {
    connection: PgConnection,
    /// How far each lane is published.
    published: BTreeMap<i32, i64>,
}

impl Publication {
    /// Connects.
    pub async fn connect(options: &PgConnectOptions) -> Result<Self, Lost> {
        let options = options.clone().application_name("journal relay");
        let mut connection = timeout(STATEMENT_TIMEOUT, PgConnection::connect_with(&options)).await??;
        timeout(STATEMENT_TIMEOUT, prepare(&mut connection)).await??;
        Ok(Self {
            connection,
            published: BTreeMap::new(),
        })
    }

    /// Tries to become the one that publishes, for as long as the session lives.
    pub async fn try_lead(&mut self) -> Result<bool, Lost> {
        let locked = sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_lock($1, $2) AS "locked!""#,
            LOCK.0,
            LOCK.1
        )
        .fetch_one(&mut self.connection);
        if !timeout(STATEMENT_TIMEOUT, locked).await?? {
            return Ok(false);
        }
        self.load().await?;
        Ok(true)
    }

    /// Reads how far each lane is published; whether that is something else than was known.
    async fn load(&mut self) -> Result<bool, Lost> {
        let cursors = sqlx::query!("SELECT lane, sequence FROM published").fetch_all(&mut self.connection);
        let cursors = timeout(STATEMENT_TIMEOUT, cursors).await??;
        // a lane that was never published begins at its beginning
        let mut published: BTreeMap<i32, i64> = (0..=*lane::LANES.end()).map(|lane| (lane, 0)).collect();
        published.extend(cursors.into_iter().map(|cursor| (cursor.lane, cursor.sequence)));
        let changed = self.published != published;
        self.published = published;
        Ok(changed)
    }

    /// The next rows of all lanes, up to so many of each.
    ///
    /// One statement is one snapshot, and a row in it has all its predecessors in it: a later row of an account waits for the
    /// account's lock until the earlier one is committed. Sorted by time all rows are in an order in which they could have
    /// happened, because the time of a row is later than that of every earlier row of its accounts and lane.
    pub async fn next(&mut self, each: i64) -> Result<Page, Lost> {
        let page = self.read(each).await?;
        // an import into an empty ledger says in its own commit that its rows are published
        let first = page
            .rows
            .iter()
            .any(|row| self.published.get(&row.lane) == Some(&0));
        if first && self.load().await? {
            return self.read(each).await;
        }
        Ok(page)
    }

    async fn read(&mut self, each: i64) -> Result<Page, Lost> {
        let (lanes, sequences) = self.cursors();
        let rows = sqlx::query_as!(
            Unpublished,
            "SELECT row.*
               FROM unnest($1::integer[], $2::bigint[]) AS published (lane, sequence)
              CROSS JOIN LATERAL (SELECT lane, sequence, id, leg, kind, debit_account, credit_account, moved, held, currency,
                                         debit_position, credit_position, debit_posted, debit_held, credit_posted,
                                         credit_held, created_at, original_id, reference
                                    FROM journal
                                   WHERE journal.lane = published.lane
                                     AND journal.sequence > published.sequence
                                   ORDER BY journal.lane, journal.sequence -- the index journal_sequence
                                   LIMIT $3) AS row
              ORDER BY row.created_at, row.lane, row.sequence",
            &lanes,
            &sequences,
            each,
        )
        .fetch_all(&mut self.connection);
        Ok(cut(timeout(STATEMENT_TIMEOUT, rows).await??, each))
    }

    /// Remembers that rows are published.
    pub async fn advance(&mut self, rows: &[Unpublished]) -> Result<(), Lost> {
        let ends: BTreeMap<i32, i64> = rows.iter().map(|row| (row.lane, row.sequence)).collect();
        let (lanes, sequences): (Vec<i32>, Vec<i64>) = ends.iter().unzip();
        let moved = sqlx::query!(
            "INSERT INTO published (lane, sequence)
             SELECT *
               FROM unnest($1::integer[], $2::bigint[])
                 ON CONFLICT (lane) DO UPDATE SET sequence = excluded.sequence",
            &lanes,
            &sequences,
        )
        .execute(&mut self.connection);
        timeout(STATEMENT_TIMEOUT, moved).await??;
        self.published.extend(ends);
        Ok(())
    }

    /// How much waits.
    pub async fn lag(&mut self) -> Result<Lag, Lost> {
        let (lanes, sequences) = self.cursors();
        let lag = sqlx::query_as!(
            Lag,
            r#"SELECT coalesce(sum(head.sequence - published.sequence), 0)::bigint AS "rows!",
                      coalesce(extract(epoch FROM clock_timestamp() - min(oldest.created_at)) * 1000, 0)::bigint AS "millis!"
                 FROM unnest($1::integer[], $2::bigint[]) AS published (lane, sequence)
                CROSS JOIN LATERAL (SELECT sequence
                                      FROM journal
                                     WHERE journal.lane = published.lane
                                       AND journal.sequence > published.sequence
                                     ORDER BY journal.lane DESC, journal.sequence DESC
                                     LIMIT 1) AS head
                CROSS JOIN LATERAL (SELECT created_at
                                      FROM journal
                                     WHERE journal.lane = published.lane
                                       AND journal.sequence > published.sequence
                                     ORDER BY journal.lane, journal.sequence
                                     LIMIT 1) AS oldest"#,
            &lanes,
            &sequences,
        )
        .fetch_one(&mut self.connection);
        Ok(timeout(STATEMENT_TIMEOUT, lag).await??)
    }

    /// Ends the session, so that another one can lead at once.
    pub async fn close(self) {
        // the server notices either way
        let _ = timeout(STATEMENT_TIMEOUT, self.connection.close()).await;
    }

    fn cursors(&self) -> (Vec<i32>, Vec<i64>) {
        self.published.iter().unzip()
    }
}

/// Takes the rows up to where a lane has more than was read: what comes behind that is not known.
fn cut(mut rows: Vec<Unpublished>, each: i64) -> Page {
    let mut read: BTreeMap<i32, (i64, usize)> = BTreeMap::new();
    for (at, row) in rows.iter().enumerate() {
        let (count, last) = read.entry(row.lane).or_default();
        *count += 1;
        *last = at;
    }
    let end = read
        .values()
        .filter(|(count, _)| *count >= each)
        .map(|(_, last)| last + 1)
        .min();
    rows.truncate(end.unwrap_or(rows.len()));
    Page {
        rows,
        full: end.is_some(),
    }
}

async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        // Cursors need no flush of their own: one that a crash takes back means events twice, and these are told apart.
        // A plan for a journal that is still small stays in use while it grows: it must use the index from the beginning.
        "SET synchronous_commit = off;
         SET enable_seqscan = off;
         SET enable_bitmapscan = off;
         SET statement_timeout = '4s';
         SET tcp_keepalives_idle = 10;
         SET tcp_keepalives_interval = 5;
         SET tcp_keepalives_count = 3",
    )
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lane: i32, sequence: i64, at: i64) -> Unpublished {
        Unpublished {
            lane,
            sequence,
            id: Uuid::nil(),
            leg: 0,
            kind: "transfer".to_owned(),
            debit_account: 1,
            credit_account: 2,
            moved: 1,
            held: 0,
            currency: "USD".to_owned(),
            debit_position: 1,
            credit_position: 1,
            debit_posted: 0,
            debit_held: 0,
            credit_posted: 1,
            credit_held: 0,
            created_at: DateTime::from_timestamp_micros(at).unwrap(),
            original_id: None,
            reference: None,
        }
    }

    #[test]
    fn nothing_passes_a_lane_that_was_not_read_to_its_end() {
        let rows = vec![
            row(1, 1, 10),
            row(2, 1, 20),
            row(1, 2, 30),
            row(2, 2, 40),
            row(2, 3, 50),
        ];
        let page = cut(rows.clone(), 4);
        assert_eq!((page.rows.len(), page.full), (5, false));
        let page = cut(rows.clone(), 3);
        assert_eq!((page.rows.len(), page.full), (5, true));
        let page = cut(rows, 2);
        // lane 1 may go on at 31
        assert_eq!((page.rows.len(), page.full), (3, true));
    }
}

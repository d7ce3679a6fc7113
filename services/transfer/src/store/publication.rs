//! What of the journal is published, and what is to be published next.
//!
//! One session per database publishes: the one that holds the advisory lock. It reads and moves the cursors on that very
//! session; when it is lost, both stop. What its own instance has committed it need not read from the journal.

mod recent;

use std::{collections::BTreeMap, time::Duration};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tokio::time::timeout;

use self::recent::Keeper;
pub use self::recent::Recent;
use super::{
    lane,
    rows::{self, JournalRow},
};
use crate::domain::journal::Row;

/// The advisory lock: "PUBL" in ASCII, and nothing to tell apart.
const LOCK: (i32, i32) = (0x5055_424c, 0);
/// The longest that a statement or a connection attempt may take before the session counts as lost.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// A row that is to be published; of its note it has the reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    /// The lane.
    pub lane: i32,
    /// The position in the lane.
    pub sequence: i64,
    /// What it says.
    pub row: Row,
}

/// The next rows, in an order in which they could have happened.
#[derive(Debug)]
pub struct Page {
    /// The rows.
    pub rows: Vec<Unpublished>,
    /// Whether there may be more.
    pub full: bool,
}

/// Rows in the order of their times, without a gap.
#[derive(Debug, Default)]
struct Run {
    rows: Vec<Unpublished>,
    /// Nothing comes behind them.
    is_whole: bool,
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
    recent: Recent,
    /// Since it leads.
    own: Option<Keeper>,
}

impl Publication {
    /// Connects; `recent` is what the same instance commits.
    pub async fn connect(options: &PgConnectOptions, recent: Recent) -> Result<Self, Lost> {
        let options = options.clone().application_name("journal relay");
        let mut connection = timeout(STATEMENT_TIMEOUT, PgConnection::connect_with(&options)).await??;
        timeout(STATEMENT_TIMEOUT, prepare(&mut connection)).await??;
        Ok(Self {
            connection,
            published: BTreeMap::new(),
            recent,
            own: None,
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
        self.own = Some(self.recent.keep());
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

    /// The next rows of all lanes, up to so many.
    ///
    /// One statement is one snapshot, and a row in it has all its predecessors in it: a later row of an account waits for the
    /// account's lock until the earlier one is committed. Sorted by time all rows are in an order in which they could have
    /// happened, because the time of a row is later than that of every earlier row of its accounts and lane.
    pub async fn next(&mut self, most: usize) -> Result<Page, Lost> {
        let page = self.look(most).await?;
        // an import into an empty ledger says in its own commit that its rows are published
        let first = page
            .rows
            .iter()
            .any(|row| self.published.get(&row.lane) == Some(&0));
        if first && self.load().await? {
            return self.look(most).await;
        }
        Ok(page)
    }

    async fn look(&mut self, most: usize) -> Result<Page, Lost> {
        // committed before the statement begins, and so in its snapshot
        let own = self.own.as_ref();
        if let Some(own) = own.and_then(|own| own.behind(&self.published, most)) {
            if let Some(page) = self.read_beside(own, most).await? {
                return Ok(page);
            }
            tracing::warn!("the journal lacks rows that this instance has committed");
            self.own.iter().for_each(Keeper::forget);
        }
        let rows = self.read(&self.published.clone(), most, None).await?;
        let is_whole = rows.len() < most;
        Ok(merge(Run { rows, is_whole }, Run::default(), most))
    }

    /// Reads what other lanes have, and of its own lane no more than tells whether the rows are in the journal. None when they
    /// are not.
    async fn read_beside(&mut self, mut own: Run, most: usize) -> Result<Option<Page>, Lost> {
        let Some(last) = own.rows.last() else {
            return Ok(None);
        };
        let mut from = self.published.clone();
        from.insert(last.lane, last.sequence - 1);
        let mut rows = self.read(&from, most, Some(last.lane)).await?;
        let beginning = rows.iter().take_while(|row| row.lane == last.lane).count();
        let others = rows.split_off(beginning);
        if rows.first().is_none_or(|found| !is_same(found, last)) {
            return Ok(None);
        }
        own.is_whole &= rows.len() == 1;
        let is_whole = others.len() < most;
        Ok(Some(merge(
            own,
            Run {
                rows: others,
                is_whole,
            },
            most,
        )))
    }

    /// The next rows behind positions, the earliest first, up to so many. Of a lane whose rows are known already come two at
    /// most, before all others and not counted.
    async fn read(
        &mut self,
        behind: &BTreeMap<i32, i64>,
        most: usize,
        known: Option<i32>,
    ) -> Result<Vec<Unpublished>, Lost> {
        const OF_KNOWN: i64 = 2;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let (lanes, sequences): (Vec<i32>, Vec<i64>) = behind.iter().unzip();
        let limits: Vec<i64> = lanes
            .iter()
            .map(|lane| if Some(*lane) == known { OF_KNOWN } else { most })
            .collect();
        let rows = sqlx::query_as!(
            JournalRow,
            // what is not published is not read
            r#"SELECT row.lane, row.leg, row.sequence, row.id, row.debit_account, row.credit_account, row.moved, row.held,
                      row.debit_position, row.credit_position, row.debit_posted, row.debit_held, row.credit_posted,
                      row.credit_held, row.created_at, 0::bigint AS "signature!", row.kind, row.currency, row.original_id,
                      NULL::timestamptz AS expires_at, row.reference, NULL::text AS description,
                      NULL::jsonb AS "metadata: _"
                 FROM unnest($1::integer[], $2::bigint[], $3::bigint[]) AS published (lane, sequence, rows)
                CROSS JOIN LATERAL (SELECT *
                                      FROM journal
                                     WHERE journal.lane = published.lane
                                       AND journal.sequence > published.sequence
                                     ORDER BY journal.lane, journal.sequence -- the index journal_sequence
                                     LIMIT published.rows) AS row
                ORDER BY row.lane = $4 DESC, row.created_at, row.lane, row.sequence
                LIMIT $5"#,
            &lanes,
            &sequences,
            &limits,
            known.unwrap_or(-1),
            most.saturating_add(known.map_or(0, |_| OF_KNOWN)),
        )
        .fetch_all(&mut self.connection);
        let rows = timeout(STATEMENT_TIMEOUT, rows).await??;
        let places: Vec<(i32, i64)> = rows.iter().map(|row| (row.lane, row.sequence)).collect();
        let rows = rows::journal(rows)?;
        Ok(places
            .into_iter()
            .zip(rows)
            .map(|((lane, sequence), row)| Unpublished { lane, sequence, row })
            .collect())
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

/// Whether two rows of one lane are the same one.
fn is_same(one: &Unpublished, other: &Unpublished) -> bool {
    let what = |row: &Unpublished| (row.sequence, row.row.id, row.row.leg, row.row.at);
    what(one) == what(other)
}

/// Both in the order of their times, up to where one of them may go on: what comes behind that is not known.
fn merge(one: Run, other: Run, most: usize) -> Page {
    let time = |row: &Unpublished| (row.row.at, row.lane, row.sequence);
    let ends = [&one, &other].map(|run| run.rows.last().filter(|_| !run.is_whole).map(time));
    let end = ends.into_iter().flatten().min();
    let mut rows = one.rows;
    if !other.rows.is_empty() {
        rows.extend(other.rows);
        // finds the two runs, and merges them
        rows.sort_by_key(time);
    }
    let known = end.map_or(rows.len(), |end| rows.partition_point(|row| time(row) <= end));
    let full = end.is_some() || known > most;
    rows.truncate(known.min(most));
    Page { rows, full }
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
    use chrono::DateTime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{journal::Kind, money::Currency};

    pub(super) fn row(lane: i32, sequence: i64, at: i64) -> Unpublished {
        let row = Row {
            id: Uuid::nil(),
            leg: 0,
            kind: Kind::Transfer,
            debit: 1,
            credit: 2,
            moved: 1,
            held: 0,
            currency: Currency::from_code("USD").unwrap(),
            debit_position: 1,
            credit_position: 1,
            debit_posted: 0,
            debit_held: 0,
            credit_posted: 1,
            credit_held: 0,
            at: DateTime::from_timestamp_micros(at).unwrap(),
            original: None,
            expires_at: None,
            note: None,
        };
        Unpublished { lane, sequence, row }
    }

    #[test]
    fn nothing_passes_a_run_that_may_go_on() {
        let merged = |one_whole, other_whole, most| {
            let run = |lane, times: &[i64], is_whole| Run {
                rows: (1..).zip(times).map(|(at, time)| row(lane, at, *time)).collect(),
                is_whole,
            };
            let page = merge(
                run(1, &[10, 30], one_whole),
                run(2, &[20, 40, 50], other_whole),
                most,
            );
            let times: Vec<i64> = page
                .rows
                .iter()
                .map(|row| row.row.at.timestamp_micros())
                .collect();
            (times, page.full)
        };
        assert_eq!(merged(true, true, 5), (vec![10, 20, 30, 40, 50], false));
        // the first may go on at 31
        assert_eq!(merged(false, true, 5), (vec![10, 20, 30], true));
        assert_eq!(merged(true, false, 5), (vec![10, 20, 30, 40, 50], true));
        assert_eq!(merged(false, false, 5), (vec![10, 20, 30], true));
        assert_eq!(merged(true, true, 4), (vec![10, 20, 30, 40], true));
        assert_eq!(merged(false, true, 2), (vec![10, 20], true));
    }

    #[test]
    fn rows_of_one_moment_keep_their_order() {
        let run = |lane| Run {
            rows: vec![row(lane, 1, 10), row(lane, 2, 10)],
            is_whole: true,
        };
        let page = merge(run(2), run(1), 9);
        let places: Vec<_> = page.rows.iter().map(|row| (row.lane, row.sequence)).collect();
        assert_eq!(places, [(1, 1), (1, 2), (2, 1), (2, 2)]);
    }
}

//! A lane of the journal: its owner alone adds to it, so that its positions have no gap and its batches form a chain.
//!
//! A lane belongs to the database session that holds its advisory lock, and only that session writes to it. When the
//! session ends, however it does, the lock is free and the next owner reads where the lane ends.

use std::time::Instant;

use chrono::{DateTime, Utc};
use postgres::session_lifetime;
use sqlx::{PgConnection, PgExecutor};
use uuid::Uuid;

use super::{
    Postgres,
    rows::{self, AccountRow, JournalRow},
    write,
    writer::{self, PgWriter, Ready},
};
use crate::{
    app::{
        chain::{LAST_LANE, Signer, Tip},
        engine::{Failure, Found, Lane, Lanes, Parts, Wanted},
    },
    domain::{account::Account, books::Books, journal::Row},
};

/// The first half of the advisory locks' keys: "LANE" in ASCII.
const LOCKS: i32 = 0x4c41_4e45;
/// The lanes that replicas can claim; lane 0 holds what is older than the chain.
pub(super) const LANES: std::ops::RangeInclusive<i32> = 1..=LAST_LANE;

/// For how many batches ids are looked up, after one was met that had been posted before: clients that repeat requests
/// seldom do it once.
const LOOK_UPS: u32 = 256;

/// A claimed lane.
pub struct PgLane {
    connection: PgConnection,
    signer: Signer,
    tip: Tip,
    /// How many batches more look ids up.
    look_ups: u32,
    /// When its session is to end.
    until: Instant,
}

/// A batch that is ready to be sent.
pub struct Proposal {
    /// The end of the lane as it has to be, and as it is afterwards.
    from: Tip,
    tip: Tip,
    write: Ready<bool>,
}

impl Lanes for Postgres {
    type Lane = PgLane;
    type Writer = PgWriter;

    async fn claim(&self) -> Result<PgLane, Failure> {
        // not given back to the pool: the lane is bound to this session
        let mut connection = postgres::acquire(&self.pool).await?.detach();
        for lane in LANES {
            let claimed = sqlx::query_scalar!(
                r#"SELECT pg_try_advisory_lock($1, $2) AS "claimed!""#,
                LOCKS,
                lane
            )
            .fetch_one(&mut connection)
            .await?;
            if claimed && has_no_writers(&mut connection, lane).await? {
                keep_order(&mut connection).await?;
                let until = Instant::now() + session_lifetime(&self.pool);
                return Ok(open(connection, lane, self.signer.clone(), until).await?);
            }
        }
        Err(Failure::Unavailable("all lanes are claimed".into()))
    }

    async fn writer(&self, lane: i32) -> Result<PgWriter, Failure> {
        self.open_writer(lane).await
    }

    fn draft_parts(
        &self,
        expected: &[Account],
        books: &Books,
        from: &Tip,
        at: DateTime<Utc>,
    ) -> (Parts<PgWriter>, Tip) {
        let (place, signed, tip) = self.signer.extend(from, at, books.made());
        let currency = expected.first().map_or("", |account| account.currency.code());
        let parts = (
            writer::rows(books, &place, &signed, currency),
            writer::rest(expected, books, from, &place, &signed),
        );
        (parts, tip)
    }

    fn draft(&self, expected: &[Account], books: &Books, from: &Tip, at: DateTime<Utc>) -> (Proposal, Tip) {
        let (place, signed, tip) = self.signer.extend(from, at, books.made());
        let proposal = Proposal {
            from: *from,
            tip,
            write: write::proposal(expected, books, &place, &signed),
        };
        (proposal, tip)
    }

    async fn look(&self, wanted: &Wanted) -> Result<Found, Failure> {
        Ok(postgres::retry(|| self.try_look(wanted)).await?)
    }
}

impl Postgres {
    async fn try_look(&self, wanted: &Wanted) -> Result<Found, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let earlier = earlier(&mut *connection, wanted).await?;
        let ids = with_accounts_of(wanted, &earlier);
        let accounts = sqlx::query_as!(
            AccountRow,
            "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at
               FROM accounts
              WHERE id = ANY ($1)",
            &ids,
        )
        .fetch_all(&mut *connection)
        .await?;
        Ok(Found {
            accounts: rows::accounts(accounts)?,
            earlier,
            ids_looked_up: true,
        })
    }
}

/// Whether no session writes for the lane any more whose owner is gone. If one does, the lane is given back.
async fn has_no_writers(connection: &mut PgConnection, lane: i32) -> Result<bool, sqlx::Error> {
    let alone = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock($1, $2) AS "alone!""#,
        writer::LOCKS,
        lane
    )
    .fetch_one(&mut *connection)
    .await?;
    if !alone {
        sqlx::query_scalar!("SELECT pg_advisory_unlock($1, $2)", LOCKS, lane)
            .fetch_one(connection)
            .await?;
    }
    Ok(alone)
}

/// Batches find accounts one by one, in the order in which they name them: that is the order of the locks. A plan for few
/// accounts stays in use when there are many: it must use the index from the beginning.
pub(super) async fn keep_order(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_seqscan = off")
        .execute(connection)
        .await
        .map(|_| ())
}

async fn open(
    mut connection: PgConnection,
    lane: i32,
    signer: Signer,
    until: Instant,
) -> Result<PgLane, sqlx::Error> {
    let last = sqlx::query!(
        "SELECT number, first_sequence + row_count AS \"next_sequence!\", created_at, hash
           FROM batches
          WHERE lane = $1
          ORDER BY number DESC
          LIMIT 1",
        lane,
    )
    .fetch_optional(&mut connection)
    .await?;
    let mut opened = PgLane {
        connection,
        signer,
        tip: Tip::genesis(lane),
        // whoever did not hear from the owner before tries again now
        look_ups: LOOK_UPS,
        until,
    };
    if let Some(last) = last {
        opened.tip = Tip {
            lane,
            number: last.number,
            next_sequence: last.next_sequence,
            last_at: last.created_at,
            hash: last
                .hash
                .try_into()
                .map_err(|_| sqlx::Error::Decode("the hash of a batch has another length".into()))?,
        };
    }
    tracing::info!(
        ledger.lane = lane,
        ledger.batch = opened.tip.number,
        "lane claimed"
    );
    Ok(opened)
}

impl Lane for PgLane {
    type Proposal = Proposal;

    fn tip(&self) -> Tip {
        self.tip
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn expects_repeats(&self) -> bool {
        self.look_ups > 0
    }

    async fn propose(&mut self, proposal: Proposal) -> Result<bool, Failure> {
        if proposal.from != self.tip {
            return Err(Failure::Broken("a proposal for another end of the lane".into()));
        }
        match (proposal.write)(&mut self.connection).await {
            Ok(true) => {
                self.tip = proposal.tip;
                Ok(true)
            }
            Ok(false) => Ok(false),
            Err(error) => {
                self.look_ups = LOOK_UPS;
                Err(error.into())
            }
        }
    }

    fn extended(&mut self, tip: Tip) {
        self.tip = tip;
    }

    fn met_repeat(&mut self) {
        self.look_ups = LOOK_UPS;
    }

    async fn begin(&mut self, wanted: &Wanted) -> Result<Found, Failure> {
        let found = async {
            write::begin(&mut self.connection).await?;
            let look_up = self.look_ups > 0 || !wanted.originals.is_empty();
            self.look_ups = self.look_ups.saturating_sub(1);
            let accounts = lock(&mut self.connection, wanted).await?;
            let earlier = if look_up {
                earlier(&mut self.connection, wanted).await?
            } else {
                Vec::new()
            };
            Ok::<_, sqlx::Error>(Found {
                accounts,
                earlier,
                ids_looked_up: look_up,
            })
        }
        .await;
        if found.is_err() {
            self.abandon().await;
        }
        Ok(found?)
    }

    async fn any_posted(&mut self, ids: &[Uuid]) -> Result<bool, Failure> {
        let posted = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM journal WHERE id = ANY ($1)) AS "posted!""#,
            ids,
        )
        .fetch_one(&mut self.connection)
        .await;
        if posted.is_err() {
            self.abandon().await;
        }
        let posted = posted?;
        if posted {
            self.look_ups = LOOK_UPS;
        }
        Ok(posted)
    }

    async fn commit(&mut self, books: &Books, at: DateTime<Utc>) -> Result<(), Failure> {
        let (place, signed, tip) = self.signer.extend(&self.tip, at, books.made());
        if let Err(error) = write::batch(&mut self.connection, books, &place, &signed).await {
            self.abandon().await;
            self.look_ups = LOOK_UPS;
            return Err(error.into());
        }
        write::commit(&mut self.connection).await?;
        self.tip = tip;
        Ok(())
    }

    async fn rollback(&mut self) -> Result<(), Failure> {
        Ok(write::rollback(&mut self.connection).await?)
    }
}

impl PgLane {
    /// After a failed statement: the session can be used again only behind a rollback. When that fails too, the session is
    /// broken, and the failed statement has told why.
    async fn abandon(&mut self) {
        let _ = write::rollback(&mut self.connection).await;
    }
}

/// Locks the accounts of the commands, and those of the transfers that commands act on.
async fn lock(connection: &mut PgConnection, wanted: &Wanted) -> Result<Vec<Account>, sqlx::Error> {
    let mut ids = wanted.accounts.clone();
    if !wanted.originals.is_empty() {
        // what a transfer's accounts are never changes: no lock is needed to read it
        let accounts_of = sqlx::query!(
            "SELECT debit_account, credit_account
               FROM journal
              WHERE id = ANY ($1)",
            &wanted.originals,
        )
        .fetch_all(&mut *connection)
        .await?;
        ids.extend(
            accounts_of
                .iter()
                .flat_map(|row| [row.debit_account, row.credit_account]),
        );
        ids.sort_unstable();
        ids.dedup();
    }
    let locked = sqlx::query_as!(
        AccountRow,
        // ORDER BY id: every transaction locks accounts in this order, so that two can never wait for each other.
        // NO KEY: the foreign key check of an account's change need not wait.
        "SELECT id, user_id, role, status, currency, posted, held, incoming, floor, ceiling, revision, position, last_at
           FROM accounts
          WHERE id = ANY ($1)
          ORDER BY id
            FOR NO KEY UPDATE",
        &ids,
    )
    .fetch_all(connection)
    .await?;
    rows::accounts(locked)
}

/// The rows that have an id of the commands or of what they act on, and those of what was done to the latter. A statement of
/// its own behind the locks: it sees what another replica committed while the locks were waited for.
async fn earlier(connection: impl PgExecutor<'_>, wanted: &Wanted) -> Result<Vec<Row>, sqlx::Error> {
    let ids: Vec<Uuid> = wanted.ids.iter().chain(&wanted.originals).copied().collect();
    let found = sqlx::query_as!(
        JournalRow,
        // each branch has its own index
        r#"SELECT lane AS "lane!", leg AS "leg!", sequence AS "sequence!", id AS "id!", debit_account AS "debit_account!",
                  credit_account AS "credit_account!", moved AS "moved!", held AS "held!",
                  debit_position AS "debit_position!", credit_position AS "credit_position!",
                  debit_posted AS "debit_posted!", debit_held AS "debit_held!", credit_posted AS "credit_posted!",
                  credit_held AS "credit_held!", created_at AS "created_at!", signature AS "signature!", kind AS "kind!",
                  currency AS "currency!", original_id, expires_at, reference, description,
                  metadata AS "metadata: _"
             FROM (SELECT * FROM journal WHERE id = ANY ($1)
                    UNION
                   SELECT * FROM journal WHERE original_id = ANY ($2)) AS earlier
            ORDER BY id, leg"#,
        &ids,
        &wanted.originals,
    )
    .fetch_all(connection)
    .await?;
    rows::journal(found)
}

fn with_accounts_of(wanted: &Wanted, earlier: &[Row]) -> Vec<i64> {
    let mut ids = wanted.accounts.clone();
    ids.extend(earlier.iter().flat_map(|row| [row.debit, row.credit]));
    ids
}

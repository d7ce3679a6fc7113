//! Verifies the whole ledger in one snapshot, while the ledger works on.
//!
//! The rows of all lanes are read in an order in which they could have happened. Row by row the place in the lane, the
//! signature and the chain are checked ([`lane`]), then what the row says ([`Audit`]); at the end what is stored beside the
//! journal. A row's signature is looked at when the row before it in its lane has been taken, so that a changed time, which would
//! change the order, is found first.

mod lane;
mod merge;

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use chrono::{DateTime, Utc};
use opentelemetry::{KeyValue, metrics::Counter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use uuid::Uuid;

use self::lane::Chain;
pub use self::merge::{Entry, Merge};
use super::{
    chain::{HASH_LEN, LAST_LANE, Signer},
    error::Error,
    expiry::Hold,
};
use crate::domain::{
    audit::{Audit, Figures, Missing, Problem},
    journal::Row,
};

/// How many calls that go through the whole ledger an instance serves at once.
const AT_ONCE: usize = 2;
/// Rows between two reports.
const REPORT_EVERY: i64 = 10_000;
/// Accounts or pending transfers in a page.
const PAGE: i64 = 2_000;
/// How long a client may leave what it is sent unread. The snapshot keeps the database from tidying up.
const PATIENCE: Duration = Duration::from_mins(1);

static VERIFIED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.verifications")
        .with_description("verifications of the whole ledger that came to their end, by what they found")
        .build()
});

/// A row of the journal as it is stored.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The position in the lane.
    pub sequence: i64,
    /// What it is signed with.
    pub signature: i64,
    /// The client's id.
    pub id: Uuid,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// What it says; none when this version does not know one of its values.
    pub row: Option<Row>,
}

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The number in the lane, from 1.
    pub number: i64,
    /// The position of its first row.
    pub first_sequence: i64,
    /// How many rows it has.
    pub row_count: i32,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// Its signature, which depends on all batches before.
    pub hash: Vec<u8>,
}

/// An account as it is stored; no figures when this version does not know the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The account.
    pub account: i64,
    /// What is stored of it.
    pub figures: Option<Figures>,
}

/// The end of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The lane.
    pub lane: i32,
    /// The last batch; 0 in a lane without signatures.
    pub batch: i64,
    /// The last position.
    pub sequence: i64,
    /// The signature of the last batch.
    pub hash: [u8; HASH_LEN],
}

/// Opens snapshots.
pub trait Snapshots: Send + Sync + 'static {
    /// A snapshot.
    type Snapshot: Snapshot;
    /// The ledger as it is now, on a connection of its own.
    fn open(&self) -> impl Future<Output = Result<Self::Snapshot, Error>> + Send;
}

/// The ledger at one moment, in pages.
pub trait Snapshot: Send + 'static {
    /// The lanes that have rows or batches, each with its last position.
    fn lanes(&mut self) -> impl Future<Output = Result<Vec<(i32, i64)>, Error>> + Send;
    /// The rows of a lane behind a position.
    fn rows(
        &mut self,
        lane: i32,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Stored>, Error>> + Send;
    /// The batches of a lane behind a number.
    fn batches(
        &mut self,
        lane: i32,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Batch>, Error>> + Send;
    /// The rows of transfers and of all that was done to them.
    fn families(
        &mut self,
        ids: &[Uuid],
    ) -> impl Future<Output = Result<HashMap<Uuid, Vec<Row>>, Error>> + Send;
    /// The balances of accounts behind a number.
    fn balances(
        &mut self,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Balance>, Error>> + Send;
    /// The list of pending transfers, by id.
    fn holds(
        &mut self,
        behind: Option<Uuid>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Hold>, Error>> + Send;
}

/// A row that is not as it was written, or the place where something is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bad {
    /// The lane.
    pub lane: i32,
    /// The position in the lane; 0 when all rows are right.
    pub sequence: i64,
    /// The batch, when it is known.
    pub batch: i64,
    /// The transfer, when there is one.
    pub transfer: Option<Uuid>,
    /// The account that is wrong though all rows are right.
    pub account: Option<i64>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sequence > 0 {
            write!(f, "row {} of lane {}: ", self.sequence, self.lane)?;
        } else if let Some(transfer) = self.transfer {
            write!(f, "transfer {transfer}: ")?;
        }
        f.write_str(&self.problem)
    }
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Rows verified.
    pub rows: i64,
    /// Rows in all.
    pub total_rows: i64,
    /// Accounts compared with the journal.
    pub accounts: i64,
}

/// What a verification tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// So far nothing is wrong.
    Progress(Progress),
    /// The end: the first thing that is wrong, and the ends of the lanes as far as they were seen.
    Done(Progress, Option<Bad>, Vec<Head>),
}

/// Why a verification stops.
pub(super) enum Stop {
    Found(Bad),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Bad> for Stop {
    fn from(bad: Bad) -> Self {
        Self::Found(bad)
    }
}

/// Calls that go through the whole ledger: few at once.
#[derive(Clone)]
pub struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Room {
    /// Lets one in, for as long as the permit lives.
    ///
    /// # Errors
    /// [`Error::Overloaded`].
    pub fn enter(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.0)
            .try_acquire_owned()
            .map_err(|_| Error::Overloaded)
    }
}

/// Sends something to a client that reads.
///
/// # Errors
/// It has gone, or does not read.
pub(super) async fn send<T>(to: &mpsc::Sender<T>, item: T) -> Result<(), Error> {
    to.send_timeout(item, PATIENCE)
        .await
        .map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Error::Late,
            mpsc::error::SendTimeoutError::Closed(_) => Error::Unavailable("the client has gone".into()),
        })
}

/// Verifies the ledger as it is now, and tells about every 10,000 rows and at the end.
///
/// # Errors
/// The ledger could not be read, or the client does not read. What is wrong with the ledger is no error.
pub async fn verify<S: Snapshots>(
    snapshots: &S,
    signer: &Signer,
    known: Vec<Head>,
    reports: &mpsc::Sender<Report>,
) -> Result<(), Error> {
    let mut snapshot = snapshots.open().await?;
    let mut audited = Verification::new(signer, known, Some(reports));
    let bad = audited.find(&mut snapshot).await?;
    let result = if bad.is_some() { "bad row" } else { "sound" };
    VERIFIED.add(1, &[KeyValue::new("result", result)]);
    let progress = audited.progress;
    if let Some(bad) = &bad {
        tracing::error!(problem = %bad, "the ledger is not as it was written");
    } else {
        tracing::info!(
            ledger.rows = progress.rows,
            ledger.accounts = progress.accounts,
            "the ledger is sound"
        );
    }
    send(reports, Report::Done(progress, bad, audited.heads())).await
}

/// A verification of one snapshot.
pub(super) struct Verification<'a> {
    signer: &'a Signer,
    known: Vec<Head>,
    reports: Option<&'a mpsc::Sender<Report>>,
    audit: Audit,
    chains: Vec<Chain>,
    progress: Progress,
}

impl<'a> Verification<'a> {
    pub fn new(signer: &'a Signer, known: Vec<Head>, reports: Option<&'a mpsc::Sender<Report>>) -> Self {
        Self {
            signer,
            known,
            reports,
            audit: Audit::default(),
            chains: Vec::new(),
            progress: Progress::default(),
        }
    }

    /// The first thing that is wrong.
    pub async fn find<S: Snapshot>(&mut self, snapshot: &mut S) -> Result<Option<Bad>, Error> {
        let found = async {
            self.replay(snapshot).await?;
            self.compare(snapshot).await
        };
        match found.await {
            Ok(()) => Ok(None),
            Err(Stop::Found(bad)) => Ok(Some(bad)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// The ends of the lanes that have rows.
    pub fn heads(&self) -> Vec<Head> {
        self.chains.iter().filter_map(Chain::head).collect()
    }

    async fn replay<S: Snapshot>(&mut self, snapshot: &mut S) -> Result<(), Stop> {
        let ends = snapshot.lanes().await?;
        self.progress.total_rows = ends.iter().map(|(_, last)| last).sum();
        let mut lanes: Vec<i32> = ends.iter().map(|(lane, _)| *lane).collect();
        let mut merge = Merge::open(snapshot, &lanes).await?;
        // a lane of which only the earlier verification knows is a lane without rows
        lanes.extend(self.known.iter().map(|head| head.lane));
        for lane in lanes {
            if self.chains.iter().any(|chain| chain.lane() == lane) {
                continue;
            }
            if !(0..=LAST_LANE).contains(&lane) {
                let problem = "there is no such lane".to_owned();
                return Err(Stop::Found(Bad {
                    lane,
                    sequence: 1,
                    problem,
                    ..Bad::default()
                }));
            }
            let known = self.known.iter().filter(|head| head.lane == lane).copied();
            let mut chain = Chain::open(snapshot, lane, known.collect()).await?;
            let head = merge.index(lane).and_then(|index| merge.head(index));
            chain
                .look(snapshot, self.signer, head.map(|entry| &entry.stored))
                .await?;
            self.chains.push(chain);
        }
        while let Some((index, entry)) = merge.take(snapshot).await? {
            self.check(&entry).map_err(|problem| self.bad(&entry, &problem))?;
            let lane = entry.lane;
            if let Some(chain) = self.chains.iter_mut().find(|chain| chain.lane() == lane) {
                let head = merge.head(index).map(|entry| &entry.stored);
                chain.look(snapshot, self.signer, head).await?;
            }
            self.progress.rows += 1;
            if self.progress.rows % REPORT_EVERY == 0 {
                self.report().await?;
            }
        }
        Ok(())
    }

    fn check(&mut self, entry: &Entry) -> Result<(), Problem> {
        // the chain has refused a row that this version does not know
        let row = entry.stored.row.as_ref().ok_or(Problem::Shape)?;
        let family = entry.family.as_deref().map(Vec::as_slice).unwrap_or_default();
        self.audit.check(row, family)
    }

    fn bad(&self, entry: &Entry, problem: &Problem) -> Bad {
        let chain = self.chains.iter().find(|chain| chain.lane() == entry.lane);
        Bad {
            lane: entry.lane,
            sequence: entry.stored.sequence,
            batch: chain.map_or(0, Chain::batch),
            transfer: Some(entry.stored.id),
            account: None,
            problem: problem.to_string(),
        }
    }

    async fn report(&self) -> Result<(), Error> {
        match self.reports {
            Some(reports) => send(reports, Report::Progress(self.progress)).await,
            None => Ok(()),
        }
    }

    /// Compares what is stored beside the journal.
    async fn compare<S: Snapshot>(&mut self, snapshot: &mut S) -> Result<(), Stop> {
        let mut behind = i64::MIN;
        loop {
            let page = snapshot.balances(behind, PAGE).await?;
            let Some(last) = page.last() else { break };
            behind = last.account;
            for balance in page {
                let compared = match &balance.figures {
                    Some(figures) => self.audit.compare(balance.account, figures),
                    None => Err(Problem::Currency(balance.account)),
                };
                compared.map_err(|problem| beside(Some(balance.account), None, &problem))?;
                self.progress.accounts += 1;
            }
            self.report().await?;
        }
        let mut behind = None;
        loop {
            let page = snapshot.holds(behind, PAGE).await?;
            let Some(last) = page.last() else { break };
            behind = Some(last.pending);
            for hold in page {
                self.audit
                    .compare_hold(hold.pending, hold.expires_at)
                    .map_err(|problem| beside(None, Some(hold.pending), &problem))?;
            }
        }
        match self.audit.missing() {
            Some(Missing::Account(account)) => {
                return Err(beside(Some(account), None, &Problem::NoAccount(account)).into());
            }
            Some(Missing::Hold(id)) => return Err(beside(None, Some(id), &Problem::HoldMissing).into()),
            None => {}
        }
        self.audit
            .balance()
            .map_err(|problem| beside(None, None, &problem).into())
    }
}

/// Something that is wrong beside the journal.
fn beside(account: Option<i64>, transfer: Option<Uuid>, problem: &Problem) -> Bad {
    Bad {
        account,
        transfer,
        problem: problem.to_string(),
        ..Bad::default()
    }
}

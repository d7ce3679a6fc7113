//! Group commit: commands of many callers become one transaction.
//!
//! Commands wait in a bounded queue. A single batcher takes what is there, up to a limit, and commits it; meanwhile the next
//! batch gathers. Alone, a command goes at once. A command that is refused fails alone, a chain as a whole.
//!
//! A batch of plain transfers between accounts that this replica remembers is one round trip to the database: it is written
//! provided that the accounts are still as remembered. Every other batch locks what it touches, reads, and then writes. Of large
//! ones two are under way.

mod ahead;
mod batch;
mod job;
mod memory;
mod metrics;
mod queue;

use std::{sync::Arc, time::Instant};

use chrono::{DateTime, Utc};
use lifecycle::Lifecycle;
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

use self::{
    batch::Batcher,
    job::{Job, Steps},
    queue::Queue,
};
use super::{
    chain::Tip,
    error::{Error, Source},
};
use crate::domain::{
    account::Account,
    books::{Books, Done},
    command::{Command, Refusal},
    journal::Row,
};

/// How many rows of the journal one commit may write, and how many one call may ask for.
pub const MAX_BATCH: usize = 8_192;

/// What the outcome of one command is.
pub type Outcome = Result<Done, Refusal>;

/// What commands touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Accounts, in the order of their numbers, each once.
    pub accounts: Vec<i64>,
    /// The ids of the commands.
    pub ids: Vec<Uuid>,
    /// Transfers that the commands act on.
    pub originals: Vec<Uuid>,
}

/// What is stored of that.
#[derive(Debug, Default)]
pub struct Found {
    /// The accounts, those of the originals too.
    pub accounts: Vec<Account>,
    /// The rows that [`Books::new`] asks for, in its order.
    pub earlier: Vec<Row>,
    /// Whether rows with the commands' own ids were looked for, behind the locks. Looking costs a part of each batch, and
    /// there is rarely something to find: a lane may leave it to the primary key, and to [`Lane::any_posted`].
    pub ids_looked_up: bool,
}

/// Why a transaction failed.
#[derive(Debug)]
pub enum Failure {
    /// Others were in its way: it was certainly rolled back, and may work in a moment.
    Conflict(Source),
    /// The session has ended. Whether it was committed is not known, but the same ids find out, in another session.
    Lost(Source),
    /// The database is not there: whether it was committed is not known.
    Unavailable(Source),
    /// A mistake of ours.
    Broken(Source),
}

/// A sequence of batches that only its owner extends.
pub trait Lane: Send + Sync + 'static {
    /// A batch that was drafted.
    type Proposal: Send + 'static;
    /// Its end.
    fn tip(&self) -> Tip;
    /// Whether it is to be given back before the next batch: its session has lasted long enough.
    fn is_over(&self) -> bool;
    /// Whether ids may well have been posted before, so that [`Lane::begin`] is to look.
    fn expects_repeats(&self) -> bool;
    /// Writes and commits at once what was drafted for the end of the lane. False when an account is not as expected, and
    /// then nothing is written. When an id was posted before, it is a conflict, and repeats are expected from then on.
    fn propose(&mut self, proposal: Self::Proposal) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// A [`Writer`] has extended it.
    fn extended(&mut self, tip: Tip);
    /// An id was met that had been posted before.
    fn met_repeat(&mut self);
    /// Begins a transaction and locks what is wanted.
    fn begin(&mut self, wanted: &Wanted) -> impl Future<Output = Result<Found, Failure>> + Send;
    /// Whether any of these ids was posted before; asked behind the locks of [`Lane::begin`]. When it was, the next begin
    /// looks ids up.
    fn any_posted(&mut self, ids: &[Uuid]) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// Writes what the books have made at a moment, and commits. When an id was posted before, it is a conflict, and the
    /// next begin looks ids up.
    fn commit(
        &mut self,
        books: &Books,
        at: DateTime<Utc>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;
    /// Ends the transaction without a change.
    fn rollback(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// A session beside a lane's own, which writes a batch before its turn has come. Several work side by side for the owner of a
/// lane. Nobody claims the lane while one lives. Dropped, it takes back what it has not committed.
pub trait Writer: Send + Sync + 'static {
    /// The rows of a batch that was drafted.
    type Rows: Send + 'static;
    /// All else of it.
    type Rest: Send + 'static;
    /// Begins a transaction and writes rows, for accounts as they are expected to be. False when they are not, or when
    /// somebody else works on them: then the writer is of no use any more.
    fn write(&mut self, rows: Self::Rows) -> impl Future<Output = Result<bool, Failure>> + Send;
    /// Changes the accounts, and commits; the batch before has to be committed. False as with [`Writer::write`].
    fn settle(&mut self, rest: Self::Rest) -> impl Future<Output = Result<bool, Failure>> + Send;
}

/// Where lanes come from.
pub trait Lanes: Send + Sync + 'static {
    /// A lane.
    type Lane: Lane;
    /// A session beside it.
    type Writer: Writer;
    /// Claims a lane that nobody owns.
    fn claim(&self) -> impl Future<Output = Result<Self::Lane, Failure>> + Send;
    /// A session for the owner of a lane.
    fn writer(&self, lane: i32) -> impl Future<Output = Result<Self::Writer, Failure>> + Send;
    /// Drafts a batch for the end of a lane: what the books have made of accounts, in the order of their numbers, that are
    /// expected to be so. Also where the lane ends behind it.
    fn draft(
        &self,
        expected: &[Account],
        books: &Books,
        from: &Tip,
        at: DateTime<Utc>,
    ) -> (<Self::Lane as Lane>::Proposal, Tip);
    /// Drafts it in two parts, for a writer.
    fn draft_parts(
        &self,
        expected: &[Account],
        books: &Books,
        from: &Tip,
        at: DateTime<Utc>,
    ) -> (Parts<Self::Writer>, Tip);
    /// Reads without a lock what is wanted, for a dry run.
    fn look(&self, wanted: &Wanted) -> impl Future<Output = Result<Found, Failure>> + Send;
}

/// What a writer needs for a batch: its rows, and all else.
pub type Parts<W> = (<W as Writer>::Rows, <W as Writer>::Rest);

/// A batch that was committed.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The lane.
    pub lane: i32,
    /// The position of the first row.
    pub first_sequence: i64,
    /// The rows, in order.
    pub rows: Vec<Row>,
}

/// How much waits at most, and what tells the time.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Rows that may wait to be written.
    pub queue: usize,
    /// Rows from which on two batches are under way.
    pub large_batch: usize,
    /// The clock.
    pub clock: fn() -> DateTime<Utc>,
}

/// Takes commands. Clones share the queue.
#[derive(Clone)]
pub struct Engine {
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Job>,
}

impl Engine {
    /// An engine whose batcher is owned by `lifecycle`. `committed` is called behind each commit.
    pub fn start<L: Lanes>(
        lanes: L,
        config: Config,
        committed: impl Fn(Committed) + Send + Sync + 'static,
        lifecycle: &Lifecycle,
    ) -> Self {
        let room = Arc::new(Semaphore::new(config.queue));
        let (queue, jobs) = mpsc::channel(config.queue);
        metrics::observe_queue(&room, config.queue);
        let batcher = Batcher::new(lanes, config, Box::new(committed));
        let jobs = Queue::new(jobs, Arc::clone(&room), config.queue);
        let life = lifecycle.clone();
        lifecycle.spawn("ledger batcher", async move { batcher.run(jobs, &life).await });
        Self { room, queue }
    }

    /// Runs one command.
    pub async fn run(&self, command: Command, dry_run: bool, deadline: Instant) -> Result<Outcome, Error> {
        let mut outcomes = self
            .submit(Steps::One(Box::new(command)), dry_run, deadline)
            .await?;
        outcomes
            .pop()
            .ok_or_else(|| Error::Internal("a command without an outcome".into()))
    }

    /// Runs commands in their order, in one commit, each with an outcome; `linked[i]` ties a command to the next.
    pub async fn run_all(
        &self,
        commands: Vec<(Command, bool)>,
        dry_run: bool,
        deadline: Instant,
    ) -> Result<Vec<Outcome>, Error> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.submit(Steps::Many(commands), dry_run, deadline).await
    }

    async fn submit(&self, steps: Steps, dry_run: bool, deadline: Instant) -> Result<Vec<Outcome>, Error> {
        let weight = u32::try_from(steps.rows()).map_err(|_| Error::Overloaded)?;
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(weight) else {
            metrics::refused();
            return Err(Error::Overloaded);
        };
        let (reply, answer) = oneshot::channel();
        let job = Job {
            steps,
            dry_run,
            deadline,
            reply,
            room,
        };
        match self.queue.try_send(job) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::refused();
                return Err(Error::Overloaded);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(stopped()),
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Error {
    Error::Unavailable("the ledger stops".into())
}

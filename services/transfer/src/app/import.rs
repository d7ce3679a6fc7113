//! Takes a whole ledger into an empty one, in one transaction.
//!
//! Parts are kept as they come, in chunks. Rows that follow each other in a lane and have the same time are a batch, as every
//! batch has a later time than the one before. Before the commit the ledger is verified as at any other time.

mod chunk;
mod seal;

use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use tokio::{sync::mpsc, time::timeout};

use self::{
    chunk::{Chunk, FULL},
    seal::Seal,
};
use super::{
    audit::{Batch, Snapshot, Verification, send},
    chain::Signer,
    error::Error,
    expiry::Hold,
    parts::{AccountPart, ChangePart, Counts, OccurrencePart, Part, RowPart, SchedulePart, VERSION},
};

/// How long a client may take for the next part. Nobody else can write in the meantime.
const PATIENCE: Duration = Duration::from_mins(1);

/// Parts between two reports.
const REPORT_EVERY: i64 = 10_000;

/// What was taken so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// How many.
    pub counts: Counts,
    /// It is committed.
    pub done: bool,
}

/// A row of the journal with its signature.
#[derive(Clone, Debug)]
pub struct SignedRow {
    /// The row and its place.
    pub part: RowPart,
    /// What it is signed with.
    pub signature: i64,
}

/// A batch of a lane.
#[derive(Clone, Debug)]
pub struct SignedBatch {
    /// The lane.
    pub lane: i32,
    /// The batch.
    pub batch: Batch,
}

/// Why something cannot be kept.
#[derive(Debug)]
pub enum Refused {
    /// The database refuses it; the name of the rule. The transaction goes on.
    Rule(String),
    /// Something else went wrong.
    Failed(Error),
}

/// Where transactions begin that take a whole ledger.
pub trait Intakes: Send + Sync + 'static {
    /// The transaction.
    type Intake: Intake;
    /// Begins, and keeps others from writing.
    ///
    /// # Errors
    /// [`Error::LedgerNotEmpty`].
    fn begin(&self) -> impl Future<Output = Result<Self::Intake, Error>> + Send;
}

/// A transaction that takes a whole ledger; dropped, it has done nothing.
pub trait Intake: Send + 'static {
    /// What the transaction has written, to be read.
    type Snapshot: Snapshot;
    /// Keeps accounts.
    fn accounts(&mut self, accounts: &[AccountPart]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps changes of accounts.
    fn changes(&mut self, changes: &[ChangePart]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps rows of the journal.
    fn rows(&mut self, rows: &[SignedRow]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps batches of the journal.
    fn batches(&mut self, batches: &[SignedBatch]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps schedules.
    fn schedules(&mut self, schedules: &[SchedulePart]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps occurrences of schedules.
    fn occurrences(
        &mut self,
        occurrences: &[OccurrencePart],
    ) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Keeps the list of pending transfers.
    fn holds(&mut self, holds: &[Hold]) -> impl Future<Output = Result<(), Refused>> + Send;
    /// Says that all rows are published, and that the numbers of what was kept are taken.
    fn settle(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
    /// What was written so far.
    fn snapshot(&mut self) -> &mut Self::Snapshot;
    /// The end.
    fn commit(self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Takes the parts of an export, and tells about every 10,000 of them and at the end.
///
/// # Errors
/// [`Error::LedgerNotEmpty`], [`Error::BadExport`] with the first part that is wrong, or the parts' own error. Nothing was
/// written, unless the commit itself has an unknown outcome.
pub async fn import<I: Intakes>(
    intakes: &I,
    signer: &Signer,
    mut parts: impl Stream<Item = Result<Part, Error>> + Send + Unpin,
    reports: &mpsc::Sender<Taken>,
) -> Result<(), Error> {
    let mut import = Import {
        intake: intakes.begin().await?,
        part: 0,
        stage: Stage::Header,
        counts: Counts::default(),
        accounts: Chunk::default(),
        changes: Chunk::default(),
        rows: Chunk::default(),
        batches: Chunk::default(),
        schedules: Chunk::default(),
        occurrences: Chunk::default(),
        seal: Seal::new(signer.clone()),
    };
    loop {
        let next = timeout(PATIENCE, parts.next()).await.map_err(|_| Error::Late)?;
        import.part += 1;
        match next {
            Some(Ok(part)) => import.take(part).await?,
            Some(Err(Error::BadExport(problem))) => return Err(import.bad(&problem)),
            Some(Err(error)) => return Err(error),
            None if import.stage == Stage::Over => break,
            None => return Err(import.bad("the trailer is missing")),
        }
        if import.part % REPORT_EVERY == 0 {
            let counts = import.counts;
            send(reports, Taken { counts, done: false }).await?;
        }
    }
    let counts = import.finish(signer).await?;
    send(reports, Taken { counts, done: true }).await
}

/// What may come next: this or something later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Header,
    Accounts,
    Changes,
    Rows,
    Schedules,
    Over,
}

struct Import<I> {
    intake: I,
    /// The number of the part in hand, from 1.
    part: i64,
    stage: Stage,
    counts: Counts,
    accounts: Chunk<AccountPart>,
    changes: Chunk<ChangePart>,
    rows: Chunk<SignedRow>,
    batches: Chunk<SignedBatch>,
    schedules: Chunk<SchedulePart>,
    occurrences: Chunk<OccurrencePart>,
    seal: Seal,
}

impl<I: Intake> Import<I> {
    fn bad(&self, problem: &str) -> Error {
        Error::BadExport(format!("part {}: {problem}", self.part))
    }

    async fn take(&mut self, part: Part) -> Result<(), Error> {
        self.enter(&part)?;
        self.counts.add(&part);
        let number = self.part;
        match part {
            Part::Header(VERSION, _) => {}
            Part::Header(..) => return Err(self.bad("the format is unknown")),
            Part::Account(account) => self.accounts.push(number, account),
            Part::Change(change) => self.changes.push(number, change),
            Part::Row(row) => {
                let sealed = self.seal.take(number, row).map_err(|problem| self.bad(problem))?;
                self.keep_sealed(sealed);
            }
            Part::Schedule(schedule) => self.schedules.push(number, schedule),
            Part::Occurrence(occurrence) => self.occurrences.push(number, occurrence),
            Part::Trailer(counts) if counts == self.counts => {
                let sealed = self.seal.close();
                self.keep_sealed(sealed);
                self.flush().await?;
            }
            Part::Trailer(_) => return Err(self.bad("the trailer has other counts than there were parts")),
        }
        let waiting = [
            self.accounts.len(),
            self.changes.len(),
            self.rows.len(),
            self.batches.len(),
            self.schedules.len(),
            self.occurrences.len(),
        ];
        if waiting.into_iter().any(|length| length >= FULL) {
            self.flush().await?;
        }
        Ok(())
    }

    /// The parts come in an order.
    fn enter(&mut self, part: &Part) -> Result<(), Error> {
        let (earliest, next) = match part {
            Part::Header(..) => (Stage::Header, Stage::Accounts),
            Part::Account(_) => (Stage::Accounts, Stage::Accounts),
            Part::Change(_) => (Stage::Changes, Stage::Changes),
            Part::Row(_) => (Stage::Rows, Stage::Rows),
            Part::Schedule(_) | Part::Occurrence(_) => (Stage::Schedules, Stage::Schedules),
            Part::Trailer(_) => (Stage::Schedules, Stage::Over),
        };
        let first = self.stage == Stage::Header;
        if self.stage > earliest || first != matches!(part, Part::Header(..)) {
            return Err(self.bad("it does not come in the order of the parts"));
        }
        self.stage = next;
        Ok(())
    }

    fn keep_sealed(&mut self, sealed: Option<seal::Sealed>) {
        let Some(sealed) = sealed else { return };
        let last = sealed.rows.last().map_or(0, |(part, _)| *part);
        for (part, row) in sealed.rows {
            self.rows.push(part, row);
        }
        self.batches.push(last, sealed.batch);
    }

    /// Everything that waits, what others refer to first.
    async fn flush(&mut self) -> Result<(), Error> {
        self.accounts.flush(&mut self.intake).await?;
        self.changes.flush(&mut self.intake).await?;
        self.rows.flush(&mut self.intake).await?;
        self.batches.flush(&mut self.intake).await?;
        self.schedules.flush(&mut self.intake).await?;
        self.occurrences.flush(&mut self.intake).await
    }

    /// Verifies what was taken, and commits it.
    async fn finish(mut self, signer: &Signer) -> Result<Counts, Error> {
        for holds in self.seal.pending().chunks(FULL) {
            match self.intake.holds(holds).await {
                Ok(()) => {}
                Err(Refused::Rule(rule)) => return Err(Error::BadExport(rule)),
                Err(Refused::Failed(error)) => return Err(error),
            }
        }
        let mut verification = Verification::new(signer, Vec::new(), None);
        if let Some(bad) = verification.find(self.intake.snapshot()).await? {
            return Err(Error::BadExport(bad.to_string()));
        }
        self.intake.settle().await?;
        self.intake.commit().await?;
        tracing::info!(
            ledger.rows = self.counts.rows,
            ledger.accounts = self.counts.accounts,
            ledger.schedules = self.counts.schedules,
            "a whole ledger was imported"
        );
        Ok(self.counts)
    }
}

//! Gives the whole ledger away, as it is at one moment.

use chrono::{DateTime, Utc};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{
    audit::{Merge, Snapshot, Snapshots, send},
    error::Error,
    parts::{AccountPart, ChangePart, Counts, OccurrencePart, Part, RowPart, SchedulePart, VERSION},
};

const PAGE: i64 = 1_000;

/// A snapshot that has everything.
pub trait Archive: Snapshot {
    /// Accounts behind a number.
    fn accounts(
        &mut self,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<AccountPart>, Error>> + Send;
    /// What was done to accounts, behind a number.
    fn changes(
        &mut self,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<ChangePart>, Error>> + Send;
    /// Schedules behind an ordinal.
    fn schedules(
        &mut self,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<SchedulePart>, Error>> + Send;
    /// Occurrences of a schedule behind a number.
    fn occurrences(
        &mut self,
        schedule: Uuid,
        behind: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<OccurrencePart>, Error>> + Send;
}

/// Sends all parts.
///
/// # Errors
/// The ledger could not be read, or the client does not read.
pub async fn export<S>(snapshots: &S, now: DateTime<Utc>, parts: &mpsc::Sender<Part>) -> Result<(), Error>
where
    S: Snapshots<Snapshot: Archive>,
{
    let mut export = Export {
        snapshot: snapshots.open().await?,
        parts,
        counts: Counts::default(),
    };
    export.tell(Part::Header(VERSION, now)).await?;
    export.accounts().await?;
    export.journal().await?;
    export.schedules().await?;
    let trailer = Part::Trailer(export.counts);
    export.tell(trailer).await
}

struct Export<'a, S> {
    snapshot: S,
    parts: &'a mpsc::Sender<Part>,
    counts: Counts,
}

impl<S: Archive> Export<'_, S> {
    async fn tell(&mut self, part: Part) -> Result<(), Error> {
        self.counts.add(&part);
        send(self.parts, part).await
    }

    async fn accounts(&mut self) -> Result<(), Error> {
        let mut behind = i64::MIN;
        loop {
            let page = self.snapshot.accounts(behind, PAGE).await?;
            let Some(last) = page.last() else { break };
            behind = last.record.account.id;
            for account in page {
                self.tell(Part::Account(account)).await?;
            }
        }
        let mut behind = i64::MIN;
        loop {
            let page = self.snapshot.changes(behind, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = last.id;
            for change in page {
                self.tell(Part::Change(change)).await?;
            }
        }
    }

    async fn journal(&mut self) -> Result<(), Error> {
        let ends = self.snapshot.lanes().await?;
        let lanes: Vec<i32> = ends.iter().map(|(lane, _)| *lane).collect();
        let mut merge = Merge::open(&mut self.snapshot, &lanes).await?;
        while let Some((_, entry)) = merge.take(&mut self.snapshot).await? {
            let (lane, sequence) = (entry.lane, entry.stored.sequence);
            let unknown =
                || format!("row {sequence} of lane {lane} has a value that this version does not know");
            let row = entry
                .stored
                .row
                .ok_or_else(|| Error::Internal(unknown().into()))?;
            self.tell(Part::Row(RowPart { lane, sequence, row })).await?;
        }
        Ok(())
    }

    async fn schedules(&mut self) -> Result<(), Error> {
        let mut behind = i64::MIN;
        loop {
            let page = self.snapshot.schedules(behind, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = last.schedule.ordinal;
            for part in page {
                let id = part.schedule.plan.id;
                self.tell(Part::Schedule(part)).await?;
                self.occurrences(id).await?;
            }
        }
    }

    async fn occurrences(&mut self, schedule: Uuid) -> Result<(), Error> {
        let mut behind = 0;
        loop {
            let page = self.snapshot.occurrences(schedule, behind, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            behind = last.number;
            for occurrence in page {
                self.tell(Part::Occurrence(occurrence)).await?;
            }
        }
    }
}

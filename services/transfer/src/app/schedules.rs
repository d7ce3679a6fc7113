//! Transfers that happen later: planned, listed, ended. [`run`] makes them happen.
//!
//! An occurrence has a number, and its transfer an id made from it, so that it is made once however often and by however
//! many replicas it is begun. A replica claims a schedule for a while, runs the transfer, and records what became of it;
//! when the replica dies between any two of these, another one does the same again behind the end of the claim.

mod metrics;
mod plan;
mod work;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

pub use self::plan::{
    DEFAULT_HOLD, Plan, Run, Schedule, Template, occurrence_id, refusal_from_name, refusal_name,
};
use super::{directory::Accounts, error::Error, ledger::Ledger, order::Party};
use crate::domain::{
    account::Account,
    command::{Authority, Command},
    schedule::{self, State},
};

/// How many active schedules a user may have.
pub const MAX_ACTIVE: i64 = 1_000;
/// How many occurrences are shown with a schedule.
pub const SHOWN_RUNS: i64 = 20;
/// How far away the first occurrence may be: 10 years.
const FARTHEST: TimeDelta = TimeDelta::days(3_653);
/// How often a cancelling call looks whether the occurrence under way has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What tells the time.
pub type Clock = Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>;

/// A schedule whose next occurrence is this replica's to run, for a while.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The schedule.
    pub schedule: Schedule,
    /// How often this occurrence was begun, this time included.
    pub tries: i32,
}

/// What became of an occurrence.
#[derive(Clone, Debug)]
pub struct Record {
    /// The schedule.
    pub schedule: Uuid,
    /// The occurrence.
    pub run: Run,
    /// When the next one is due; none when there is none.
    pub next_at: Option<DateTime<Utc>>,
}

/// Where schedules are kept.
pub trait Store: Send + Sync + 'static {
    /// Keeps a plan, unless there is one with its id or the owner has as many active ones as allowed; whether it was kept.
    fn create(
        &self,
        plan: &Plan,
        now: DateTime<Utc>,
        limit: i64,
    ) -> impl Future<Output = Result<bool, Error>> + Send;
    /// The schedule of an id.
    fn find(&self, id: Uuid) -> impl Future<Output = Result<Option<Schedule>, Error>> + Send;
    /// How many active schedules a user has.
    fn active(&self, owner: i64) -> impl Future<Output = Result<i64, Error>> + Send;
    /// The schedules of a user below an ordinal, the newest first.
    fn list(
        &self,
        owner: i64,
        below: Option<i64>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Schedule>, Error>> + Send;
    /// The latest occurrences, the newest first.
    fn latest(&self, id: Uuid, limit: i64) -> impl Future<Output = Result<Vec<Run>, Error>> + Send;
    /// Ends a schedule: none of its occurrences is claimed any more.
    fn cancel(&self, id: Uuid) -> impl Future<Output = Result<(), Error>> + Send;
    /// Accounts, as far as there are any.
    fn accounts(&self, ids: &[i64]) -> impl Future<Output = Result<Vec<Account>, Error>> + Send;
    /// Claims for a while what is due, the oldest first, and what was under way when it was cancelled.
    fn claim(
        &self,
        claim: Uuid,
        now: DateTime<Utc>,
        lease: Duration,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Claimed>, Error>> + Send;
    /// Records occurrences, each with its schedule's next one, as far as the claim still holds.
    fn record(&self, claim: Uuid, records: &[Record]) -> impl Future<Output = Result<(), Error>> + Send;
    /// Gives schedules back; their occurrences are tried again behind a pause.
    fn pause(
        &self,
        claim: Uuid,
        pauses: &[(Uuid, Duration)],
    ) -> impl Future<Output = Result<(), Error>> + Send;
    /// Gives cancelled schedules back whose occurrence was not made, and will not be.
    fn drop_occurrences(&self, claim: Uuid, ids: &[Uuid]) -> impl Future<Output = Result<(), Error>> + Send;
    /// Whether the journal has a transfer of an account, behind every attempt at it that is still under way.
    fn made(&self, transfer: Uuid, from: Party) -> impl Future<Output = Result<bool, Error>> + Send;
    /// When the next occurrence after a moment is due.
    fn next_due(
        &self,
        after: DateTime<Utc>,
    ) -> impl Future<Output = Result<Option<DateTime<Utc>>, Error>> + Send;
}

/// The use cases of schedules.
pub struct Schedules<S, A> {
    store: S,
    ledger: Arc<Ledger<A>>,
    clock: Clock,
    lease: Duration,
}

/// A planned schedule.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The schedule.
    pub schedule: Schedule,
    /// Whether an earlier request had planned it.
    pub replayed: bool,
}

impl<S: Store, A: Accounts> Schedules<S, A> {
    /// The use cases on a ledger. A claim is good for `lease`: so late happens at most what a killed replica had begun.
    pub fn new(store: S, ledger: Arc<Ledger<A>>, clock: Clock, lease: Duration) -> Self {
        Self {
            store,
            ledger,
            clock,
            lease,
        }
    }

    /// Plans a transfer, or says whether it could be planned. The same plan again finds the schedule.
    pub async fn plan(&self, plan: &Plan, dry_run: bool) -> Result<Planned, Error> {
        if let Some(schedule) = self.store.find(plan.id).await? {
            return replay(schedule, plan);
        }
        let now = (self.clock)();
        if plan.timing.first < now {
            return Err(Error::FirstOccurrence("must not be in the past"));
        }
        if plan.timing.first > now + FARTHEST {
            return Err(Error::FirstOccurrence("must be at most 10 years away"));
        }
        self.check(plan).await?;
        if dry_run {
            if self.store.active(plan.owner).await? >= MAX_ACTIVE {
                return Err(Error::TooManySchedules);
            }
            return Ok(Planned {
                schedule: Schedule::new(plan.clone(), now),
                replayed: false,
            });
        }
        let created = self.store.create(plan, now, MAX_ACTIVE).await?;
        match self.store.find(plan.id).await? {
            Some(schedule) if created => Ok(Planned {
                schedule,
                replayed: false,
            }),
            Some(schedule) => replay(schedule, plan),
            None => Err(Error::TooManySchedules),
        }
    }

    /// A schedule and its latest occurrences, for its owner or an operator.
    pub async fn read(&self, id: Uuid, owner: i64, by: Authority) -> Result<(Schedule, Vec<Run>), Error> {
        let schedule = self.find(id, owner, by).await?;
        let runs = self.store.latest(id, SHOWN_RUNS).await?;
        Ok((schedule, runs))
    }

    /// The schedules of a user below an ordinal, the newest first, and the ordinal below which the next page begins.
    pub async fn list(
        &self,
        owner: i64,
        below: Option<i64>,
        limit: i64,
    ) -> Result<(Vec<Schedule>, Option<i64>), Error> {
        let mut page = self.store.list(owner, below, limit + 1).await?;
        let more = i64::try_from(page.len()).is_ok_and(|found| found > limit);
        if more {
            page.pop();
        }
        let next = page.last().filter(|_| more).map(|schedule| schedule.ordinal);
        Ok((page, next))
    }

    /// Ends a schedule. Behind the answer no occurrence is under way, and what has happened is recorded.
    pub async fn cancel(
        &self,
        id: Uuid,
        owner: i64,
        by: Authority,
        deadline: Instant,
    ) -> Result<Schedule, Error> {
        self.find(id, owner, by).await?;
        self.store.cancel(id).await?;
        loop {
            let schedule = self.find(id, owner, by).await?;
            if schedule.state != State::Cancelled || !schedule.begun {
                return Ok(schedule);
            }
            if Instant::now() + LOOK >= deadline {
                return Err(Error::Unavailable(
                    "an occurrence of the schedule is under way".into(),
                ));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn find(&self, id: Uuid, owner: i64, by: Authority) -> Result<Schedule, Error> {
        let schedule = self.store.find(id).await?.ok_or(Error::ScheduleNotFound)?;
        if schedule.plan.owner == owner || by == Authority::Bank {
            Ok(schedule)
        } else {
            Err(Error::ScheduleNotFound)
        }
    }

    /// What can be known now of the transfer.
    async fn check(&self, plan: &Plan) -> Result<(), Error> {
        let order = plan.order(Uuid::nil(), plan.timing.first);
        let Command::Transfer(transfer) = self.ledger.command(order).await? else {
            return Err(Error::Internal("an order became another command".into()));
        };
        let mut ids: Vec<i64> = transfer.credits.iter().map(|credit| credit.account).collect();
        ids.push(transfer.debit);
        let accounts = self.store.accounts(&ids).await?;
        Ok(schedule::check(&transfer, &accounts)?)
    }
}

fn replay(schedule: Schedule, plan: &Plan) -> Result<Planned, Error> {
    match schedule.plan.differs(plan) {
        None => Ok(Planned {
            schedule,
            replayed: true,
        }),
        Some(field) => Err(Error::ScheduleIdReused(field)),
    }
}

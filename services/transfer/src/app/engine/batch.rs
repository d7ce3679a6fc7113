//! The batcher: takes jobs from the queue, runs the rules over them, commits.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use lifecycle::Lifecycle;
use uuid::Uuid;

use super::{
    Committed, Config, Failure, Found, Lane, Lanes, Outcome, Wanted,
    job::{Job, Steps, wanted},
    memory::Memory,
    metrics,
    queue::Queue,
};
use crate::{
    app::{
        chain::Tip,
        error::Error,
        patience::{self, Silence},
    },
    domain::{
        account::Account,
        books::Books,
        command::{Command, Refusal},
        journal::Row,
    },
};

/// How often a batch is tried again when others are in its way, or its session is lost, as `postgres::retry` does for a transaction.
const TRIES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_millis(5);

const RENEW_AGAIN: Duration = Duration::from_secs(1);

/// What became of each job; none when nobody waits for it any more, and it was not begun.
type Outcomes = Vec<Option<Vec<Outcome>>>;

/// A batch as it would be if the accounts are as they are remembered.
pub(super) struct Draft<P> {
    proposal: P,
    /// The end of the lane behind it.
    pub tip: Tip,
    outcomes: Outcomes,
    pub books: Books,
    begun: Instant,
}

impl<P> Draft<P> {
    /// What is sent, and what stays.
    pub fn split(self) -> (P, Draft<()>) {
        let draft = Draft {
            proposal: (),
            tip: self.tip,
            outcomes: self.outcomes,
            books: self.books,
            begun: self.begun,
        };
        (self.proposal, draft)
    }
}

/// Hears of each commit.
type Listener = Box<dyn Fn(Committed) + Send + Sync>;

pub(super) struct Batcher<L: Lanes> {
    pub(super) lanes: Arc<L>,
    /// None until the first batch, and after a failure.
    pub(super) lane: Option<L::Lane>,
    /// Those of the lane that have nothing to do.
    pub(super) writers: Vec<L::Writer>,
    pub(super) memory: Memory,
    /// Not before, after it could not be renewed.
    renew_at: Instant,
    pub(super) config: Config,
    committed: Listener,
}

impl<L: Lanes> Batcher<L> {
    pub fn new(lanes: L, config: Config, committed: Listener) -> Self {
        Self {
            lanes: Arc::new(lanes),
            lane: None,
            writers: Vec::new(),
            memory: Memory::default(),
            renew_at: Instant::now(),
            config,
            committed,
        }
    }

    /// Works until the process stops: while it drains, requests in flight still want their answers.
    pub async fn run(mut self, mut queue: Queue, lifecycle: &Lifecycle) {
        let mut taken = None;
        while !lifecycle.is_stopping() {
            let batch = if let Some(jobs) = taken.take() {
                jobs
            } else {
                tokio::select! {
                    batch = queue.next() => match batch {
                        Some(jobs) => jobs,
                        None => return,
                    },
                    () = lifecycle.stopping() => return,
                }
            };
            self.renew_lane().await;
            let (dry, real): (Vec<Job>, Vec<Job>) = batch.into_iter().partition(|job| job.dry_run);
            // first: what comes behind a large batch may go on for long
            for job in dry {
                let result = self.dry_run(&job).await;
                // a caller who has gone needs no answer
                let _ = job.reply.send(result);
            }
            if real.iter().map(|job| job.steps.rows()).sum::<usize>() < self.config.large_batch {
                self.commit_all(real).await;
            } else {
                taken = self.commit_ahead(real, &mut queue, lifecycle).await;
            }
        }
    }

    /// Commits jobs together; when something in them breaks the transaction, each by itself.
    pub(super) async fn commit_all(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        match self.commit(&jobs).await {
            Ok(outcomes) => tell(jobs, outcomes),
            Err(Failure::Broken(source)) if jobs.len() > 1 => {
                tracing::error!(error = %source, jobs = jobs.len(), "a batch failed; its jobs are tried one by one");
                for job in jobs {
                    let result = self.commit(std::slice::from_ref(&job)).await;
                    let _ = job.reply.send(match result {
                        Ok(mut outcomes) => outcomes.pop().flatten().ok_or(Error::Late),
                        Err(failure) => Err(failure.into()),
                    });
                }
            }
            Err(failure) => self.fail_all(jobs, &failure),
        }
    }

    #[expect(clippy::unused_self, reason = "beside the other ends of a batch")]
    pub(super) fn fail_all(&self, jobs: Vec<Job>, failure: &Failure) {
        let text = failure.to_string();
        for job in jobs {
            let _ = job.reply.send(Err(failure.again(&text)));
        }
    }

    /// One transaction, tried again while others are in its way, or sessions are lost: as clients would repeat it, and as safely. A lane
    /// that is claimed anew looks up what was posted.
    async fn commit(&mut self, jobs: &[Job]) -> Result<Outcomes, Failure> {
        let mut pause = FIRST_PAUSE;
        for _ in 1..TRIES {
            match self.try_commit(jobs).await {
                Err(Failure::Conflict(_) | Failure::Lost(_)) => {}
                result => return result,
            }
            tokio::time::sleep(pause.mul_f64(rand::random())).await;
            pause *= 2;
        }
        self.try_commit(jobs).await
    }

    async fn try_commit(&mut self, jobs: &[Job]) -> Result<Outcomes, Failure> {
        let lane = self.lane.take();
        // a lane that has not answered is dropped, and its session with it
        let answer = patience::answer(async {
            let mut lane = match lane {
                Some(lane) => lane,
                None => self.lanes.claim().await?,
            };
            let result = self.write(&mut lane, jobs).await;
            Ok::<_, Failure>((lane, result))
        });
        let (lane, result) = answer.await.inspect_err(|_| self.lose_lane())?;
        self.keep_lane(lane, &result);
        result
    }

    fn keep_lane<T>(&mut self, lane: L::Lane, result: &Result<T, Failure>) {
        match result {
            // the lane is as it was, or one batch longer
            Ok(_) | Err(Failure::Conflict(_)) => self.lane = Some(lane),
            // what it knows of its end may be wrong: it is claimed anew
            Err(Failure::Lost(_) | Failure::Unavailable(_) | Failure::Broken(_)) => self.lose_lane(),
        }
    }

    pub(super) fn is_lane_over(&self) -> bool {
        self.lane.as_ref().is_some_and(Lane::is_over) && Instant::now() >= self.renew_at
    }

    /// Goes on with another lane when the session of this one is over. Where none can be had now, it is used for longer.
    async fn renew_lane(&mut self) {
        if !self.is_lane_over() {
            return;
        }
        match patience::answer(self.lanes.claim()).await {
            Ok(lane) => {
                self.lose_lane();
                self.lane = Some(lane);
            }
            Err(failure) => {
                tracing::debug!(error = %failure, "no other lane for now");
                self.renew_at = Instant::now() + RENEW_AGAIN;
            }
        }
    }

    pub(super) fn lose_lane(&mut self) {
        self.lane = None;
        self.writers.clear();
        // another database may answer now that lacks the last commits, and brings an account to the same position otherwise
        self.memory = Memory::default();
    }

    async fn write(&mut self, lane: &mut L::Lane, jobs: &[Job]) -> Result<Outcomes, Failure> {
        let wanted = wanted(jobs.iter());
        match self.guess(lane, jobs, &wanted).await? {
            Some(outcomes) => Ok(outcomes),
            None => self.transact(lane, jobs, &wanted).await,
        }
    }

    /// Writes what comes of the accounts as they are remembered. None when nothing was written: the guess was wrong, or it is
    /// no case for guessing.
    async fn guess(
        &mut self,
        lane: &mut L::Lane,
        jobs: &[Job],
        wanted: &Wanted,
    ) -> Result<Option<Outcomes>, Failure> {
        if lane.expects_repeats() {
            return Ok(None);
        }
        let Some(draft) = self.draft(jobs, wanted, &lane.tip(), L::draft) else {
            return Ok(None);
        };
        let (proposal, draft) = draft.split();
        if !lane.propose(proposal).await? {
            self.was_wrong(&wanted.accounts);
            return Ok(None);
        }
        self.memory.was_right();
        self.memory.keep(draft.books.accounts());
        self.is_committed(draft.books, &draft.tip, draft.begun);
        Ok(Some(draft.outcomes))
    }

    /// Drafts what comes of the accounts as they are remembered. What is refused is none, as only the accounts themselves can be
    /// the reason for a refusal.
    ///
    /// Nobody is asked behind the locks whether they still wait. So another replica must not be able to refuse meanwhile what is
    /// then written here: no command may need what another one of the batch brings. Each is good for the accounts as they are
    /// remembered; where they are not so any more, they never become so again.
    pub(super) fn draft<P>(
        &mut self,
        jobs: &[Job],
        wanted: &Wanted,
        from: &Tip,
        write: impl FnOnce(&L, &[Account], &Books, &Tip, DateTime<Utc>) -> (P, Tip),
    ) -> Option<Draft<P>> {
        if !jobs.iter().all(|job| job.steps.are_plain()) {
            return None;
        }
        let mut expected = self.memory.recall(&wanted.accounts)?;
        let begun = Instant::now();
        let found = Found {
            accounts: expected.clone(),
            ..Found::default()
        };
        let (mut books, at) = open(found, (self.config.clock)(), from.last_at);
        let outcomes = apply_awaited(&mut books, jobs, at);
        let currency = expected.first().map(|account| account.currency);
        let is_done = |outcomes: &Option<Vec<Outcome>>| outcomes.iter().flatten().all(Result::is_ok);
        if books.made().is_empty()
            || !outcomes.iter().all(is_done)
            || expected.iter().any(|account| Some(account.currency) != currency)
            || !are_independent(&expected, books.made())
        {
            return None;
        }
        // those of jobs that nobody waits for are not touched
        expected.retain(|account| {
            books
                .account(account.id)
                .is_some_and(|account| account.last_at == at)
        });
        let (proposal, tip) = write(&self.lanes, &expected, &books, from, at);
        Some(Draft {
            proposal,
            tip,
            outcomes,
            books,
            begun,
        })
    }

    pub(super) fn was_wrong(&mut self, accounts: &[i64]) {
        self.memory.was_wrong(accounts);
        metrics::guessed_wrong();
    }

    /// Answers for a batch that was drafted and is committed.
    pub(super) fn answer(&mut self, jobs: Vec<Job>, draft: Draft<()>) {
        self.is_committed(draft.books, &draft.tip, draft.begun);
        tell(jobs, draft.outcomes);
    }

    /// What the books have made is committed, and the lane ends behind it.
    fn is_committed(&self, books: Books, tip: &Tip, begun: Instant) {
        let rows = books.into_made();
        metrics::committed(rows.len(), begun.elapsed());
        (self.committed)(Committed {
            lane: tip.lane,
            first_sequence: tip.first_of_last(rows.len()),
            rows,
        });
    }

    async fn transact(
        &mut self,
        lane: &mut L::Lane,
        jobs: &[Job],
        wanted: &Wanted,
    ) -> Result<Outcomes, Failure> {
        let begun = Instant::now();
        let found = lane.begin(wanted).await?;
        let ids_looked_up = found.ids_looked_up;
        let (mut books, at) = open(found, (self.config.clock)(), lane.tip().last_at);
        // behind the locks: from here on another replica hears of this attempt only when it has ended
        let outcomes = apply_awaited(&mut books, jobs, at);
        if !ids_looked_up {
            // a refusal promises that nothing was written: an earlier attempt with this id may have been accepted
            let refused = refused_ids(jobs, &outcomes);
            if !refused.is_empty() && lane.any_posted(&refused).await? {
                lane.rollback().await?;
                return Err(Failure::Conflict("a refused id was posted before".into()));
            }
        }
        if books.made().is_empty() {
            lane.rollback().await?;
        } else {
            lane.commit(&books, at).await?;
            self.memory.keep(books.accounts());
            self.is_committed(books, &lane.tip(), begun);
        }
        Ok(outcomes)
    }

    async fn dry_run(&self, job: &Job) -> Result<Vec<Outcome>, Error> {
        let found = patience::answer(self.lanes.look(&wanted(std::iter::once(job)))).await?;
        let (mut books, at) = open(found, (self.config.clock)(), DateTime::UNIX_EPOCH);
        Ok(apply(&mut books, &job.steps, at))
    }
}

fn tell(jobs: Vec<Job>, outcomes: Outcomes) {
    for (job, outcome) in jobs.into_iter().zip(outcomes) {
        // a caller who has gone needs no answer
        let _ = job.reply.send(outcome.ok_or(Error::Late));
    }
}

/// The books of a batch and its moment: not before now, and later than all that it touches, even where another replica's
/// clock is ahead. So the times of all rows are an order in which they could have happened (Lamport's clock condition).
fn open(found: Found, now: DateTime<Utc>, lane_last: DateTime<Utc>) -> (Books, DateTime<Utc>) {
    let last = found
        .accounts
        .iter()
        .map(|account| account.last_at)
        .fold(lane_last, DateTime::max);
    let now = DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now);
    let at = now.max(last + TimeDelta::microseconds(1));
    (Books::new(found.accounts, found.earlier), at)
}

fn refused_ids(jobs: &[Job], outcomes: &[Option<Vec<Outcome>>]) -> Vec<Uuid> {
    jobs.iter()
        .zip(outcomes)
        .flat_map(|(job, outcomes)| job.steps.commands().zip(outcomes.iter().flatten()))
        .filter(|(_, outcome)| outcome.is_err())
        .map(|(command, _)| command.id())
        .collect()
}

/// Whether each of the rows could be written alone, and in any order: all debits of an account together are covered by what it
/// had before, all credits have room.
fn are_independent(before: &[Account], made: &[Row]) -> bool {
    let mut sums = vec![(0_i64, 0_i64); before.len()];
    let mut add = |id: i64, debit: i64, credit: i64| {
        if let Ok(at) = before.binary_search_by_key(&id, |account| account.id)
            && let Some((debits, credits)) = sums.get_mut(at)
        {
            *debits = debits.saturating_add(debit);
            *credits = credits.saturating_add(credit);
        }
    };
    for row in made {
        add(row.debit, row.moved, 0);
        add(row.credit, 0, row.moved);
    }
    before
        .iter()
        .zip(&sums)
        .all(|(account, (debits, credits))| account.can_pay(*debits) && *credits <= account.room())
}

/// Does what somebody still waits for.
fn apply_awaited(books: &mut Books, jobs: &[Job], at: DateTime<Utc>) -> Outcomes {
    let now = Instant::now();
    jobs.iter()
        .map(|job| job.is_awaited(now).then(|| apply(books, &job.steps, at)))
        .collect()
}

fn apply(books: &mut Books, steps: &Steps, at: DateTime<Utc>) -> Vec<Outcome> {
    match steps {
        Steps::One(command) => vec![books.apply(command, at)],
        Steps::Many(commands) => apply_all(books, commands, at),
    }
}

fn apply_all(books: &mut Books, commands: &[(Command, bool)], at: DateTime<Utc>) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(commands.len());
    // a chain ends with the first command that is not linked
    for chain in commands.split_inclusive(|(_, linked)| !linked) {
        match chain {
            [(command, false)] => outcomes.push(books.apply(command, at)),
            [.., (_, true)] => outcomes.extend(chain.iter().map(|_| Err(Refusal::Malformed("linked")))),
            _ => outcomes.extend(books.apply_chain(chain.iter().map(|(command, _)| command), at)),
        }
    }
    outcomes
}

impl Failure {
    /// The same failure for another caller.
    fn again(&self, text: &str) -> Error {
        match self {
            // after all tries: it may work later
            Self::Conflict(_) | Self::Lost(_) | Self::Unavailable(_) => Error::Unavailable(text.into()),
            Self::Broken(_) => Error::Internal(text.into()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Conflict(source)
            | Self::Lost(source)
            | Self::Unavailable(source)
            | Self::Broken(source) => source.fmt(f),
        }
    }
}

impl From<Silence> for Failure {
    fn from(silence: Silence) -> Self {
        Self::Unavailable(silence.into())
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Conflict(source) | Failure::Lost(source) | Failure::Unavailable(source) => {
                Self::Unavailable(source)
            }
            Failure::Broken(source) => Self::Internal(source),
        }
    }
}

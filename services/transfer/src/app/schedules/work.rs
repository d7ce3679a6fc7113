//! Makes occurrences happen.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lifecycle::Lifecycle;
use uuid::Uuid;

use super::{Claimed, Record, Run, Schedules, Store, metrics, occurrence_id};
use crate::{
    app::{directory::Accounts, error::Error, ledger::ItemError, order::Action, patience},
    domain::schedule::State,
};

/// How many occurrences happen beside each other.
const BATCH: i64 = 64;
/// How long behind its claim an attempt may still begin to write, and the part of a claim which that is at most: whoever finds a
/// claim that has ended asks the journal whether the occurrence happened, and must find all that can.
const ATTEMPT: Duration = Duration::from_secs(5);
const ATTEMPT_OF_CLAIM: u32 = 2;
/// How often is looked for what others planned or left.
const LOOK: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How often the end of a claim is tried to be written down: for some 15 s, a part of what a claim is good for.
const SETTLE_TRIES: i32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// How an attempt ended.
enum End {
    /// It happened, or was refused.
    Over(Option<ItemError>),
    /// It was cancelled before it happened.
    Never,
    /// Not known, or not now: another attempt tells.
    Again(Error),
}

/// What became of the claimed.
#[derive(Default)]
struct Settled {
    records: Vec<Record>,
    pauses: Vec<(Uuid, Duration)>,
    dropped: Vec<Uuid>,
}

impl<S: Store, A: Accounts> Schedules<S, A> {
    /// Makes occurrences happen until the process drains: what is under way then is finished, the rest is for others.
    pub async fn run(&self, lifecycle: &Lifecycle) {
        let mut failures = 0;
        while !lifecycle.is_draining() {
            let wait = match self.pass().await {
                // there may be more
                Ok(claimed) if claimed > 0 => {
                    failures = 0;
                    continue;
                }
                Ok(_) => {
                    failures = 0;
                    self.until_next().await
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot run schedules now");
                    failures += 1;
                    pause(failures)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = lifecycle.draining() => return,
            }
        }
    }

    /// Runs what is due, the oldest first, one occurrence of each schedule; how many schedules it was.
    pub async fn pass(&self) -> Result<usize, Error> {
        let claim = Uuid::new_v4();
        let deadline = Instant::now() + ATTEMPT.min(self.lease / ATTEMPT_OF_CLAIM);
        let claiming = self.store.claim(claim, (self.clock)(), self.lease, BATCH);
        let claimed = patience::answer(claiming).await?;
        if claimed.is_empty() {
            return Ok(0);
        }
        let ends = join_all(claimed.iter().map(|one| self.attempt(one, deadline))).await;
        let mut settled = Settled::default();
        for (one, end) in claimed.iter().zip(ends) {
            let id = one.schedule.plan.id;
            match end {
                End::Over(refused) => settled.records.push(self.over(one, refused)),
                End::Never => settled.dropped.push(id),
                End::Again(error) => {
                    tracing::warn!(schedule.id = %id, schedule.tries = one.tries, %error, "an occurrence is tried again");
                    metrics::occurred("again");
                    settled.pauses.push((id, pause(one.tries)));
                }
            }
        }
        self.settle(claim, &settled).await?;
        Ok(claimed.len())
    }

    /// Writes down what became of the claimed, again and again while the database is away: else others would wait for the end
    /// of a claim whose replica lives. What is written twice is written once, as the claim is then given back.
    async fn settle(&self, claim: Uuid, settled: &Settled) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.try_settle(claim, settled).await {
                Err(Error::Unavailable(_)) if tries < SETTLE_TRIES => {}
                result => return result,
            }
            tokio::time::sleep(pause(tries)).await;
            tries += 1;
        }
    }

    async fn try_settle(&self, claim: Uuid, settled: &Settled) -> Result<(), Error> {
        if !settled.records.is_empty() {
            patience::answer(self.store.record(claim, &settled.records)).await?;
        }
        if !settled.pauses.is_empty() {
            patience::answer(self.store.pause(claim, &settled.pauses)).await?;
        }
        if !settled.dropped.is_empty() {
            patience::answer(self.store.drop_occurrences(claim, &settled.dropped)).await?;
        }
        Ok(())
    }

    async fn attempt(&self, claimed: &Claimed, deadline: Instant) -> End {
        match self.make(claimed, deadline).await {
            Ok(end) => end,
            Err(error) => End::Again(error),
        }
    }

    async fn make(&self, claimed: &Claimed, deadline: Instant) -> Result<End, Error> {
        let plan = &claimed.schedule.plan;
        let id = occurrence_id(plan.id, claimed.schedule.next);
        let made = patience::answer(self.store.made(id, plan.transfer.from));
        if claimed.schedule.state == State::Cancelled {
            return Ok(if made.await? { End::Over(None) } else { End::Never });
        }
        let order = plan.order(id, (self.clock)());
        let refused = match self.ledger.run(Action::Transfer(order), false, deadline).await {
            Ok(_) => return Ok(End::Over(None)),
            Err(Error::Refused(refusal)) => ItemError::Refused(refusal),
            Err(Error::UserNotFound) => ItemError::UserNotFound,
            Err(error) => return Err(error),
        };
        // an earlier attempt may have made it, and so be the reason for the refusal: its money is spent
        Ok(if made.await? {
            End::Over(None)
        } else {
            End::Over(Some(refused))
        })
    }

    fn over(&self, claimed: &Claimed, refused: Option<ItemError>) -> Record {
        let schedule = &claimed.schedule;
        let (plan, number) = (&schedule.plan, schedule.next);
        // a claimed occurrence has a time: the rules gave it when it became the next one
        let due_at = plan.timing.at(number).unwrap_or(plan.timing.first);
        metrics::occurred(if refused.is_some() { "refused" } else { "made" });
        metrics::late((self.clock)() - due_at);
        Record {
            schedule: plan.id,
            run: Run {
                number,
                due_at,
                transfer_id: occurrence_id(plan.id, number),
                refused,
            },
            next_at: plan.timing.at(number + 1),
        }
    }

    async fn until_next(&self) -> Duration {
        let now = (self.clock)();
        let next = patience::answer(self.store.next_due(now)).await.ok().flatten();
        let known = next.and_then(|next| (next - now).to_std().ok()).unwrap_or(LOOK);
        // not all replicas at the same moment
        known.min(LOOK.mul_f64(rand::random_range(0.5..1.0)))
            + Duration::from_millis(rand::random_range(1..20))
    }
}

/// Longer with every try, and not the same for all.
fn pause(tries: i32) -> Duration {
    let exponent = u32::try_from(tries.clamp(1, 16)).unwrap_or(1) - 1;
    FIRST_PAUSE
        .saturating_mul(1 << exponent)
        .min(LONGEST_PAUSE)
        .mul_f64(rand::random_range(0.5..1.0))
}

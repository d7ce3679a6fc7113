//! Large batches, two at a time: while one is written, the next is drafted on top of it and written beside it.
//!
//! The rows of a batch are four fifths of its cost to the database, and need nobody's lock. So they are written by a session
//! beside the lane's before the accounts are touched, each batch by another one. Accounts are changed in the order of the
//! batches: when the one before is committed, and when everybody then still waits whose accounts that one has changed. From there
//! on a batch is what it would be had it been drafted then. When the one before was not committed, the next is taken back, and begins again.

use std::{
    collections::HashSet,
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt as _,
    future::{MaybeDone, maybe_done},
};
use lifecycle::Lifecycle;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    Failure, Lane, Lanes, Writer,
    batch::{Batcher, Draft},
    job::{Job, wanted},
    queue::Queue,
};
use crate::app::{chain::Tip, patience};

/// How often the batcher looks whether enough waits for the next batch. There is a look at the beginning, too.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// A writer's work. It comes back with whether the accounts are as expected.
type Step<W> = Pin<Box<MaybeDone<oneshot::Receiver<Done<W>>>>>;
type Done<W> = Result<(W, bool), Failure>;

/// A batch whose rows are being written.
struct Flight<L: Lanes> {
    jobs: Vec<Job>,
    /// What they touch, in order.
    accounts: Vec<i64>,
    draft: Draft<()>,
    rest: <L::Writer as Writer>::Rest,
    written: Step<L::Writer>,
}

/// What comes behind the batch whose turn it is.
enum Next<L: Lanes> {
    Nothing,
    Flying(Box<Flight<L>>),
    /// Is no case for this.
    Grounded(Vec<Job>),
}

/// How a batch ended.
enum End<W> {
    Committed(W),
    /// Accounts were not as expected.
    Stale,
    /// Somebody no longer waits; or others were in the way.
    GivenUp,
    /// Its rows could not be written.
    Failed(Failure),
    /// Its session is lost: whether it was committed is found out by another one.
    Lost,
    /// Whether it was committed is not known, nor to be found out now.
    Unknown(Failure),
}

impl<L: Lanes> Next<L> {
    fn into_jobs(self) -> Option<Vec<Job>> {
        match self {
            Self::Nothing => None,
            // its writer is dropped, and takes the rows back
            Self::Flying(flight) => Some(flight.jobs),
            Self::Grounded(jobs) => Some(jobs),
        }
    }
}

impl<L: Lanes> Batcher<L> {
    /// Commits a batch, and what waits behind it as long as that is large. Returns jobs that were taken from the queue and not
    /// begun.
    pub(super) async fn commit_ahead(
        &mut self,
        jobs: Vec<Job>,
        queue: &mut Queue,
        lifecycle: &Lifecycle,
    ) -> Option<Vec<Job>> {
        let tip = match &self.lane {
            Some(lane) if !lane.expects_repeats() => lane.tip(),
            _ => {
                self.commit_all(jobs).await;
                return None;
            }
        };
        // what the batch before has changed, that was not committed yet when this one was drafted
        let mut upon = Vec::new();
        let mut flight = match self.depart(jobs, &tip, lifecycle) {
            Next::Flying(flight) => *flight,
            next => {
                self.commit_all(next.into_jobs().unwrap_or_default()).await;
                return None;
            }
        };
        loop {
            let mut next = Next::Nothing;
            let Flight {
                jobs,
                accounts,
                draft,
                rest,
                mut written,
            } = flight;
            let turn = Turn {
                jobs: &jobs,
                tip: draft.tip,
                lifecycle,
            };
            self.meanwhile(&mut written, &mut next, queue, &turn).await;
            let end = match returned(&mut written) {
                Ok((_, true)) if !are_awaited(&jobs, &upon) => End::GivenUp,
                Ok((mut writer, true)) => {
                    let mut settled = step(lifecycle, async move {
                        let fresh = writer.settle(rest).await?;
                        Ok((writer, fresh))
                    });
                    self.meanwhile(&mut settled, &mut next, queue, &turn).await;
                    match returned(&mut settled) {
                        Ok((writer, true)) => End::Committed(writer),
                        Ok((_, false)) => End::Stale,
                        Err(Failure::Conflict(_)) => End::GivenUp,
                        Err(Failure::Lost(_)) => End::Lost,
                        Err(failure) => End::Unknown(failure),
                    }
                }
                Ok((_, false)) => End::Stale,
                Err(failure) => End::Failed(failure),
            };
            let End::Committed(writer) = end else {
                // first: its rows are in the way of what is written instead
                let left = self.grounded(next);
                self.begin_again(end, jobs, &accounts).await;
                return left;
            };
            self.writers.push(writer);
            if let Some(lane) = &mut self.lane {
                lane.extended(draft.tip);
            }
            self.memory.was_right();
            upon = accounts;
            self.answer(jobs, draft);
            flight = match next {
                Next::Flying(next) if !lifecycle.is_stopping() && !self.is_lane_over() => *next,
                next => return self.grounded(next),
            };
        }
    }

    /// Commits a batch the slow way after all, where that finds out what became of it; or says that its end is not known.
    async fn begin_again(&mut self, end: End<L::Writer>, jobs: Vec<Job>, accounts: &[i64]) {
        match end {
            End::Stale => self.was_wrong(accounts),
            End::Committed(_) | End::GivenUp => self.memory.forget(accounts),
            End::Failed(Failure::Conflict(_)) => {
                self.memory.forget(accounts);
                if let Some(lane) = &mut self.lane {
                    lane.met_repeat();
                }
            }
            // perhaps there is no session for a writer: it is not tried again with the next batch
            End::Failed(_) => self.memory.was_wrong(accounts),
            End::Lost => self.lose_lane(),
            End::Unknown(failure) => {
                self.lose_lane();
                return self.fail_all(jobs, &failure);
            }
        }
        self.commit_all(jobs).await;
    }

    /// Drafts jobs, as if what is remembered was true already, and has their rows written.
    fn depart(&mut self, jobs: Vec<Job>, from: &Tip, lifecycle: &Lifecycle) -> Next<L> {
        if jobs.iter().any(|job| job.dry_run) {
            return Next::Grounded(jobs);
        }
        let wanted = wanted(jobs.iter());
        let Some(draft) = self.draft(&jobs, &wanted, from, L::draft_parts) else {
            return Next::Grounded(jobs);
        };
        self.memory.keep(draft.books.accounts());
        let ((rows, rest), draft) = draft.split();
        let (lanes, lane, writer) = (self.lanes.clone(), from.lane, self.writers.pop());
        let written = step(lifecycle, async move {
            let mut writer = match writer {
                Some(writer) => writer,
                None => lanes.writer(lane).await?,
            };
            let fresh = writer.write(rows).await?;
            Ok((writer, fresh))
        });
        Next::Flying(Box::new(Flight {
            jobs,
            accounts: wanted.accounts,
            draft,
            rest,
            written,
        }))
    }

    /// Waits for a step. Meanwhile the next batch departs, as soon as enough waits for it.
    async fn meanwhile(
        &mut self,
        step: &mut Step<L::Writer>,
        next: &mut Next<L>,
        queue: &mut Queue,
        turn: &Turn<'_>,
    ) {
        // what is ready goes first
        while step.as_mut().now_or_never().is_none() {
            if !matches!(next, Next::Nothing) {
                return step.as_mut().await;
            }
            let waiting = queue.rows().saturating_sub(turn.rows());
            match (waiting >= self.config.large_batch)
                .then(|| queue.take())
                .flatten()
            {
                // two sessions that write the same id would wait for each other
                Some(jobs) if turn.shares_an_id_with(&jobs) => *next = Next::Grounded(jobs),
                Some(jobs) => *next = self.depart(jobs, &turn.tip, turn.lifecycle),
                None => {
                    // the loop looks whether it is ready
                    let _ = tokio::time::timeout(LOOK_EVERY, step.as_mut()).await;
                }
            }
        }
    }

    /// What was drafted will not be: the accounts are to be read again.
    fn grounded(&mut self, next: Next<L>) -> Option<Vec<Job>> {
        if let Next::Flying(flight) = &next {
            self.memory.forget(&flight.accounts);
        }
        next.into_jobs()
    }
}

/// The batch whose turn it is.
struct Turn<'a> {
    jobs: &'a [Job],
    /// The end of the lane behind it.
    tip: Tip,
    lifecycle: &'a Lifecycle,
}

impl Turn<'_> {
    fn rows(&self) -> usize {
        self.jobs.iter().map(|job| job.steps.rows()).sum()
    }

    fn shares_an_id_with(&self, others: &[Job]) -> bool {
        let own: HashSet<Uuid> = ids(self.jobs).collect();
        ids(others).any(|id| own.contains(&id))
    }
}

/// Lets a task do a step.
fn step<W: Send + 'static>(
    lifecycle: &Lifecycle,
    work: impl Future<Output = Done<W>> + Send + 'static,
) -> Step<W> {
    let (tell, told) = oneshot::channel();
    lifecycle.spawn_request_scoped("ledger writer", async move {
        let (mut tell, work) = (tell, patience::answer(work));
        let done = tokio::select! {
            done = work => done,
            // nobody waits for it any more: the writer is dropped, and its session ends
            () = tell.closed() => return,
        };
        let _ = tell.send(done);
    });
    Box::pin(maybe_done(told))
}

fn returned<W>(step: &mut Step<W>) -> Done<W> {
    match step.as_mut().take_output() {
        Some(Ok(done)) => done,
        // the process stops, or the task has panicked
        Some(Err(_)) | None => Err(Failure::Unavailable("a batch was abandoned".into())),
    }
}

fn ids(jobs: &[Job]) -> impl Iterator<Item = Uuid> {
    jobs.iter()
        .flat_map(|job| job.steps.commands())
        .map(super::Command::id)
}

/// Whether everybody still waits for whom it matters. An account that was as remembered when a batch was drafted never becomes
/// so again; but one that the batch before was yet to change may have been a reason to refuse the same command elsewhere.
/// `upon` has those, in order.
fn are_awaited(jobs: &[Job], upon: &[i64]) -> bool {
    let now = Instant::now();
    jobs.iter().all(|job| {
        job.is_awaited(now)
            || wanted(std::iter::once(job))
                .accounts
                .iter()
                .all(|account| upon.binary_search(account).is_err())
    })
}

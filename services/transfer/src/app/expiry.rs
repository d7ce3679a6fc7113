//! Ends pending transfers whose time is over.
//!
//! Every replica looks for them. The id of an expiry is made from the pending transfer and the ledger's key, so that it is
//! the same for all replicas, and nobody can use it up before. From its time on a pending transfer is refused to be posted or voided,
//! whether or not it has been ended already.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use lifecycle::Lifecycle;
use opentelemetry::metrics::Counter;
use uuid::Uuid;

use super::{chain::Signer, engine::Engine, error::Error, patience, schedules::Clock};
use crate::domain::command::{Command, Refusal};

/// How many end in one commit. One may have 100 rows: together they fit into a batch of the journal.
const BATCH: i64 = 64;
const ATTEMPT: Duration = Duration::from_secs(5);
/// How often is looked for what other replicas hold.
const LOOK: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

static EXPIRED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.expired")
        .with_description("pending transfers that this replica has ended because their time was over")
        .build()
});

/// A pending transfer that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it ends by itself.
    pub expires_at: DateTime<Utc>,
    /// Its id.
    pub pending: Uuid,
}

/// Where pending transfers are found.
pub trait Holds: Send + Sync + 'static {
    /// Those whose time is over, behind one of them, in the order of their times.
    fn due(
        &self,
        now: DateTime<Utc>,
        behind: Hold,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Hold>, Error>> + Send;
    /// How many of these have not ended.
    fn remaining(&self, pending: &[Uuid]) -> impl Future<Output = Result<i64, Error>> + Send;
    /// When the first one after a moment ends.
    fn next_expiry(
        &self,
        after: DateTime<Utc>,
    ) -> impl Future<Output = Result<Option<DateTime<Utc>>, Error>> + Send;
}

/// Ends what is due.
pub struct Expiry<H> {
    holds: H,
    engine: Engine,
    signer: Signer,
    clock: Clock,
}

impl<H: Holds> Expiry<H> {
    /// Ends the pending transfers of a ledger.
    pub fn new(holds: H, engine: Engine, signer: Signer, clock: Clock) -> Self {
        Self {
            holds,
            engine,
            signer,
            clock,
        }
    }

    /// Ends what is due until the process drains; the rest is for others.
    pub async fn run(&self, lifecycle: &Lifecycle) {
        let mut pause = Duration::from_millis(100);
        loop {
            let wait = match self.pass().await {
                Ok(_) => {
                    pause = Duration::from_millis(100);
                    self.until_next().await
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot end pending transfers now");
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    pause.mul_f64(rand::random_range(0.5..1.0))
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = lifecycle.draining() => return,
            }
        }
    }

    /// Ends what is due now; how many this replica has ended.
    ///
    /// It goes through all of them once: one that cannot be ended is met again in the next pass, and is in nobody's way.
    pub async fn pass(&self) -> Result<u64, Error> {
        let now = (self.clock)();
        let mut behind = Hold {
            expires_at: DateTime::UNIX_EPOCH,
            pending: Uuid::nil(),
        };
        let mut ended = 0;
        loop {
            let due = patience::answer(self.holds.due(now, behind, BATCH)).await?;
            let Some(last) = due.last() else { return Ok(ended) };
            behind = *last;
            ended += self.end(&due).await?;
        }
    }

    async fn end(&self, due: &[Hold]) -> Result<u64, Error> {
        let deadline = Instant::now() + ATTEMPT;
        // each by itself, so that none is in the others' way; the engine commits them together
        let outcomes = join_all(due.iter().map(|hold| {
            let command = Command::Expire {
                id: self.signer.expiry_id(hold.pending),
                pending: hold.pending,
            };
            self.engine.run(command, false, deadline)
        }))
        .await;
        let mut ended = 0;
        let mut refused = Vec::new();
        let mut failed = None;
        for (hold, outcome) in due.iter().zip(outcomes) {
            match outcome {
                Ok(Ok(done)) => ended += u64::from(!done.replayed),
                // not yet in the engine's time
                Ok(Err(Refusal::NotExpired)) => {}
                Ok(Err(_)) => refused.push(hold.pending),
                Err(error) => failed = Some(error),
            }
        }
        EXPIRED.add(ended, &[]);
        // somebody was first, and has taken it off the list; what remains there is a mistake, but no reason to hurry
        if !refused.is_empty() {
            let remaining = patience::answer(self.holds.remaining(&refused)).await?;
            if remaining > 0 {
                tracing::error!(
                    ledger.holds = remaining,
                    "pending transfers are over but cannot be ended"
                );
            }
        }
        failed.map_or(Ok(ended), Err)
    }

    async fn until_next(&self) -> Duration {
        let now = (self.clock)();
        let next = patience::answer(self.holds.next_expiry(now)).await.ok().flatten();
        let known = next.and_then(|next| (next - now).to_std().ok()).unwrap_or(LOOK);
        // not all replicas at the same moment
        known.min(LOOK.mul_f64(rand::random_range(0.5..1.0)))
            + Duration::from_millis(rand::random_range(1..20))
    }
}

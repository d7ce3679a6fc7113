//! Compares the stored balances with the journal, again and again and at a gentle pace, on one replica at a time.
//!
//! Two passes run beside each other. One compares each account with its last entry, which costs two looks into an index. The
//! other adds up all entries of each account; the entries of a long one are added in parts, as they never change.

mod metrics;
mod pass;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use lifecycle::Lifecycle;

use self::pass::{Drifting, Pass};
use super::{
    error::{Error, Source},
    schedules::Clock,
};

/// Accounts that are compared in one statement.
const ACCOUNTS: i64 = 100;
/// Entries that are added up in one statement: those of a long journal are far apart, and nobody shall wait for them.
const ENTRIES: i64 = 25;
/// An account that grows faster than its entries are read is left after so many times as many parts as it had.
const CHASE: i64 = 4;
/// How often a replica that is not the one tries to become it.
const COMPETE_EVERY: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How fast it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// From the beginning of a pass to that of the next one, at least.
    pub every: Duration,
    /// Accounts and entries that are read in a second, at most.
    pub rows_per_second: u32,
}

/// The figures of an account, stored or by the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// The posted balance.
    pub posted: i64,
    /// The held amount.
    pub held: i64,
    /// What pending transfers may still bring.
    pub incoming: i64,
    /// The number of entries.
    pub position: i64,
}

impl Figures {
    fn plus(self, more: Self) -> Self {
        // the journal may hold anything when this is needed: better a wrong sum, which is a drift too, than an overflow
        Self {
            posted: self.posted.saturating_add(more.posted),
            held: self.held.saturating_add(more.held),
            incoming: self.incoming.saturating_add(more.incoming),
            position: self.position.saturating_add(more.position),
        }
    }
}

/// An account, and what its entries say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The account.
    pub account: i64,
    /// What is stored.
    pub stored: Figures,
    /// What the journal says.
    pub journal: Figures,
}

/// A stored balance that differs from the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// What differs.
    pub compared: Compared,
    /// When it was found.
    pub found_at: DateTime<Utc>,
}

/// Where balances and entries are.
pub trait Balances: Send + Sync + 'static {
    /// A connection.
    type Session: Session;
    /// Connects.
    fn connect(&self) -> impl Future<Output = Result<Self::Session, Error>> + Send;
}

/// A connection; whatever one of its answers compares is of one moment.
pub trait Session: Send + 'static {
    /// Tries to become the one that compares, for as long as the session lives.
    fn try_lead(&mut self) -> impl Future<Output = Result<bool, Error>> + Send;
    /// Accounts behind a number, each with what its last entry says. Of what is incoming that says nothing.
    fn last_entries(
        &mut self,
        behind: i64,
        accounts: i64,
    ) -> impl Future<Output = Result<Vec<Compared>, Error>> + Send;
    /// Accounts behind a number, each with the sum of its entries: as many as have so many entries together.
    fn sums(
        &mut self,
        behind: i64,
        accounts: i64,
        entries: i64,
    ) -> impl Future<Output = Result<Vec<Compared>, Error>> + Send;
    /// The first account behind a number, and the sum of its entries from behind one position up to another.
    fn part(
        &mut self,
        behind: i64,
        from: i64,
        to: i64,
    ) -> impl Future<Output = Result<Option<Compared>, Error>> + Send;
}

/// Whom a drift is told.
pub trait Alarm: Send + Sync + 'static {
    /// Tells it; some may have been told when it fails.
    fn tell(&self, drifts: Vec<Drift>) -> impl Future<Output = Result<(), Source>> + Send;
}

/// Compares.
pub struct Reconciler<B, A> {
    balances: B,
    alarm: A,
    config: Config,
    clock: Clock,
}

/// How far the one that compares is.
struct State<S> {
    session: S,
    last: Pass,
    whole: Pass,
    long: Option<Long>,
    drifting: Drifting,
}

/// An account whose entries are added up in parts.
#[derive(Debug, Default)]
struct Long {
    /// The position up to which they are.
    to: i64,
    sum: Figures,
    parts_left: Option<i64>,
}

impl<B: Balances, A: Alarm> Reconciler<B, A> {
    /// Compares these balances.
    pub fn new(balances: B, alarm: A, config: Config, clock: Clock) -> Self {
        Self {
            balances,
            alarm,
            config,
            clock,
        }
    }

    /// Compares until the process drains, whenever no other replica does.
    pub async fn run(&self, lifecycle: &Lifecycle) {
        let mut pause = COMPETE_EVERY;
        loop {
            tokio::select! {
                result = self.session(&mut pause) => {
                    let Err(error) = result;
                    tracing::warn!(%error, "the reconciler lost its session and competes again");
                }
                () = lifecycle.draining() => return,
            }
            metrics::drifting(0);
            tokio::select! {
                () = tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))) => {}
                () = lifecycle.draining() => return,
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Stands by, then compares, on one session whose loss ends both.
    async fn session(&self, pause: &mut Duration) -> Result<std::convert::Infallible, Error> {
        let mut session = self.balances.connect().await?;
        while !session.try_lead().await? {
            tokio::time::sleep(COMPETE_EVERY.mul_f64(rand::random_range(0.5..1.0))).await;
        }
        *pause = COMPETE_EVERY;
        tracing::info!("this reconciler leads");
        let mut state = State {
            session,
            last: Pass::default(),
            whole: Pass::default(),
            long: None,
            drifting: Drifting::default(),
        };
        loop {
            let begun = Instant::now();
            let mut read = 0;
            if state.last.is_due(self.config.every) {
                read += self.compare_last(&mut state).await?;
            }
            if state.whole.is_due(self.config.every) {
                read += self.add_up(&mut state).await?;
            }
            let rest = if read > 0 {
                self.pace(read).saturating_sub(begun.elapsed())
            } else {
                let every = self.config.every;
                state.last.until_due(every).min(state.whole.until_due(every))
            };
            tokio::time::sleep(rest).await;
        }
    }

    /// How long so many rows should take.
    fn pace(&self, rows: i64) -> Duration {
        let micros = rows.saturating_mul(1_000_000) / i64::from(self.config.rows_per_second.max(1));
        Duration::from_micros(micros.unsigned_abs())
    }

    /// Compares some accounts with their last entries; how many rows were read.
    async fn compare_last(&self, state: &mut State<B::Session>) -> Result<i64, Error> {
        let page = state.session.last_entries(state.last.behind, ACCOUNTS).await?;
        let Some(end) = page.last() else {
            state.last.end("last");
            return Ok(0);
        };
        state.last.behind = end.account;
        let rows = count(&page);
        self.look("last", page, &mut state.drifting).await;
        Ok(rows * 3)
    }

    /// Adds up the entries of some accounts, or a part of those of one that has many; how many rows were read.
    async fn add_up(&self, state: &mut State<B::Session>) -> Result<i64, Error> {
        let behind = state.whole.behind;
        if let Some(long) = state.long.take() {
            return self.add_part(state, long).await;
        }
        let page = state.session.sums(behind, ACCOUNTS, ENTRIES).await?;
        let Some(end) = page.last() else {
            return self.add_part(state, Long::default()).await;
        };
        state.whole.behind = end.account;
        let rows = count(&page) + page.iter().map(|one| one.journal.position).sum::<i64>();
        self.look("whole", page, &mut state.drifting).await;
        Ok(rows)
    }

    /// Adds the next entries of the first account behind the last one.
    async fn add_part(&self, state: &mut State<B::Session>, mut long: Long) -> Result<i64, Error> {
        let (from, to) = (long.to, long.to + ENTRIES);
        let Some(part) = state.session.part(state.whole.behind, from, to).await? else {
            state.whole.end("whole");
            return Ok(0);
        };
        long.to = to;
        long.sum = long.sum.plus(part.journal);
        // without an entry there is none behind it either, whatever the account says
        if part.stored.position <= to || part.journal.position == 0 {
            state.whole.behind = part.account;
            let whole = Compared {
                journal: long.sum,
                ..part
            };
            self.look("whole", vec![whole], &mut state.drifting).await;
            return Ok(part.journal.position + 1);
        }
        let parts_left = long.parts_left.unwrap_or(part.stored.position / ENTRIES * CHASE) - 1;
        if parts_left < 0 {
            state.whole.behind = part.account;
            tracing::warn!(
                ledger.account = part.account,
                "an account grows faster than its entries are added up"
            );
        } else {
            long.parts_left = Some(parts_left);
            state.long = Some(long);
        }
        Ok(part.journal.position + 1)
    }

    /// Tells what differs.
    async fn look(&self, check: &'static str, page: Vec<Compared>, drifting: &mut Drifting) {
        metrics::compared(check, page.len());
        let found_at = (self.clock)();
        let mut drifts = Vec::new();
        for compared in page {
            if compared.stored != compared.journal {
                drifts.push(Drift { compared, found_at });
                drifting.add(compared.account);
                log(check, &compared);
            } else if check == "whole" {
                drifting.remove(compared.account);
            }
        }
        metrics::drifting(drifting.len());
        if drifts.is_empty() {
            return;
        }
        metrics::found(drifts.len());
        if let Err(error) = self.alarm.tell(drifts).await {
            tracing::warn!(
                error,
                "a drift is not published now; it is as long as it is found"
            );
        }
    }
}

fn count(page: &[Compared]) -> i64 {
    i64::try_from(page.len()).unwrap_or(i64::MAX)
}

fn log(check: &'static str, compared: &Compared) {
    let (stored, journal) = (&compared.stored, &compared.journal);
    tracing::error!(
        ledger.account = compared.account,
        ledger.check = check,
        stored.posted = stored.posted,
        stored.held = stored.held,
        stored.incoming = stored.incoming,
        stored.position = stored.position,
        journal.posted = journal.posted,
        journal.held = journal.held,
        journal.incoming = journal.incoming,
        journal.position = journal.position,
        "a stored balance differs from the journal"
    );
}

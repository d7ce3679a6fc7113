//! Entries as they are made.
//!
//! A watcher knows how far it has come; how far its account has come is told to all watchers of the account: at once of what
//! this instance commits, and of the rest by one look at all watched accounts together, ten times a second. What is new is
//! then read in one statement for all who ask at that time. The entries of an account have positions without a gap, and a
//! statement that sees one sees all before it, so that to go on behind a position is all that order and completeness take.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use lifecycle::Lifecycle;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    coalesce::{Coalescer, Source},
    error::Error,
    reads::{Journal, Reads, history::Entry},
};
use crate::domain::{command::Authority, journal::Row};

/// Watchers of one caller at most.
const MAX_OF_CALLER: usize = 100;
/// How long an entry of another instance waits to be found; nobody announces it.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long a look or a read may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Entries that a watcher reads at once: what it holds for a client that does not read them.
pub const PAGE: i64 = 64;

/// What comes behind a position of an account.
pub type Tail = Arc<[Entry]>;

/// What watchers need from a database.
pub trait Tails: Clone + Send + Sync + 'static {
    /// The positions of the last entries of accounts.
    fn positions(&self, accounts: &[i64]) -> impl Future<Output = Result<Vec<(i64, i64)>, Error>> + Send;
    /// For each account and position the next entries, the oldest first, so many at most.
    fn tails(
        &self,
        known: &[(i64, i64)],
        most: i64,
    ) -> impl Future<Output = Result<HashMap<(i64, i64), Tail>, Error>> + Send;
}

struct Of<J>(J);

impl<J: Tails> Source<(i64, i64), Tail> for Of<J> {
    async fn read(&self, keys: &[(i64, i64)]) -> Result<HashMap<(i64, i64), Tail>, Error> {
        self.0.tails(keys, PAGE).await
    }
}

/// Who watches what.
#[derive(Default)]
struct Board {
    accounts: HashMap<i64, Watched>,
    /// The watchers of each caller.
    callers: HashMap<i64, usize>,
    watchers: usize,
}

struct Watched {
    /// How far the account has come.
    position: watch::Sender<i64>,
    watchers: usize,
}

/// Tells watchers of new entries.
pub struct Watch {
    // never held over an await: a lock of some microseconds
    board: Mutex<Board>,
    tails: Coalescer<(i64, i64), Tail>,
    most: usize,
}

impl Watch {
    /// Room for so many watchers; what it needs to run is owned by `lifecycle`.
    pub fn start(journal: impl Tails, most: usize, lifecycle: &Lifecycle) -> Arc<Self> {
        let watch = Arc::new(Self {
            board: Mutex::default(),
            tails: Coalescer::start("tail reads", Of(journal.clone()), lifecycle),
            most,
        });
        let (looking, life) = (Arc::clone(&watch), lifecycle.clone());
        lifecycle.spawn(
            "account watch",
            async move { looking.look(&journal, &life).await },
        );
        watch
    }

    /// Says what this instance has committed.
    pub fn committed(&self, rows: &[Row]) {
        let board = self.board();
        if board.accounts.is_empty() {
            return;
        }
        for row in rows {
            board.advance(row.debit, row.debit_position);
            board.advance(row.credit, row.credit_position);
        }
    }

    /// Watches an account of the caller from behind a position on.
    pub async fn watch<J: Journal>(
        self: &Arc<Self>,
        reads: &Reads<J>,
        asked: Asked,
        deadline: Instant,
    ) -> Result<Watcher, Error> {
        // first the place, then the position: nothing comes unseen between the two
        let (place, position) = self.enter(asked.account, asked.caller)?;
        let record = reads.account(asked.account, asked.by, deadline).await?;
        if asked.after > record.account.position {
            return Err(Error::PositionPastEnd);
        }
        self.board().advance(asked.account, record.account.position);
        Ok(Watcher {
            place,
            position,
            after: asked.after,
        })
    }

    fn enter(self: &Arc<Self>, account: i64, caller: i64) -> Result<(Place, watch::Receiver<i64>), Error> {
        let mut board = self.board();
        let of_caller = board.callers.get(&caller).copied().unwrap_or(0);
        if board.watchers >= self.most || of_caller >= MAX_OF_CALLER {
            return Err(Error::TooManyWatchers);
        }
        board.watchers += 1;
        board.callers.insert(caller, of_caller + 1);
        let watched = board.accounts.entry(account).or_insert_with(|| Watched {
            position: watch::Sender::new(0),
            watchers: 0,
        });
        watched.watchers += 1;
        let position = watched.position.subscribe();
        let place = Place {
            watch: Arc::clone(self),
            account,
            caller,
        };
        Ok((place, position))
    }

    /// Looks what other instances have committed, until the process stops.
    async fn look(&self, journal: &impl Tails, lifecycle: &Lifecycle) {
        let mut failed = false;
        loop {
            tokio::select! {
                () = lifecycle.stopping() => return,
                () = sleep(LOOK_EVERY) => {}
            }
            let accounts: Vec<i64> = self.board().accounts.keys().copied().collect();
            if accounts.is_empty() {
                continue;
            }
            let found = timeout(PATIENCE, journal.positions(&accounts)).await;
            match found.unwrap_or_else(|_| Err(Error::Unavailable("a look took too long".into()))) {
                Ok(positions) => {
                    let board = self.board();
                    for (account, position) in positions {
                        board.advance(account, position);
                    }
                    failed = false;
                }
                Err(error) => {
                    if !failed {
                        tracing::warn!(%error, "watched accounts cannot be looked at; tried again until they can");
                    }
                    failed = true;
                }
            }
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    fn advance(&self, account: i64, position: i64) {
        if let Some(watched) = self.accounts.get(&account) {
            watched.position.send_if_modified(|known| {
                let newer = position > *known;
                *known = position.max(*known);
                newer
            });
        }
    }
}

/// What a caller wants to watch.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The account.
    pub account: i64,
    /// The last position that is known.
    pub after: i64,
    /// On whose behalf.
    pub by: Authority,
    /// The user.
    pub caller: i64,
}

/// Follows an account.
pub struct Watcher {
    place: Place,
    position: watch::Receiver<i64>,
    after: i64,
}

impl Watcher {
    /// Waits for the next entries, which follow those of the call before.
    pub async fn next(&mut self) -> Result<Tail, Error> {
        loop {
            let after = self.after;
            // the board keeps the sender for as long as there is a place
            let _ = self.position.wait_for(|position| *position > after).await;
            let key = (self.place.account, after);
            let deadline = Instant::now() + PATIENCE;
            if let Some(tail) = self.place.watch.tails.get(key, deadline).await?
                && let Some(last) = tail.last()
            {
                self.after = last.position;
                return Ok(tail);
            }
            // told by a database that is ahead of the one that was read
            sleep(LOOK_EVERY).await;
        }
    }
}

/// A place of a watcher, free again when it is dropped.
struct Place {
    watch: Arc<Watch>,
    account: i64,
    caller: i64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut board = self.watch.board();
        board.watchers -= 1;
        if let Some(of_caller) = board.callers.get_mut(&self.caller) {
            *of_caller -= 1;
            if *of_caller == 0 {
                board.callers.remove(&self.caller);
            }
        }
        if let Some(watched) = board.accounts.get_mut(&self.account) {
            watched.watchers -= 1;
            if watched.watchers == 0 {
                board.accounts.remove(&self.account);
            }
        }
    }
}

//! A ledger on a database of its own, with as many replicas as a test wants.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use lifecycle::Lifecycle;
use postgres::testing::Database;
use sqlx::PgPool;
use transfer::{
    MIGRATOR,
    app::{
        chain::Signer,
        engine::{self, Committed, Engine},
        error::Error,
        ledger::Ledger,
        order::{Action, Order, Party},
    },
    domain::{
        books::Done,
        command::Authority,
        money::{Amount, Currency},
    },
    store::Postgres,
};
use uuid::Uuid;

pub struct World {
    pub database: Database,
    lifecycle: Lifecycle,
}

/// One replica of the ledger.
#[derive(Clone)]
pub struct Replica {
    pub ledger: Arc<Ledger<Postgres>>,
    pub engine: Engine,
    pub store: Postgres,
}

impl World {
    pub async fn new() -> Self {
        Self {
            database: Database::create(&MIGRATOR).await,
            lifecycle: Lifecycle::new(Duration::from_secs(1)),
        }
    }

    pub fn pool(&self) -> &PgPool {
        &self.database.pool
    }

    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    pub fn replica(&self) -> Replica {
        self.replica_with(32_768)
    }

    /// A replica whose queue has room for so many rows.
    pub fn replica_with(&self, queue: usize) -> Replica {
        self.replica_that_tells(queue, |_| {})
    }

    /// A replica that tells what it commits.
    pub fn replica_that_tells(
        &self,
        queue: usize,
        committed: impl Fn(Committed) + Send + Sync + 'static,
    ) -> Replica {
        let store = Postgres::new(self.pool().clone(), signer());
        let config = engine::Config {
            queue,
            large_batch: 1_024,
            clock: || SystemTime::now().into(),
        };
        let engine = Engine::start(store.clone(), config, committed, &self.lifecycle);
        Replica {
            ledger: Arc::new(Ledger::new(store.clone(), engine.clone())),
            engine,
            store,
        }
    }

    /// One figure.
    pub async fn sql(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(self.pool())
            .await
            .unwrap()
    }

    /// What must hold at any time between two commits, whatever happened.
    pub async fn assert_sound(&self) {
        let wrong = "SELECT count(*) FROM (SELECT currency FROM accounts GROUP BY currency HAVING sum(posted) <> 0) AS wrong";
        assert_eq!(
            self.sql(wrong).await,
            0,
            "the balances of a currency do not sum up to zero"
        );
        let wrong = "WITH entry AS (
                         SELECT debit_account AS account, -moved AS posted, held, 0 AS incoming FROM journal
                          UNION ALL
                         SELECT credit_account, moved, 0, held FROM journal
                     ), total AS (
                         SELECT account, sum(posted) AS posted, sum(held) AS held, sum(incoming) AS incoming,
                                count(*) AS position
                           FROM entry
                          GROUP BY account
                     )
                     SELECT count(*)
                       FROM accounts a
                       LEFT JOIN total t ON t.account = a.id
                      WHERE (a.posted, a.held, a.incoming, a.position) IS DISTINCT FROM
                            (coalesce(t.posted, 0), coalesce(t.held, 0), coalesce(t.incoming, 0), coalesce(t.position, 0))";
        assert_eq!(self.sql(wrong).await, 0, "a balance differs from the journal");
        let wrong = "SELECT count(*) FROM (SELECT lane FROM journal GROUP BY lane
                                           HAVING max(sequence) <> count(*) OR min(sequence) <> 1) AS wrong";
        assert_eq!(self.sql(wrong).await, 0, "a lane has a gap");
    }
}

pub fn signer() -> Signer {
    Signer::new(b"a key for tests, of more than 32 bytes")
}

pub fn usd() -> Currency {
    Currency::from_code("USD").unwrap()
}

pub fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

pub fn amount(minor: i64) -> Amount {
    Amount::new(minor).unwrap()
}

/// A plain transfer between two users' main accounts.
pub fn order(from: i64, to: i64, minor: i64) -> Order {
    Order {
        id: Uuid::now_v7(),
        by: Authority::User(from),
        from: Party::User(from),
        to: vec![(Party::User(to), amount(minor))],
        currency: None,
        hold: None,
        note: None,
    }
}

impl Replica {
    /// Opens the main accounts of users 1 to `users`, each with so much.
    pub async fn users(&self, users: i64, each: i64) {
        for user in 1..=users {
            self.ledger.open_main(user, usd()).await.unwrap();
            let deposit = Order {
                by: Authority::Bank,
                from: Party::Treasury,
                ..order(0, user, each)
            };
            self.pay(deposit).await.unwrap();
        }
    }

    pub async fn pay(&self, order: Order) -> Result<Done, Error> {
        self.ledger.run(Action::Transfer(order), false, soon()).await
    }

    pub async fn direct(&self, command: transfer::domain::command::Command) -> Result<Done, Error> {
        self.ledger.run(Action::Direct(command), false, soon()).await
    }
}

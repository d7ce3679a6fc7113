//! The saga of signing up, on a real PostgreSQL, with neighbours that fail where the test says.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use account::{
    MIGRATOR,
    app::{Balance, Bank, Credentials, Error, SignUp, Store, Users},
    domain::user::{Email, Name, Status},
    store::Postgres,
};
use events::Relay;
use lifecycle::Lifecycle;
use postgres::testing::Database;
use secrecy::SecretString;
use uuid::Uuid;

/// Auth and transfer as the saga sees them, each of which can be away.
#[derive(Clone, Default)]
struct Neighbours(Arc<State>);

#[derive(Default)]
struct State {
    auth_away: AtomicBool,
    auth_overloaded: AtomicBool,
    bank_away: AtomicBool,
    credentials: Mutex<Vec<i64>>,
    accounts: Mutex<Vec<i64>>,
}

fn away(flag: &AtomicBool) -> Result<(), Error> {
    if flag.load(Ordering::SeqCst) {
        Err(Error::Unavailable("away".into()))
    } else {
        Ok(())
    }
}

impl Credentials for Neighbours {
    async fn create(&self, user_id: i64, _: &str, _: Option<&SecretString>) -> Result<(), Error> {
        away(&self.0.auth_away)?;
        if self.0.auth_overloaded.load(Ordering::SeqCst) {
            return Err(Error::Overloaded);
        }
        let mut credentials = self.0.credentials.lock().unwrap();
        if !credentials.contains(&user_id) {
            credentials.push(user_id);
        }
        Ok(())
    }

    async fn exists(&self, user_id: i64) -> Result<bool, Error> {
        away(&self.0.auth_away)?;
        Ok(self.0.credentials.lock().unwrap().contains(&user_id))
    }
}

impl Bank for Neighbours {
    async fn open(&self, user_id: i64, _: &str) -> Result<(), Error> {
        away(&self.0.bank_away)?;
        let mut accounts = self.0.accounts.lock().unwrap();
        if !accounts.contains(&user_id) {
            accounts.push(user_id);
        }
        Ok(())
    }

    async fn balance(&self, _: i64) -> Result<Balance, Error> {
        away(&self.0.bank_away)?;
        Ok(Balance {
            posted: 5,
            currency: "USD".into(),
        })
    }
}

struct World {
    database: Database,
    store: Postgres,
    neighbours: Neighbours,
    users: Users<Postgres, Neighbours, Neighbours>,
    lifecycle: Lifecycle,
}

impl World {
    async fn new() -> Self {
        let database = Database::create(&MIGRATOR).await;
        let lifecycle = Lifecycle::new(Duration::ZERO);
        // no broker listens there: the events wait in the outbox, where the test looks at them
        let config = events::Config {
            brokers: vec!["127.0.0.1:9".into()],
            ..events::Config::default()
        };
        let relay = Relay::start(&database.pool, &config, &lifecycle);
        let store = Postgres::new(database.pool.clone(), relay);
        let neighbours = Neighbours::default();
        let users = Users::new(store.clone(), neighbours.clone(), neighbours.clone());
        Self {
            database,
            store,
            neighbours,
            users,
            lifecycle,
        }
    }

    async fn status(&self, id: i64) -> Option<Status> {
        self.users.status(id).await.unwrap()
    }

    async fn sql(&self, statement: &'static str) -> i64 {
        sqlx::query_scalar(statement)
            .fetch_one(&self.database.pool)
            .await
            .unwrap()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.lifecycle.drain();
    }
}

fn sign_up(email: &str) -> SignUp {
    SignUp {
        request_id: Uuid::new_v4(),
        name: Name::new("Alice").unwrap(),
        email: Email::new(email).unwrap(),
        password: Some("password123".into()),
    }
}

#[tokio::test]
async fn attempts_at_the_same_moment_make_one_user() {
    let world = World::new().await;
    let alice = sign_up("alice@example.com");
    let attempts = (0..8).map(|_| world.users.sign_up(&alice));
    let ids: Vec<i64> = futures_util::future::try_join_all(attempts).await.unwrap();
    // which number it is depends on who came first: an insert that conflicts has taken one
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(world.sql("SELECT count(*) FROM users").await, 1);
    assert_eq!(
        world.sql("SELECT count(*) FROM outbox").await,
        1,
        "one event for one user"
    );
}

#[tokio::test]
async fn a_retry_returns_the_same_user_and_uses_no_number() {
    let world = World::new().await;
    let alice = sign_up("alice@example.com");
    for _ in 0..3 {
        assert_eq!(world.users.sign_up(&alice).await.unwrap(), 1);
    }
    let other = SignUp {
        name: Name::new("Mallory").unwrap(),
        ..alice.clone()
    };
    assert!(matches!(
        world.users.sign_up(&other).await,
        Err(Error::RequestIdReused)
    ));
    let taken = world.users.sign_up(&sign_up("ALICE@example.com")).await;
    assert!(matches!(taken, Err(Error::EmailTaken)));
    let bob = world.users.sign_up(&sign_up("bob@example.com")).await;
    assert_eq!(
        bob.unwrap(),
        2,
        "neither the retries nor the refused took a number"
    );
    assert_eq!(world.sql("SELECT count(*) FROM outbox").await, 2);
}

#[tokio::test]
async fn what_stopped_half_way_goes_on_with_the_retry() {
    let world = World::new().await;
    let alice = sign_up("alice@example.com");
    for flag in [&world.neighbours.0.auth_away, &world.neighbours.0.bank_away] {
        flag.store(true, Ordering::SeqCst);
        assert!(matches!(
            world.users.sign_up(&alice).await,
            Err(Error::Unavailable(_))
        ));
        assert_eq!(world.status(1).await, Some(Status::Pending));
        assert!(
            matches!(world.users.view(1, 1).await, Err(Error::UserNotFound)),
            "nobody sees it yet"
        );
        flag.store(false, Ordering::SeqCst);
    }
    assert_eq!(world.users.sign_up(&alice).await.unwrap(), 1);
    assert_eq!(world.status(1).await, Some(Status::Active));
    assert_eq!(world.users.view(1, 1).await.unwrap().own.unwrap().posted, 5);
    assert!(world.users.view(2, 1).await.unwrap().own.is_none());
}

#[tokio::test]
async fn a_lease_is_taken_once_and_ends_with_the_work() {
    let world = World::new().await;
    world.neighbours.0.bank_away.store(true, Ordering::SeqCst);
    let _ = world.users.sign_up(&sign_up("alice@example.com")).await;
    assert!(
        world
            .store
            .lease(Duration::from_secs(40), Duration::from_mins(10))
            .await
            .unwrap()
            .is_empty()
    );
    let (one, other) = tokio::join!(
        world.store.lease(Duration::ZERO, Duration::from_mins(10)),
        world.store.lease(Duration::ZERO, Duration::from_mins(10))
    );
    let taken = [one.unwrap(), other.unwrap()].concat();
    assert_eq!(taken.len(), 1, "two sweepers, one user");
    assert!(!taken[0].1, "not forlorn yet");
    world.store.activate(1).await.unwrap();
    world.store.abandon(&taken[0].0).await.unwrap();
    assert_eq!(
        world.status(1).await,
        Some(Status::Active),
        "an active user is never given up"
    );
}

#[tokio::test]
async fn a_sign_up_that_was_given_up_frees_the_email() {
    let world = World::new().await;
    world.neighbours.0.auth_away.store(true, Ordering::SeqCst);
    let alice = sign_up("alice@example.com");
    let _ = world.users.sign_up(&alice).await;
    let pending = world.store.begin(&alice).await.unwrap().user;
    world.store.abandon(&pending).await.unwrap();
    assert!(matches!(
        world.store.activate(1).await,
        Err(Error::Unavailable(_))
    ));
    world.neighbours.0.auth_away.store(false, Ordering::SeqCst);
    assert!(world.users.sign_up(&sign_up("alice@example.com")).await.is_ok());
}

#[tokio::test]
async fn a_sign_up_that_somebody_retries_is_not_given_up() {
    let world = World::new().await;
    world.neighbours.0.auth_away.store(true, Ordering::SeqCst);
    let alice = sign_up("alice@example.com");
    let _ = world.users.sign_up(&alice).await;
    let mut leased = world.store.lease(Duration::ZERO, Duration::ZERO).await.unwrap();
    let (seen, forlorn) = leased.remove(0);
    assert!(forlorn);
    // between the sweeper's look at auth and its removal of the row, the caller tries again
    world.neighbours.0.auth_away.store(false, Ordering::SeqCst);
    world.neighbours.0.bank_away.store(true, Ordering::SeqCst);
    let _ = world.users.sign_up(&alice).await;
    world.store.abandon(&seen).await.unwrap();
    assert_eq!(
        world.status(1).await,
        Some(Status::Pending),
        "its credential has a user"
    );
    world.neighbours.0.bank_away.store(false, Ordering::SeqCst);
    assert_eq!(world.users.sign_up(&alice).await.unwrap(), 1);
}

#[tokio::test]
async fn an_overloaded_auth_leaves_nothing_behind() {
    let world = World::new().await;
    world.neighbours.0.auth_overloaded.store(true, Ordering::SeqCst);
    let alice = sign_up("alice@example.com");
    assert!(matches!(
        world.users.sign_up(&alice).await,
        Err(Error::Overloaded)
    ));
    assert_eq!(world.sql("SELECT count(*) FROM users").await, 0);
    // an attempt that is on its way keeps its row, whatever a second one hears
    world.store.begin(&alice).await.unwrap();
    assert!(matches!(
        world.users.sign_up(&alice).await,
        Err(Error::Overloaded)
    ));
    assert_eq!(world.sql("SELECT count(*) FROM users").await, 1);
    world.neighbours.0.auth_overloaded.store(false, Ordering::SeqCst);
    world.users.sign_up(&alice).await.unwrap();
}

//! A service that is asked to stop (SIGTERM) answers what it has begun and ends with 0 within its grace time. With a second
//! instance its clients see nothing of it at all.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use local::Process;
use sqlx::PgPool;
use tests::{Service, TestWorld, User, eventually, promise, world::Options};
use uuid::Uuid;

const GRACE: Duration = Duration::from_secs(8);
/// What the process may add to its grace time: joining its tasks, flushing its telemetry.
const REST: Duration = Duration::from_secs(6);

fn options(replicas: usize) -> Options {
    let settings = vec![(None, "KONTOR_GRACE_MS", GRACE.as_millis().to_string())];
    Options {
        replicas,
        settings,
        ..Options::default()
    }
}

/// Asks it to stop; it must end with 0, in time.
async fn stops(process: &Process) -> Result<Duration> {
    let begun = Instant::now();
    let status = process.stop(GRACE + REST).await?;
    ensure!(status.code() == Some(0), "{} ended with {status}", process.name());
    Ok(begun.elapsed())
}

#[test]
fn an_idle_service_stops_at_once() -> Result<()> {
    promise(async {
        let world = TestWorld::start(options(1)).await?;
        let alice = world.user("Alice", 0).await?;
        // an open stream must not hold up the end
        let subscription = world.subscribe(&alice, Vec::new()).await?;
        for service in [
            Service::Chat,
            Service::Gateway,
            Service::Account,
            Service::Transfer,
            Service::Auth,
        ] {
            let took = stops(world.instance(service, 0)?).await?;
            ensure!(took < GRACE, "{service:?} had nothing to do and took {took:?}");
        }
        subscription.end(Duration::from_secs(5)).await?;
        Ok(())
    })
}

#[test]
fn a_stopping_chat_tells_its_subscribers() -> Result<()> {
    promise(async {
        let world = TestWorld::start(options(1)).await?;
        let alice = world.user("Alice", 0).await?;
        let subscription = world.subscribe(&alice, Vec::new()).await?;
        stops(world.instance(Service::Chat, 0)?).await?;
        let status = subscription.end(Duration::from_secs(5)).await?;
        ensure!(status.code() == tonic::Code::Unavailable, "{status:?}");
        ensure!(
            rpc::error::reason(&status).as_deref() == Some("DRAINING"),
            "{status:?}"
        );
        Ok(())
    })
}

/// Requests that wait for a table.
struct Wait {
    /// The service that stops meanwhile.
    service: Service,
    /// The service whose table it is.
    owner: Service,
    table: &'static str,
    /// The statements that wait, and how many: the ledger commits for many requests at once.
    statements: &'static str,
    requests: usize,
}

const fn ledger(service: Service) -> Wait {
    Wait {
        service,
        owner: Service::Transfer,
        table: "accounts",
        statements: "%FOR NO KEY UPDATE%",
        requests: 1,
    }
}

const fn own(service: Service, table: &'static str) -> Wait {
    Wait {
        service,
        owner: service,
        table,
        statements: "%",
        requests: 4,
    }
}

const WAITS: [Wait; 5] = [
    ledger(Service::Gateway),
    ledger(Service::Transfer),
    own(Service::Account, "users"),
    own(Service::Auth, "sessions"),
    own(Service::Chat, "messages"),
];

#[test]
fn requests_in_flight_are_answered() -> Result<()> {
    promise(async {
        let world = TestWorld::start(options(1)).await?;
        let (alice, bob) = (world.user("Alice", 100).await?, world.user("Bob", 0).await?);
        // the room exists, so that the locked table is the only thing to wait for
        alice.one_of_each(&bob).await?;
        for wait in &WAITS {
            let Wait {
                service,
                owner,
                table,
                ..
            } = *wait;
            let database = world.database(owner).await?;
            #[expect(
                clippy::disallowed_methods,
                reason = "nobody gives it up: it is this test's own, to its end"
            )]
            let mut lock = database.begin().await?;
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"
            )))
            .execute(&mut *lock)
            .await?;
            let process = world.instance(service, 0)?;
            let requests =
                try_join_all((0..wait.requests).map(async |_| request_of(owner, &alice, &bob).await));
            let stop = async {
                eventually_waiting(&database, wait).await?;
                let (took, ()) = tokio::try_join!(stops(process), async {
                    eventually("the service drains", GRACE, async || is_draining(&world, service)).await?;
                    Ok(lock.commit().await?)
                })?;
                anyhow::Ok(took)
            };
            let (answers, took) = tokio::try_join!(requests, stop).with_context(|| format!("{service:?}"))?;
            ensure!(answers.len() == wait.requests && took < GRACE + REST, "{took:?}");
            process.restart().await?;
            eventually("it answers again", Duration::from_mins(1), async || {
                alice.one_of_each(&bob).await
            })
            .await?;
        }
        Ok(())
    })
}

/// A request that needs the service's table. A failure is one that a client would see.
async fn request_of(owner: Service, alice: &User, bob: &User) -> Result<()> {
    match owner {
        Service::Transfer => alice
            .transfer(bob.id, 1, Uuid::new_v4())
            .await?
            .expect(200)
            .map(drop),
        Service::Account => alice.balance().await.map(drop),
        Service::Auth => tests::user::sign_in(&alice.rest, &alice.email, tests::user::PASSWORD)
            .await
            .map(drop),
        Service::Chat => alice
            .write(bob.id, "hello", Uuid::new_v4())
            .await?
            .expect(201)
            .map(drop),
        Service::Gateway => Ok(()),
    }
}

/// Waits until so many statements wait for a lock.
async fn eventually_waiting(database: &PgPool, wait: &Wait) -> Result<()> {
    const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1";
    eventually(
        "requests wait for the table",
        Duration::from_secs(20),
        async || {
            let waiting: i64 = sqlx::query_scalar(WAITING)
                .bind(wait.statements)
                .fetch_one(database)
                .await?;
            ensure!(usize::try_from(waiting)? >= wait.requests, "{waiting} wait");
            Ok(())
        },
    )
    .await
}

/// It has heard the signal.
fn is_draining(world: &TestWorld, service: Service) -> Result<()> {
    let log = std::fs::read_to_string(world.local().log_path(service, 0)?)?;
    ensure!(log.contains("draining"));
    Ok(())
}

#[test]
fn with_a_second_instance_clients_see_nothing() -> Result<()> {
    promise(async {
        let world = TestWorld::start(options(2)).await?;
        let (alice, bob) = (world.user("Alice", 100_000).await?, world.user("Bob", 0).await?);
        let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let load = try_join_all((0..8).map(async |_| {
            while !done.load(Ordering::Relaxed) {
                alice.one_of_each(&bob).await?;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
        let roll = async {
            for service in [Service::Auth, Service::Account, Service::Transfer, Service::Chat] {
                for index in 0..2 {
                    let process = world.instance(service, index)?;
                    more_answers(&answered).await?;
                    stops(process).await?;
                    more_answers(&answered).await?;
                    process.restart().await?;
                }
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        tokio::try_join!(load, roll)?;
        Ok(())
    })
}

/// The load goes on: some more requests begin and end.
async fn more_answers(answered: &AtomicUsize) -> Result<()> {
    let before = answered.load(Ordering::Relaxed);
    eventually("requests are answered", Duration::from_mins(1), async || {
        ensure!(answered.load(Ordering::Relaxed) >= before + 16);
        Ok(())
    })
    .await
}

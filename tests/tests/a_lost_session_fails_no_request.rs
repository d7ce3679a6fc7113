//! A session with the database that is cut, in the middle of a request or between two, fails no request: what reads is read again, and what
//! writes is found by its id or written. So a router or a leader that is replaced is not noticed by users.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use sqlx::PgPool;
use tests::{Service, TestWorld, User, eventually, promise, user::sign_in, world::Options};
use uuid::Uuid;

const SERVICES: [Service; 4] = [Service::Auth, Service::Account, Service::Transfer, Service::Chat];
const CLIENTS: usize = 4;
/// How often all sessions of a service are cut.
const CUTS: usize = 4;

#[test]
fn however_often_all_are_cut() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 100_000).await?, world.user("Bob", 0).await?);
        let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
        let clients = try_join_all((0..CLIENTS).map(async |_| {
            while !done.load(Ordering::Relaxed) {
                everything(&alice, &bob).await?;
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        }));
        let cuts = async {
            for _ in 0..CUTS {
                for service in SERVICES {
                    // some requests are under way, and some sessions rest
                    let before = rounds.load(Ordering::Relaxed);
                    eventually("requests go on", Duration::from_secs(30), async || {
                        ensure!(rounds.load(Ordering::Relaxed) > before + CLIENTS);
                        Ok(())
                    })
                    .await?;
                    let cut = cut(&world.database(service).await?).await?;
                    ensure!(cut > 0, "{} has no session", service.name());
                }
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        tokio::try_join!(clients, cuts)?;
        // nothing was done twice either
        let paid = i64::try_from(rounds.load(Ordering::Relaxed))?;
        world.balances(&[(&alice, 100_000 - paid), (&bob, paid)]).await
    })
}

/// What users do, at every service; an error if they would notice anything.
async fn everything(alice: &User, bob: &User) -> Result<()> {
    sign_in(&alice.rest, &alice.email, tests::user::PASSWORD).await?;
    alice.one_of_each(bob).await?;
    alice.messages(bob.id).await?;
    alice.rest.get("/api/accounts").await?.expect(200)?;
    let new = User::sign_up(&alice.rest, "Carol").await?;
    // chat does not know the new one
    new.write(bob.id, "hello", Uuid::new_v4())
        .await?
        .expect(201)
        .map(drop)
}

/// Cuts the sessions that requests use; how many. Those of the relays have other names.
async fn cut(database: &PgPool) -> Result<usize> {
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE datname = current_database() AND application_name LIKE 'kontor-%'";
    Ok(sqlx::query(cut).fetch_all(database).await?.len())
}

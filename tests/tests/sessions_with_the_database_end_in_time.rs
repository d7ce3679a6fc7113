//! No session with the database lasts longer than it is meant to, busy ones and the ledger's own among them, and no request
//! notices. So a router in front of PostgreSQL can be replaced: it waits for the sessions through it, and cuts none.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use sqlx::PgPool;
use tests::{Service, TestWorld, eventually, promise, world::Options};

const SERVICES: [Service; 4] = [Service::Auth, Service::Account, Service::Transfer, Service::Chat];
/// The shortest that can be set, in seconds.
const LIFETIME: &str = "5";

#[test]
fn while_requests_go_on() -> Result<()> {
    promise(async {
        let setting = |service| {
            (
                Some(service),
                "KONTOR_DATABASE_SESSION_SECONDS",
                LIFETIME.to_owned(),
            )
        };
        let world = TestWorld::start(Options {
            settings: SERVICES.map(setting).to_vec(),
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 100_000).await?, world.user("Bob", 0).await?);
        let done = AtomicBool::new(false);
        let load = try_join_all((0..4).map(async |_| {
            while !done.load(Ordering::Relaxed) {
                alice.one_of_each(&bob).await?;
            }
            anyhow::Ok(())
        }));
        let look = async {
            for service in SERVICES {
                let database = world.database(service).await?;
                let first = eventually("it has sessions", Duration::from_secs(20), async || {
                    let sessions = sessions(&database).await?;
                    ensure!(!sessions.is_empty());
                    Ok(sessions)
                })
                .await?;
                let what = format!("the first sessions of {} end", service.name());
                eventually(&what, Duration::from_mins(1), async || {
                    let now = sessions(&database).await?;
                    let left = now.iter().filter(|pid| first.contains(pid)).count();
                    ensure!(left == 0 && !now.is_empty(), "{left} of {} are left", first.len());
                    Ok(())
                })
                .await?;
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(())
        };
        tokio::try_join!(load, look).map(drop)
    })
}

/// The sessions that requests use. Those of the relays have other names: to be cut costs them a moment, and nobody else.
async fn sessions(database: &PgPool) -> Result<Vec<i32>> {
    let sessions = "SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name LIKE 'kontor-%'";
    Ok(sqlx::query_scalar(sessions).fetch_all(database).await?)
}

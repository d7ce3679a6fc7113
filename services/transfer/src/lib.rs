//! The ledger: accounts, and the transfers between them, exact and never overspent.
//!
//! `rpc` (requests and answers) → `app` (use cases) → `domain` (the rules); `store` keeps it all in PostgreSQL.

pub mod app;
pub mod config;
pub mod domain;
pub mod events;
pub mod rpc;
pub mod store;

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::rpc::server::{Routes, serve};
use app::{
    chain::Signer,
    engine::{self, Engine},
    expiry::Expiry,
    ledger::Ledger,
    reads::Reads,
    reconcile::Reconciler,
    schedules::Schedules,
    watch::Watch,
};
use chrono::{DateTime, Utc};
pub use config::Config;
use lifecycle::{Failure, Lifecycle};
use proto::transfer::v1::{
    ledger_account_service_server::LedgerAccountServiceServer,
    ledger_admin_service_server::LedgerAdminServiceServer, ledger_service_server::LedgerServiceServer,
    schedule_service_server::ScheduleServiceServer, transfer_service_server::TransferServiceServer,
};
use secrecy::ExposeSecret as _;
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;

/// The schema of the ledger's database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// The longest request, in bytes: as many actions as a batch may have, with 1 KiB for each.
const LONGEST_REQUEST: usize = engine::MAX_BATCH * 1024;

/// How long an occurrence of a schedule is one replica's. Twice as long as an attempt takes when the database is slow: another
/// replica takes over only from a dead one.
const CLAIM: Duration = Duration::from_secs(30);

/// Watchers of accounts at one time; one takes some kilobytes, and a part of one look at all of them.
const WATCHERS: usize = 4_096;

/// Serves the ledger on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let pool = postgres::connect(&config.database).await?;
        postgres::migrate(&pool, &MIGRATOR).await?;
        let signer = Signer::new(config.ledger_key.expose_secret().as_bytes());
        let store = store::Postgres::new(pool.clone(), signer.clone());
        let relay = events::Relay::start(&pool, &config.events, &lifecycle);
        let watch = Watch::start(store.clone(), WATCHERS, &lifecycle);
        let watching = Arc::clone(&watch);
        reconcile(store.clone(), &config, &lifecycle);
        let engine = Engine::start(
            store.clone(),
            engine::Config {
                queue: config.queue,
                large_batch: config.large_batch,
                clock,
            },
            move |batch| {
                watching.committed(&batch.rows);
                relay.committed(batch);
            },
            &lifecycle,
        );
        let reads = Arc::new(Reads::start(store.clone(), &lifecycle));
        let ledger = Arc::new(Ledger::new(store.clone(), engine.clone()));
        let accounts = rpc::Accounts::new(store.clone(), Arc::clone(&reads), watch, lifecycle.clone());
        let admin = rpc::Admin::new(store.clone(), signer.clone(), lifecycle.clone());
        let schedules = keep_time(store, engine, signer, &ledger, &lifecycle);
        let transfers = rpc::Transfers::new(Arc::clone(&ledger), Arc::clone(&reads), lifecycle.clone());
        let routes = Routes::default()
            .with(LedgerAccountServiceServer::new(accounts))
            .with(TransferServiceServer::new(transfers).max_decoding_message_size(LONGEST_REQUEST))
            .with(ScheduleServiceServer::new(rpc::Schedules::new(schedules)))
            .with(LedgerAdminServiceServer::new(admin))
            .with(LedgerServiceServer::new(rpc::Internal::new(ledger, reads)));
        let health = routes.health();
        postgres::watch_health(&pool, &lifecycle, move |up| {
            let health = health.clone();
            async move { health.set_ready(up).await }
        });
        serve(listener, routes, &config.server, &lifecycle).await?;
        pool.close().await;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    lifecycle.finish(serving).await
}

/// Starts what happens by the clock: pending transfers end, planned ones are made.
fn keep_time(
    store: store::Postgres,
    engine: Engine,
    signer: Signer,
    ledger: &Arc<Ledger<store::Postgres>>,
    lifecycle: &Lifecycle,
) -> Arc<Schedules<store::Postgres, store::Postgres>> {
    let expiry = Expiry::new(store.clone(), engine, signer, Arc::new(clock));
    let until = lifecycle.clone();
    lifecycle.spawn("expiry", async move { expiry.run(&until).await });
    let schedules = Arc::new(Schedules::new(store, Arc::clone(ledger), Arc::new(clock), CLAIM));
    let (at_work, until) = (Arc::clone(&schedules), lifecycle.clone());
    lifecycle.spawn("scheduler", async move { at_work.run(&until).await });
    schedules
}

/// Starts what compares the balances with the journal.
fn reconcile(store: store::Postgres, config: &Config, lifecycle: &Lifecycle) {
    let drifts = events::Drifts::new(config.events.clone());
    let reconciler = Reconciler::new(store, drifts, config.reconcile, Arc::new(clock));
    let until = lifecycle.clone();
    lifecycle.spawn("reconciler", async move { reconciler.run(&until).await });
}

fn clock() -> DateTime<Utc> {
    SystemTime::now().into()
}

//! The ledger: accounts, and the transfers between them, exact and never overspent.
//!
//! `rpc` (requests and answers) → `app` (use cases) → `domain` (the rules); `store` keeps it all in PostgreSQL.

pub mod app;
pub mod config;
pub mod domain;
pub mod rpc;
pub mod store;

use std::{error::Error, sync::Arc};

use ::rpc::server::{Routes, serve};
pub use config::Config;
use lifecycle::{Failure, Lifecycle};
use proto::transfer::v1::{
    ledger_service_server::LedgerServiceServer, transfer_service_server::TransferServiceServer,
};
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;

/// The schema of the ledger's database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Serves the ledger on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let pool = postgres::connect(&config.database).await?;
        postgres::migrate(&pool, &MIGRATOR).await?;
        let ledger = Arc::new(app::Ledger::new(store::Postgres::new(pool.clone())));
        let routes = Routes::default()
            .with(TransferServiceServer::from_arc(Arc::new(rpc::Handler::new(
                Arc::clone(&ledger),
            ))))
            .with(LedgerServiceServer::from_arc(Arc::new(rpc::Handler::new(ledger))));
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

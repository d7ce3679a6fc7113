//! Users: who they are. Signing up is a saga over auth and transfer.
//!
//! `rpc` (requests and answers) → `app` (use cases) → `domain` (the rules); `store`, `events` and `clients` do what `app`
//! needs.

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod rpc;
pub mod store;

use std::{error::Error, sync::Arc};

use ::events::Relay;
use ::rpc::server::{Routes, serve};
use channel::{Channel, Stack};
pub use config::Config;
use lifecycle::{Failure, Lifecycle};
use proto::account::v1::{
    account_service_server::AccountServiceServer, directory_service_server::DirectoryServiceServer,
};
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;

/// The schema of the users' database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Serves users on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let pool = postgres::connect(&config.database).await?;
        postgres::migrate(&pool, &MIGRATOR).await?;
        let relay = Relay::start(&pool, &config.events, &lifecycle);
        let stack = |name, addresses| {
            Stack::new(
                Channel::new(name, addresses, config.server.tls.clone(), &lifecycle),
                config.server.key.clone(),
                "account",
            )
        };
        let users = Arc::new(app::Users::new(
            store::Postgres::new(pool.clone(), relay),
            clients::Auth::new(stack("auth", config.auth)),
            clients::Transfer::new(stack("transfer", config.transfer)),
        ));
        let (sweeping, until) = (Arc::clone(&users), lifecycle.clone());
        lifecycle.spawn("sign-up sweeper", async move { sweeping.sweep(&until).await });
        let routes = Routes::default()
            .with(AccountServiceServer::from_arc(Arc::new(rpc::Handler::new(
                Arc::clone(&users),
            ))))
            .with(DirectoryServiceServer::from_arc(Arc::new(rpc::Handler::new(
                users,
            ))));
        let health = routes.health();
        postgres::watch_health(&pool, &lifecycle, move |up| {
            let health = health.clone();
            async move { health.set_ready(up).await }
        });
        serve(listener, routes, &config.server, &lifecycle).await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    lifecycle.finish(serving).await
}

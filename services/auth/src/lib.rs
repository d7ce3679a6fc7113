//! Sign-in and sessions.
//!
//! `rpc` (requests and answers) → `app` (use cases) → `domain` (the rules); `store` keeps credentials and sessions in
//! PostgreSQL, `session_cache` copies of sessions in Redis, `passwords` does the slow work, `tasks` runs beside the requests.

pub mod app;
pub mod config;
pub mod domain;
pub mod passwords;
pub mod rpc;
pub mod session_cache;
pub mod store;
pub mod tasks;

use std::{error::Error, sync::Arc};

use ::rpc::server::{Routes, serve};
pub use config::Config;
use lifecycle::{Failure, Lifecycle};
use proto::auth::v1::{
    auth_service_server::AuthServiceServer, credential_service_server::CredentialServiceServer,
    session_service_server::SessionServiceServer,
};
use sqlx::migrate::Migrator;
use tokio::net::TcpListener;

/// The schema of the database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Serves on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let pool = postgres::connect(&config.database).await?;
        postgres::migrate(&pool, &MIGRATOR).await?;
        let auth = Arc::new(app::Auth {
            store: store::Postgres::new(pool.clone()),
            cache: session_cache::Redis::new(cache::Cache::connect(&config.cache)),
            passwords: passwords::Argon2id::new(),
            clock: app::SystemClock,
            session_lifetime: config.session_lifetime,
            revocations: tasks::revocations(&lifecycle, config.cache),
        });
        tasks::sweep(&lifecycle, Arc::clone(&auth));
        let handler = Arc::new(rpc::Handler::new(auth));
        let routes = Routes::default()
            .with(AuthServiceServer::from_arc(Arc::clone(&handler)))
            .with(CredentialServiceServer::from_arc(Arc::clone(&handler)))
            .with(SessionServiceServer::from_arc(handler));
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

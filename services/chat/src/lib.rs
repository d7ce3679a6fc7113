//! Chat: rooms, messages, and their delivery to subscribers.
//!
//! `rpc` (requests and answers) → `app` (use cases, subscriptions) → `domain` (the rules); `store` keeps it all in PostgreSQL,
//! `events` tells and hears through Kafka, `clients` asks account.
//!
//! A message's way: `rpc` → `app` → one transaction in `store` (message and outbox row) → relay → Kafka → every instance →
//! `app::Hub` → the subscriptions that follow its room.

pub mod app;
pub mod clients;
pub mod config;
pub mod domain;
pub mod events;
pub mod metrics;
pub mod rpc;
pub mod store;
mod wire;

use std::{error::Error, sync::Arc};

use ::events::{
    Relay,
    consume::{Broadcast, Group},
    inbox,
};
use ::rpc::server::{Health, Routes, serve};
use channel::{Channel, Stack};
pub use config::Config;
use lifecycle::{Failure, Lifecycle};
use proto::chat::v1::chat_service_server::ChatServiceServer;
use sqlx::{PgPool, migrate::Migrator};
use tokio::{net::TcpListener, sync::watch};

/// The schema of chat's database.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Serves chat on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let pool = postgres::connect(&config.database).await?;
        postgres::migrate(&pool, &MIGRATOR).await?;
        let kafka = &config.kafka;
        let relay = Relay::start(&pool, kafka, &lifecycle);
        inbox::prune_old(pool.clone(), &lifecycle);
        let metrics = metrics::Metrics::new();
        let hub = Arc::new(app::Hub::new(config.limits, metrics.clone()));
        let to_hub = events::incoming::to_hub(hub.clone(), metrics);
        let delivery = Broadcast::start("chat-delivery", events::MESSAGES, kafka, &lifecycle, to_hub);
        let projection = store::Projection::new(pool.clone());
        Group::start("chat-users", events::USERS, kafka, &lifecycle, projection);
        let account = Channel::new("account", config.account, config.server.tls.clone(), &lifecycle);
        let account = clients::Account::new(Stack::new(account, config.server.key.clone(), "chat"));
        let store = store::Postgres::new(pool.clone(), relay);
        let chat = Arc::new(app::Chat::new(store, account, hub, lifecycle.clone()));
        let routes = Routes::default().with(ChatServiceServer::new(rpc::Handler::new(chat)));
        report_health(&pool, delivery.ready(), routes.health(), &lifecycle);
        serve(listener, routes, &config.server, &lifecycle).await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    lifecycle.finish(serving).await
}

/// Chat can answer when the database does, and messages reach its subscribers.
fn report_health(pool: &PgPool, mut hearing: watch::Receiver<bool>, health: Health, lifecycle: &Lifecycle) {
    let (sender, mut database) = watch::channel(false);
    postgres::watch_health(pool, lifecycle, move |up| {
        sender.send_replace(up);
        std::future::ready(())
    });
    let life = lifecycle.clone();
    lifecycle.spawn("health", async move {
        loop {
            let ready = *database.borrow_and_update() && *hearing.borrow_and_update();
            health.set_ready(ready).await;
            let changed = tokio::select! {
                () = life.draining() => return health.set_ready(false).await,
                changed = database.changed() => changed,
                changed = hearing.changed() => changed,
            };
            if changed.is_err() {
                // whoever told us is gone: the process is on its way out
                life.draining().await;
            }
        }
    });
}

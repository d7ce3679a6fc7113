//! The public door of kontor: one port for REST and gRPC, over HTTP/1.1 and HTTP/2.
//!
//! A request goes through `server` (connections) → `pipeline` (limit, id, trace, session, access, rate limit) → `grpc`
//! (frames are proxied) or `rest` (JSON is transcoded) → `upstream` (the services). `health` answers probes. Business rules
//! are none of its business.
#![warn(missing_docs)]

mod config;
mod grpc;
mod health;
mod limit;
mod pipeline;
mod proxies;
mod record;
mod request_id;
mod rest;
mod server;
mod session;
mod upstream;

use std::{error::Error, sync::Arc};

pub use config::{Addresses, Config};
use lifecycle::{Failure, Lifecycle};
use pipeline::Gateway;
pub use proxies::TrustedProxies;
use rpc::server::serve_probes;
use tokio::net::TcpListener;

/// Serves the gateway on `listener` until the lifecycle ends.
pub async fn run(config: Config, listener: TcpListener, lifecycle: Lifecycle) -> Result<(), Failure> {
    let serving = async {
        let gateway = Arc::new(Gateway::new(&config, &lifecycle)?);
        gateway.start(&lifecycle);
        if let Some(address) = config.server.health_listen {
            let health = Arc::clone(&gateway.health);
            let answer = move |request| {
                let health = Arc::clone(&health);
                async move { health.call_by_probe(request).await }
            };
            serve_probes(address, answer, &lifecycle).await?;
        }
        if let Some(public) = &config.public_tls {
            public.watch(&lifecycle);
        }
        server::serve(listener, gateway, config.public_tls, &lifecycle).await;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    lifecycle.finish(serving).await
}

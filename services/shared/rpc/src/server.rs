//! Serves tonic services: one stack, health, reflection, and an end that lets requests finish.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use lifecycle::Lifecycle;
use settings::{Invalid, Reader};
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::server::TcpIncoming,
};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{caller::Key, guard::Guard};

/// The largest request that a service reads, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Concurrent streams that one connection may open.
const MAX_STREAMS: u32 = 1_024;
/// How often an idle connection is asked whether its peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the peer may take to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How to serve.
#[derive(Clone)]
pub struct Config {
    /// The address to serve.
    pub listen: SocketAddr,
    /// Requests in flight beyond which new ones are refused at once with RESOURCE_EXHAUSTED. Streams do not count.
    pub max_in_flight: usize,
    /// The deadline of a request that names none.
    pub default_deadline: Duration,
    /// The longest deadline that a request may ask for.
    pub max_deadline: Duration,
    /// The time that requests in flight have at the end.
    pub grace: Duration,
    /// Signs and verifies who calls.
    pub key: Key,
}

impl Config {
    /// Reads the settings that every server has.
    pub fn read(reader: &mut Reader, default_listen: SocketAddr) -> Result<Self, Invalid> {
        let listen = reader.or("KONTOR_LISTEN", "address to serve", default_listen);
        let max_in_flight = reader.in_range(
            "KONTOR_MAX_IN_FLIGHT",
            "requests in flight before new ones are refused",
            1..=1_000_000,
            1_024,
        );
        let default_deadline = reader.millis(
            "KONTOR_DEADLINE_MS",
            "deadline of a request that names none",
            1..=30_000,
            5_000,
        );
        let grace = lifecycle::grace(reader);
        let key = Key::read(reader);
        Ok(Self {
            listen: listen?,
            max_in_flight: max_in_flight?,
            default_deadline: default_deadline?,
            max_deadline: Duration::from_secs(30),
            grace: grace?,
            key: key?,
        })
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server failed.
    #[error("the server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The reflection service cannot be built.
    #[error("the descriptors cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Says whether the services can answer, by `grpc.health.v1`.
#[derive(Clone)]
pub struct Health {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Health {
    /// Reports all services of this server, and the server itself (the empty name), as serving or not.
    pub async fn set_ready(&self, ready: bool) {
        let status = if ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.reporter.set_service_status("", status).await;
        for name in &self.names {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}

/// The services of one server. Health and reflection (v1 and v1alpha) come with them; not ready until
/// [`Health::set_ready`] says so.
pub struct Routes {
    routes: tonic::service::Routes,
    health: Health,
}

impl Default for Routes {
    fn default() -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names = vec!["grpc.health.v1.Health"];
        Self {
            routes: tonic::service::Routes::new(health),
            health: Health { reporter, names },
        }
    }
}

impl Routes {
    /// Adds a service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.health.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Adds reflection, which lists the services of this server and knows the details of errors.
    fn with_reflection(self) -> Result<tonic::service::Routes, Error> {
        let builder = || {
            let builder = tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            self.health
                .names
                .iter()
                .fold(builder, |builder, name| builder.with_service_name(*name))
        };
        let (v1, v1alpha) = (builder().build_v1()?, builder().build_v1alpha()?);
        Ok(self.routes.add_service(v1).add_service(v1alpha))
    }

    /// The handle that reports health, once all services are added.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

/// Serves until the lifecycle drains and the requests in flight are answered.
///
/// On draining, health turns to NOT_SERVING first, then clients get a GOAWAY and no new connection is taken.
pub async fn serve(
    listener: TcpListener,
    routes: Routes,
    config: &Config,
    lifecycle: &Lifecycle,
) -> Result<(), Error> {
    let health = routes.health();
    // unknown until the service says otherwise: a service that is not ready is not "unknown"
    for name in &health.names {
        health
            .reporter
            .set_service_status(*name, ServingStatus::NotServing)
            .await;
    }
    let guard = Guard::new(
        config.key.clone(),
        config.max_in_flight,
        config.default_deadline,
        config.max_deadline,
    );
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let lifecycle = lifecycle.clone();
    tonic::transport::Server::builder()
        .max_concurrent_streams(Some(MAX_STREAMS))
        .http2_max_header_list_size(Some(MAX_HEADER_LIST_BYTES))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .layer(guard)
        .add_routes(routes.with_reflection()?)
        .serve_with_incoming_shutdown(incoming, async move {
            lifecycle.draining().await;
            health.set_ready(false).await;
        })
        .await?;
    Ok(())
}

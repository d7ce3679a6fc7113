//! Serves tonic services: one stack, health, reflection, and an end that lets requests finish.

use std::{
    collections::HashMap, convert::Infallible, io, net::SocketAddr, num::NonZeroUsize, pin::pin, sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, future::BoxFuture};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lifecycle::Lifecycle;
use settings::{Invalid, Reader};
use tls::{Mutual, Stream};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::sleep,
};
use tonic::{Status, body::Body, codegen::Service, server::NamedService};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{caller::Key, gather::gather, guard::Guard};

/// The largest request that a service reads, in bytes.
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
/// Concurrent streams that one connection may open.
const MAX_STREAMS: u32 = 1_024;
/// How often an idle connection is asked whether its peer is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long the peer may take to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

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
    /// The address of a port that answers `grpc.health.v1` only, always in clear text.
    pub health_listen: Option<SocketAddr>,
    /// TLS with the other services; without it all talk in clear text.
    pub tls: Option<Mutual>,
    /// Threads that run requests; none: as many as the CPU limit allows.
    pub workers: Option<NonZeroUsize>,
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
        let health_listen = reader.optional(
            "KONTOR_HEALTH_LISTEN",
            "address that answers health probes only, in clear text; kubelets have no certificate",
        );
        let tls = Mutual::read(reader);
        let workers = reader.worker_threads();
        Ok(Self {
            listen: listen?,
            max_in_flight: max_in_flight?,
            default_deadline: default_deadline?,
            max_deadline: Duration::from_secs(30),
            grace: grace?,
            key: key?,
            health_listen: health_listen?,
            tls: tls?,
            workers: workers?,
        })
    }
}

/// Why serving ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reflection service cannot be built.
    #[error("the descriptors cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The port of the health probes cannot be opened.
    #[error("cannot serve health at {address}: {source}")]
    Probes {
        /// The address of the settings.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
}

/// The name under which health says that the process lives: whatever becomes of those that it needs, and while it drains.
pub const LIVE: &str = "live";

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

/// Answers the requests of one service.
type Handler = Box<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// The services of one server, found by their names.
#[derive(Default)]
pub(crate) struct Services(HashMap<&'static str, Handler>);

impl Services {
    fn add<S>(&mut self, service: S)
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        let handler = move |request| -> BoxFuture<'static, Response<Body>> {
            // the services that tonic generates are always ready
            Box::pin(
                service
                    .clone()
                    .call(request)
                    .map(|answer| answer.unwrap_or_else(|never| match never {})),
            )
        };
        self.0.insert(S::NAME, Box::new(handler));
    }

    /// Answers a request; one for a service that is not here is UNIMPLEMENTED.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let name = request.uri().path().strip_prefix('/');
        let name = name.and_then(|path| path.split_once('/')).map(|(name, _)| name);
        match name.and_then(|name| self.0.get(name)) {
            Some(handler) => handler(request).await,
            None => Status::unimplemented("there is no such service").into_http(),
        }
    }
}

/// The services of one server. Health and reflection (v1 and v1alpha) come with them; not ready until
/// [`Health::set_ready`] says so.
pub struct Routes {
    services: Services,
    health: Health,
    /// Health alone, for the port of the probes.
    probes: Services,
}

impl Default for Routes {
    fn default() -> Self {
        let (reporter, health) = tonic_health::server::health_reporter();
        let names = vec!["grpc.health.v1.Health"];
        let (mut services, mut probes) = (Services::default(), Services::default());
        services.add(health.clone());
        probes.add(health);
        Self {
            services,
            health: Health { reporter, names },
            probes,
        }
    }
}

impl Routes {
    /// Adds a service.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.health.names.push(S::NAME);
        self.services.add(service);
        self
    }

    /// Adds reflection, which lists the services of this server and knows the details of errors.
    fn with_reflection(mut self) -> Result<Services, Error> {
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
        self.services.add(v1);
        self.services.add(v1alpha);
        Ok(self.services)
    }

    /// The handle that reports health, once all services are added.
    pub fn health(&self) -> Health {
        self.health.clone()
    }
}

/// Serves until the lifecycle drains and the requests in flight are answered.
///
/// On draining, health turns to NOT_SERVING, clients get a GOAWAY, and no new connection is taken.
pub async fn serve(
    listener: TcpListener,
    mut routes: Routes,
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
    health
        .reporter
        .set_service_status(LIVE, ServingStatus::Serving)
        .await;
    if let Some(address) = config.health_listen {
        let probes = Arc::new(std::mem::take(&mut routes.probes));
        let answer = move |request| {
            let probes = Arc::clone(&probes);
            async move { probes.call(request).await }
        };
        serve_probes(address, answer, lifecycle).await?;
    }
    let guard = Arc::new(Guard::new(
        routes.with_reflection()?,
        config.key.clone(),
        config.max_in_flight,
        config.default_deadline,
        config.max_deadline,
    ));
    // connections are told to leave when health has said so
    let (leave, leaving) = watch::channel(());
    // closed when the last connection has dropped its end
    let (open, mut closed) = mpsc::channel::<Infallible>(1);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = lifecycle.draining() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (guard, tls) = (Arc::clone(&guard), config.tls.clone());
                let (leaving, open) = (leaving.clone(), open.clone());
                lifecycle.spawn_request_scoped("connection", async move {
                    let _open = open;
                    if let Some(stream) = secured(stream, peer, tls).await {
                        let answer = move |request| {
                            let guard = Arc::clone(&guard);
                            async move { guard.call(request).await }
                        };
                        connection(stream, answer, leaving).await;
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop((listener, open));
    health.set_ready(false).await;
    drop(leave);
    let _ = closed.recv().await;
    Ok(())
}

/// Opens a port in clear text for health probes, until the lifecycle stops: longer than the server takes connections.
pub async fn serve_probes<A, F>(address: SocketAddr, answer: A, lifecycle: &Lifecycle) -> Result<(), Error>
where
    A: Fn(Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Probes { address, source })?;
    tracing::info!(server.address = %address, "listening for health probes");
    let life = lifecycle.clone();
    // nobody tells them to leave
    let (stay, staying) = watch::channel(());
    lifecycle.spawn_until_stopping("probes", async move {
        let _stay = stay;
        loop {
            match accept(&listener).await {
                Ok((stream, _)) => {
                    let connection = connection(Stream::Plain(stream), answer.clone(), staying.clone());
                    life.spawn_until_stopping("probe", connection);
                }
                Err(_) => sleep(ACCEPT_PAUSE).await,
            }
        }
    });
    Ok(())
}

async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    // without it, small answers wait for the client's acknowledgement of the one before
    stream.set_nodelay(true)?;
    Ok((stream, peer))
}

/// The connection as it is served; none when the client is not one of the other services.
async fn secured(stream: TcpStream, peer: SocketAddr, tls: Option<Mutual>) -> Option<Stream> {
    let Some(tls) = tls else {
        return Some(Stream::Plain(stream));
    };
    match tls.accept(stream).await {
        Ok(stream) => Some(stream),
        // somebody has only looked whether the port is open
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
        Err(error) => {
            tracing::warn!(client.address = %peer, %error, "refused a connection: no TLS with the client");
            None
        }
    }
}

/// Serves one connection to its end; draining tells the client to open another one elsewhere, and lets its requests finish.
async fn connection<A, F>(stream: Stream, answer: A, mut leaving: watch::Receiver<()>)
where
    A: Fn(Request<Body>) -> F,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request.map(Body::new));
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_LIST_BYTES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = gather(connection.as_mut()) => ended,
        _ = leaving.changed() => {
            connection.as_mut().graceful_shutdown();
            gather(connection).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}

//! Calls to other services: a balanced [`Channel`], and the [`Stack`] that adds deadline, trace and identity.
#![warn(missing_docs)]

mod balance;
mod connect;
mod replay;
mod unary;

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use http_body::{Body as HttpBody, Frame};
use hyper::body::Incoming;
use lifecycle::Lifecycle;
use tls::Mutual;
use tonic::{Status, body::Body};
use tower::Service;
use tracing::{Instrument as _, Span, field};

use rpc::{
    Caller, Deadline,
    caller::{self, Key},
    context::{self, REQUEST_ID, write_timeout},
    error,
};

pub use crate::unary::Answer;
use crate::{
    balance::{Flight, Instances, Tries},
    connect::Connector,
    unary::Failed,
};

/// The deadline of a call that inherits none.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);
/// How often host names are resolved anew: a new instance gets its part of the calls so much later.
const RESOLVE_EVERY: Duration = Duration::from_secs(2);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A balanced channel to all instances of one service. Cheap to clone; connects when it is used, and from then on to new instances at
/// once.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    name: &'static str,
    scheme: Scheme,
    authority: Authority,
    instances: Instances,
    lifecycle: Lifecycle,
}

impl Channel {
    /// A channel to the instances at `addresses` (`host:port`). A host name stands for all its addresses, and is resolved
    /// again every few seconds, by a task of `lifecycle`.
    ///
    /// With `tls`, each instance must prove that it is the service of this name; without, they are talked to in clear text.
    pub fn new(
        name: &'static str,
        addresses: Vec<String>,
        tls: Option<Mutual>,
        lifecycle: &Lifecycle,
    ) -> Self {
        let connector = Connector { service: name, tls };
        let inner = Arc::new(Inner {
            name,
            scheme: connector.scheme(),
            authority: Authority::from_static(name),
            instances: Instances::new(connector),
            lifecycle: lifecycle.clone(),
        });
        let fixed: Result<Vec<SocketAddr>, _> = addresses.iter().map(|address| address.parse()).collect();
        if let Ok(fixed) = fixed {
            inner.instances.replace(&fixed);
        } else {
            lifecycle.spawn(
                "resolver",
                resolve(Arc::clone(&inner), addresses, lifecycle.clone()),
            );
        }
        Self(inner)
    }

    /// The service's name.
    pub fn name(&self) -> &'static str {
        self.0.name
    }

    /// Whether some instance takes a connection now.
    pub async fn is_reachable(&self) -> bool {
        for instance in self.0.instances.all().iter() {
            if instance.connection(&self.0.lifecycle).await.is_ok() {
                return true;
            }
        }
        false
    }

    /// Sends a request to one of the instances.
    ///
    /// The request goes to another instance only when it was certainly not processed: the connection was refused or had
    /// closed, or the instance drains and said so.
    /// Otherwise the error is UNAVAILABLE, and the outcome is unknown.
    pub async fn send(&self, mut request: Request<Body>) -> Result<Response<Body>, Status> {
        self.address(&mut request);
        let mut tries = Tries::default();
        while let Some(flight) = self.0.instances.pick(&tries) {
            let mut connection = match flight.instance().connection(&self.0.lifecycle).await {
                Ok(connection) => connection,
                Err(error) => {
                    tracing::debug!(%error, upstream = self.0.name, "cannot connect");
                    tries.refused(&flight);
                    continue;
                }
            };
            if connection.ready().await.is_err() {
                tries.lost();
                continue;
            }
            let (sent, copy) = replay::with_copy(request);
            match connection.try_send_request(sent).await {
                Ok(response) => {
                    return Ok(response.map(|body| {
                        Body::new(Tracked {
                            body,
                            _flight: flight,
                        })
                    }));
                }
                Err(mut failed) => {
                    let unsent = failed.take_message().is_some();
                    let again = if unsent || replay::is_unprocessed(failed.error()) {
                        copy.again()
                    } else {
                        None
                    };
                    let Some(again) = again else {
                        return Err(error::unavailable(&format_args!(
                            "{}: {}",
                            self.0.name,
                            failed.error()
                        )));
                    };
                    request = again;
                    tries.lost();
                }
            }
        }
        Err(unreachable())
    }

    /// Calls a method with one message, framed, and reads the whole answer, of at most `most` bytes. Like [`Channel::send`],
    /// at a fraction of its cost.
    pub async fn unary(
        &self,
        path: &'static str,
        headers: &HeaderMap,
        message: &Bytes,
        most: usize,
    ) -> Result<Answer, Status> {
        let mut tries = Tries::default();
        while let Some(flight) = self.0.instances.pick(&tries) {
            let (connection, live) = match flight.instance().unary(&self.0.lifecycle).await {
                Ok(connected) => connected,
                Err(error) => {
                    tracing::debug!(%error, upstream = self.0.name, "cannot connect");
                    tries.refused(&flight);
                    continue;
                }
            };
            let mut request = Request::new(());
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.uri(PathAndQuery::from_static(path));
            *request.version_mut() = http::Version::HTTP_2;
            *request.headers_mut() = headers.clone();
            let number = live.number();
            match live.call(request, message.clone(), most).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Unprocessed) => {
                    connection.lose(number);
                    tries.lost();
                }
                Err(Failed::Unknown(status)) => return Err(status),
            }
        }
        Err(unreachable())
    }

    fn uri(&self, path: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        parts.path_and_query = Some(path);
        // a URI with scheme, authority and path is always whole
        Uri::from_parts(parts).unwrap_or_default()
    }

    fn address(&self, request: &mut Request<Body>) {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        // a URI with scheme, authority and the path of a request is always whole
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = http::Version::HTTP_2;
    }
}

/// The reason of an UNAVAILABLE that says: no instance could be connected to, nothing was sent.
pub const UNREACHABLE: &str = "UPSTREAM_UNREACHABLE";

fn unreachable() -> Status {
    error::reject(
        tonic::Code::Unavailable,
        UNREACHABLE,
        "Temporarily unavailable; try again",
    )
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let channel = self.clone();
        Box::pin(async move { channel.send(request).await })
    }
}

async fn resolve(inner: Arc<Inner>, names: Vec<String>, lifecycle: Lifecycle) {
    loop {
        let mut found = Vec::new();
        for name in &names {
            match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host(name.as_str())).await {
                Ok(Ok(addresses)) => found.extend(addresses),
                Ok(Err(error)) => {
                    tracing::warn!(%error, upstream = inner.name, host = name, "cannot resolve");
                }
                Err(_) => tracing::warn!(upstream = inner.name, host = name, "resolving timed out"),
            }
        }
        found.sort_unstable();
        found.dedup();
        // a resolver that is away must not take away the instances that it named before
        if !found.is_empty() {
            follow(&inner, &found, &lifecycle);
        }
        let pause = if found.is_empty() {
            Duration::from_millis(500)
        } else {
            RESOLVE_EVERY
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = lifecycle.stopping() => return,
        }
    }
}

/// Takes the instances that are there now. Connections to a new one are opened at once: else, when the old ones leave, their requests would
/// all wait for them.
fn follow(inner: &Inner, found: &[SocketAddr], lifecycle: &Lifecycle) {
    let kinds = inner.instances.kinds();
    for new in inner.instances.replace(found) {
        let life = lifecycle.clone();
        lifecycle.spawn_until_stopping("first connections", async move { new.open(kinds, &life).await });
    }
}

/// An answer's body, which counts as in flight until it ends.
struct Tracked {
    body: Incoming,
    _flight: Flight,
}

impl HttpBody for Tracked {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body)
            .poll_frame(cx)
            .map_err(|error| error::unavailable(&format_args!("the answer broke off: {error}")))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A channel for calls from one service to another: gives each the deadline and the request id of the request in hand, the
/// trace, and the service's own signature.
#[derive(Clone)]
pub struct Stack {
    channel: Channel,
    key: Key,
    caller: Arc<Identity>,
}

struct Identity {
    issuer: &'static str,
    caller: Caller,
}

impl Stack {
    /// Calls over `channel` in the name of the service `issuer`.
    pub fn new(channel: Channel, key: Key, issuer: &'static str) -> Self {
        let caller = Caller::Service {
            name: issuer.to_owned(),
        };
        Self {
            channel,
            key,
            caller: Arc::new(Identity { issuer, caller }),
        }
    }

    /// The same channel, in the name of `caller`.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Self {
        let identity = Identity {
            issuer: self.caller.issuer,
            caller,
        };
        Self {
            channel: self.channel.clone(),
            key: self.key.clone(),
            caller: Arc::new(identity),
        }
    }
}

impl Service<Request<Body>> for Stack {
    type Response = Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Response<Body>, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let stack = self.clone();
        let context::Current { deadline, request_id } = context::current();
        let own = Deadline::after(DEFAULT_DEADLINE);
        let deadline = deadline.map_or(own, |outer| outer.min(own));
        let span = call_span(request.uri().path());
        Box::pin(
            async move {
                let remaining = deadline.remaining();
                if remaining.is_zero() {
                    return Err(error::late());
                }
                let signed = stack.key.sign(stack.caller.issuer, &stack.caller.caller);
                let signed = signed.map_err(|error| error::internal(&error))?;
                dress(request.headers_mut(), remaining, signed, request_id);
                let sent = tokio::time::timeout(remaining, stack.channel.send(request)).await;
                sent.unwrap_or_else(|_| Err(error::late())).inspect_err(note)
            }
            .instrument(span),
        )
    }
}

/// The span of a call to another service, as OpenTelemetry's conventions for RPC name it; none where nobody would see it.
pub fn call_span(path: &str) -> Span {
    if !telemetry::spans() {
        return Span::none();
    }
    // names come from the contracts, never from the caller
    let name = proto::method::by_path(path).map_or("unknown", |method| method.path.trim_start_matches('/'));
    tracing::info_span!(
        "call",
        otel.name = name,
        otel.kind = "client",
        rpc.system = "grpc",
        otel.status_code = field::Empty,
    )
}

/// Gives a request for another service its deadline, its signed caller, its request id, and the current trace.
pub fn dress(
    headers: &mut HeaderMap,
    timeout: Duration,
    signed: HeaderValue,
    request_id: Option<HeaderValue>,
) {
    write_timeout(headers, timeout);
    headers.insert(caller::HEADER, signed);
    if let Some(id) = request_id {
        headers.insert(REQUEST_ID, id);
    }
    telemetry::propagation::inject_metadata(headers);
}

fn note(_: &Status) {
    Span::current().record("otel.status_code", "ERROR");
}

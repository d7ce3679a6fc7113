//! What every request goes through, whatever its protocol: limits and deadline → id and trace → session → access →
//! rate limit. What comes then is `grpc`'s or `rest`'s.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use lifecycle::Lifecycle;
use opentelemetry::KeyValue;
use proto::method::{Access, Method};
use rpc::{Caller, context::REQUEST_ID, error};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status, body::Body};

use crate::{
    Config, grpc,
    health::Health,
    limit::{Decision, Limits},
    proxies::TrustedProxies,
    record::Metrics,
    request_id,
    rest::{self, Routes},
    session::{self, Cookies, Found, Presented, Sessions},
    upstream::{self, Upstreams},
};

/// Streams that may be open at the same time, over all connections.
const MAX_STREAMS: usize = 100_000;

/// Everything that requests share.
pub(crate) struct Gateway {
    pub routes: Routes,
    pub upstreams: Upstreams,
    pub sessions: Arc<Sessions>,
    pub cookies: Cookies,
    pub limits: Arc<Limits>,
    pub health: Arc<Health>,
    pub metrics: Metrics,
    pub lifecycle: Lifecycle,
    pub default_deadline: Duration,
    pub max_deadline: Duration,
    proxies: TrustedProxies,
    slots: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A request at the door.
pub(crate) struct Arrival {
    /// The client's, which is not the peer's behind a proxy.
    pub address: IpAddr,
    pub request_id: HeaderValue,
}

/// A request that may be forwarded.
pub(crate) struct Admitted {
    pub caller: Caller,
    /// The session came from a cookie, which browsers send whoever asks them to.
    pub by_cookie: bool,
    pub decision: Decision,
}

/// A request that may not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub status: Status,
    pub decision: Option<Decision>,
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self {
            status,
            decision: None,
        }
    }
}

impl Gateway {
    pub fn new(
        config: &Config,
        lifecycle: &Lifecycle,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let server = &config.server;
        let upstreams = Upstreams::new(&config.addresses, server, lifecycle);
        let sessions = Arc::new(Sessions::new(
            cache::Cache::connect(&config.cache),
            upstreams.auth(),
        ));
        Ok(Self {
            routes: Routes::from_contracts()?,
            health: Arc::new(Health::new(config.reflection)?),
            sessions,
            upstreams,
            cookies: Cookies {
                secure: config.cookie_secure,
            },
            limits: Arc::new(Limits::new(config.rate_per_second)),
            metrics: Metrics::new(),
            lifecycle: lifecycle.clone(),
            default_deadline: server.default_deadline,
            max_deadline: server.max_deadline,
            proxies: config.trusted_proxies.clone(),
            slots: Arc::new(Semaphore::new(server.max_in_flight)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        })
    }

    /// Starts the background tasks.
    pub fn start(&self, lifecycle: &Lifecycle) {
        let limits = Arc::clone(&self.limits);
        let owner = lifecycle.clone();
        lifecycle.spawn("rate limit sweeper", async move { limits.sweep(owner).await });
        let sessions = Arc::clone(&self.sessions);
        lifecycle.spawn("session changes", sessions.follow_changes(lifecycle.clone()));
        let sessions = Arc::clone(&self.sessions);
        lifecycle.spawn("session watch", sessions.look_after_streams(lifecycle.clone()));
        let (health, channels, owner) = (
            Arc::clone(&self.health),
            self.upstreams.channels().to_vec(),
            lifecycle.clone(),
        );
        lifecycle.spawn("readiness", async move { health.watch(channels, owner).await });
    }

    /// Answers a request.
    pub async fn handle(self: &Arc<Self>, peer: IpAddr, request: Request<Incoming>) -> Response<Body> {
        let arrival = Arrival {
            address: self.proxies.client(peer, request.headers()),
            request_id: request_id::of(request.headers()),
        };
        let mut response = if upstream::is_grpc(request.headers()) {
            grpc::handle(self, &arrival, request).await
        } else {
            rest::handle(self, &arrival, request).await
        };
        response.headers_mut().insert(REQUEST_ID, arrival.request_id);
        response
    }

    /// Takes a place among the requests in flight. Streams last, and have places of their own.
    pub fn enter(&self, method: &Method) -> Result<OwnedSemaphorePermit, Status> {
        self.place(if is_streaming(method) {
            &self.streams
        } else {
            &self.slots
        })
    }

    /// Takes a place among the streams.
    pub fn enter_stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        self.place(&self.streams)
    }

    fn place(&self, places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(places).try_acquire_owned().map_err(|_| {
            self.metrics.shed.add(1, &[]);
            error::overloaded()
        })
    }

    /// Finds out who calls, whether they may, and whether they do so too often.
    pub async fn admit(
        &self,
        arrival: &Arrival,
        method: &'static Method,
        headers: &HeaderMap,
    ) -> Result<Admitted, Refused> {
        let presented = session::presented(headers);
        let by_cookie = presented.is_some_and(|presented| presented.by_cookie);
        let caller = match self.identify(method.access, presented).await {
            Ok(caller) => caller,
            // who guesses tokens pays for it from the address's own bucket
            Err(status) => {
                let decision = self.charge(method, &Caller::Anonymous, arrival.address)?;
                return Err(Refused {
                    status,
                    decision: Some(decision),
                });
            }
        };
        // before the access is looked at: to be refused is not free of charge
        let decision = self.charge(method, &caller, arrival.address)?;
        check_access(method.access, &caller).map_err(|status| Refused {
            status,
            decision: Some(decision),
        })?;
        Ok(Admitted {
            caller,
            by_cookie,
            decision,
        })
    }

    /// Who calls. A method for everyone takes a caller without a usable session as anonymous; the others do not.
    async fn identify(&self, access: Access, presented: Option<Presented<'_>>) -> Result<Caller, Status> {
        let Some(presented) = presented else {
            return if access == Access::Public {
                Ok(Caller::Anonymous)
            } else {
                Err(error::unauthenticated())
            };
        };
        match self.sessions.caller(presented).await {
            Ok(caller) => Ok(caller),
            Err(_) if access == Access::Public => Ok(Caller::Anonymous),
            Err(Found::Unknown) => Err(error::reject(
                Code::Unavailable,
                "UNAVAILABLE",
                "Temporarily unavailable; try again",
            )),
            Err(Found::Invalid | Found::Session { .. }) => Err(error::reject(
                Code::Unauthenticated,
                "SESSION_INVALID",
                "Unauthorized",
            )),
        }
    }

    /// Takes what a method costs from the caller's bucket, or from the address's.
    pub fn charge(
        &self,
        method: &'static Method,
        caller: &Caller,
        address: IpAddr,
    ) -> Result<Decision, Refused> {
        let decision = self.limits.take(caller, address, method.cost);
        if decision.allowed {
            return Ok(decision);
        }
        self.metrics
            .rate_limited
            .add(1, &[KeyValue::new("method", method.path.as_str())]);
        Err(Refused {
            status: decision.refusal(),
            decision: Some(decision),
        })
    }
}

/// Whether an answer may last: it has no default deadline, and does not count as work in flight.
pub(crate) fn is_streaming(method: &Method) -> bool {
    method.descriptor.is_server_streaming()
}

fn check_access(access: Access, caller: &Caller) -> Result<(), Status> {
    match (access, caller) {
        (Access::Public, _)
        | (Access::User, Caller::User { .. })
        | (Access::Operator, Caller::User { operator: true, .. }) => Ok(()),
        (Access::Operator, Caller::User { .. }) => Err(error::forbidden()),
        // nobody outside is a service, and an INTERNAL method is not found in the first place
        (Access::User | Access::Operator, Caller::Anonymous | Caller::Service { .. })
        | (Access::Internal, _) => Err(error::unauthenticated()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_what_the_contract_says() {
        let user = |operator| Caller::User {
            user_id: 1,
            operator,
            session: None,
        };
        let code = |access, caller: &Caller| check_access(access, caller).map_err(|status| status.code());
        assert_eq!(code(Access::Public, &Caller::Anonymous), Ok(()));
        assert_eq!(code(Access::User, &Caller::Anonymous), Err(Code::Unauthenticated));
        assert_eq!(code(Access::User, &user(false)), Ok(()));
        assert_eq!(code(Access::Operator, &user(false)), Err(Code::PermissionDenied));
        assert_eq!(code(Access::Operator, &user(true)), Ok(()));
        assert_eq!(code(Access::Internal, &user(true)), Err(Code::Unauthenticated));
    }
}

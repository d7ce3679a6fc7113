//! Whether the gateway can answer, by HTTP and by `grpc.health.v1`; and what it shows of itself, by gRPC reflection.

mod reflection;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use channel::Channel;
use futures_util::{FutureExt as _, future::join_all};
use http::{HeaderValue, Request, Response, StatusCode, header};
use lifecycle::Lifecycle;
use proto::method::Method;
use rpc::server::LIVE;
use tokio::time::{sleep, timeout};
use tonic::{Status, body::Body, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceExt as _;

/// How often the upstreams are looked at, once they are there.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often they are looked at until they are there for the first time.
const CHECK_SOON: Duration = Duration::from_millis(100);
/// How long one look may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The paths of gRPC that the gateway serves itself.
const OWN: [&str; 2] = [HEALTH, "/grpc.reflection."];
const HEALTH: &str = "/grpc.health.v1.Health/";

/// The state of the gateway, and the services that tell it.
pub(crate) struct Health {
    state: Mutex<State>,
    reporter: HealthReporter,
    services: Vec<Told>,
    routes: Routes,
}

/// A service whose health is told.
struct Told {
    name: String,
    upstream: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    /// All upstreams were reached once, and some are now. These are not: calls for the others go on.
    Ready(Vec<&'static str>),
    /// These upstreams cannot be reached: some were not yet, or all are away.
    Waiting(Vec<&'static str>),
    Draining,
}

impl Health {
    /// Not ready, until [`Health::watch`] finds every upstream.
    pub fn new(reflection: bool) -> Result<Self, reflection::Error> {
        let (reporter, service) = tonic_health::server::health_reporter();
        let mut routes = Routes::new(service);
        let names = reflection::public_services();
        if reflection {
            routes = reflection::add(routes, &names)?;
        }
        let services = names.into_iter().map(|name| Told {
            upstream: upstream_of(&name),
            name,
        });
        Ok(Self {
            state: Mutex::new(State::Starting),
            reporter,
            services: services.collect(),
            routes: routes.prepare(),
        })
    }

    /// Keeps the state up to date until the process stops.
    pub async fn watch(&self, channels: Vec<Channel>, lifecycle: Lifecycle) {
        self.reporter
            .set_service_status(LIVE, ServingStatus::Serving)
            .await;
        let mut known = None;
        let mut pause = CHECK_SOON;
        let mut was_ready = false;
        loop {
            let state = if lifecycle.is_draining() {
                State::Draining
            } else {
                judge(look(&channels).await, channels.len(), was_ready)
            };
            if known.as_ref() != Some(&state) {
                self.report(&state).await;
                known = Some(state.clone());
            }
            match state {
                State::Draining => return lifecycle.stopping().await,
                State::Ready(_) => {
                    was_ready = true;
                    pause = CHECK_EVERY;
                }
                State::Starting | State::Waiting(_) => {}
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = lifecycle.draining() => {}
            }
        }
    }

    async fn report(&self, state: &State) {
        match state {
            State::Waiting(away) => {
                tracing::warn!(upstreams = ?away, "not ready: upstreams cannot be reached");
            }
            State::Ready(away) if away.is_empty() => tracing::info!("ready"),
            State::Ready(away) => {
                tracing::warn!(upstreams = ?away, "ready for the others: upstreams cannot be reached");
            }
            State::Starting | State::Draining => {}
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state.clone();
        let status = |serving| {
            if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        let away = match state {
            State::Ready(away) => Some(away),
            State::Starting | State::Waiting(_) | State::Draining => None,
        };
        self.reporter.set_service_status("", status(away.is_some())).await;
        for Told { name, upstream } in &self.services {
            let there = away.is_some_and(|away| upstream.is_none_or(|upstream| !away.contains(&upstream)));
            self.reporter.set_service_status(name, status(there)).await;
        }
    }

    /// Answers a probe by HTTP, when the path is one.
    pub fn probe(&self, path: &str, lifecycle: &Lifecycle) -> Option<Response<Body>> {
        match path {
            "/livez" => Some(say(StatusCode::OK, "{\"status\":\"live\"}".to_owned())),
            "/readyz" => {
                // the watcher may be a moment late to see the draining
                let state = if lifecycle.is_draining() {
                    State::Draining
                } else {
                    self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
                };
                let (status, body) = describe(&state);
                Some(say(status, body))
            }
            _ => None,
        }
    }

    /// Whether a gRPC path belongs to health or reflection.
    pub fn serves(path: &str) -> bool {
        OWN.iter().any(|prefix| path.starts_with(prefix))
    }

    /// Answers a gRPC call to health or reflection.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        match self.routes.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers a gRPC call at the port of the probes, where there is nothing but health.
    pub async fn call_by_probe(&self, request: Request<Body>) -> Response<Body> {
        if request.uri().path().starts_with(HEALTH) {
            return self.call(request).await;
        }
        Status::unimplemented("there is only grpc.health.v1 here").into_http()
    }
}

/// The upstream behind a service.
fn upstream_of(service: &str) -> Option<&'static str> {
    let is_of = |method: &&Method| method.descriptor.parent_service().full_name() == service;
    proto::method::all()
        .find(is_of)
        .map(|method| method.upstream.as_str())
}

/// The upstreams that cannot be reached.
async fn look(channels: &[Channel]) -> Vec<&'static str> {
    let looks = channels.iter().map(|channel| {
        timeout(CHECK_TIMEOUT, channel.is_reachable()).map(move |reachable| match reachable {
            Ok(true) => None,
            Ok(false) | Err(_) => Some(channel.name()),
        })
    });
    join_all(looks).await.into_iter().flatten().collect()
}

/// A gateway begins when it has reached all. Then one upstream that is away must not take the door from those that are there;
/// but a gateway that reaches nobody is itself cut off.
fn judge(away: Vec<&'static str>, all: usize, was_ready: bool) -> State {
    if away.is_empty() || (was_ready && away.len() < all) {
        State::Ready(away)
    } else {
        State::Waiting(away)
    }
}

fn describe(state: &State) -> (StatusCode, String) {
    match state {
        State::Ready(away) if away.is_empty() => (StatusCode::OK, "{\"status\":\"ready\"}".to_owned()),
        State::Ready(away) => {
            let body = serde_json::json!({"status": "ready", "without": away}).to_string();
            (StatusCode::OK, body)
        }
        State::Starting => (
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"status\":\"starting\"}".to_owned(),
        ),
        State::Draining => (
            StatusCode::SERVICE_UNAVAILABLE,
            "{\"status\":\"draining\"}".to_owned(),
        ),
        State::Waiting(away) => {
            let body = serde_json::json!({"status": "waiting", "for": away}).to_string();
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    }
}

fn say(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::new(http_body_util::Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ready_is_ready() {
        assert_eq!(describe(&State::Ready(vec![])).0, StatusCode::OK);
        assert_eq!(
            describe(&State::Ready(vec!["chat"])),
            (
                StatusCode::OK,
                r#"{"status":"ready","without":["chat"]}"#.to_owned()
            )
        );
        for state in [State::Starting, State::Draining, State::Waiting(vec!["chat"])] {
            assert_eq!(describe(&state).0, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(
            describe(&State::Waiting(vec!["chat"])).1,
            r#"{"for":["chat"],"status":"waiting"}"#
        );
    }

    #[test]
    fn one_upstream_does_not_take_the_door_from_the_others() {
        assert_eq!(judge(vec![], 4, false), State::Ready(vec![]));
        assert_eq!(judge(vec!["chat"], 4, false), State::Waiting(vec!["chat"]));
        assert_eq!(judge(vec!["chat"], 4, true), State::Ready(vec!["chat"]));
        let all = vec!["auth", "account", "transfer", "chat"];
        assert_eq!(judge(all.clone(), 4, true), State::Waiting(all));
    }

    #[test]
    fn a_service_is_told_by_its_upstream() {
        assert_eq!(upstream_of("kontor.chat.v1.ChatService"), Some("chat"));
        assert_eq!(upstream_of("grpc.health.v1.Health"), None);
    }
}

//! Whether the gateway can answer, by HTTP and by `grpc.health.v1`; and what it shows of itself, by gRPC reflection.

mod reflection;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt as _, future::join_all};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use lifecycle::Lifecycle;
use rpc::client::Channel;
use tokio::time::{sleep, timeout};
use tonic::{body::Body, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceExt as _;

/// How often the upstreams are looked at, once they are there.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// How often they are looked at until they are there for the first time.
const CHECK_SOON: Duration = Duration::from_millis(100);
/// How long one look may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The paths of gRPC that the gateway serves itself.
const OWN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// The state of the gateway, and the services that tell it.
pub(crate) struct Health {
    state: Mutex<State>,
    reporter: HealthReporter,
    names: Vec<String>,
    routes: Routes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Starting,
    Ready,
    /// These upstreams cannot be reached.
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
        Ok(Self {
            state: Mutex::new(State::Starting),
            reporter,
            names,
            routes: routes.prepare(),
        })
    }

    /// Keeps the state up to date until the process stops.
    pub async fn watch(&self, channels: Vec<Channel>, lifecycle: Lifecycle) {
        let mut known = None;
        let mut pause = CHECK_SOON;
        loop {
            let state = if lifecycle.is_draining() {
                State::Draining
            } else {
                look(&channels).await
            };
            if known.as_ref() != Some(&state) {
                self.report(&state).await;
                known = Some(state.clone());
            }
            match state {
                State::Draining => return lifecycle.stopping().await,
                State::Ready => pause = CHECK_EVERY,
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
            State::Ready => tracing::info!("ready"),
            State::Starting | State::Draining => {}
        }
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state.clone();
        let serving = if *state == State::Ready {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        self.reporter.set_service_status("", serving).await;
        for name in &self.names {
            self.reporter.set_service_status(name, serving).await;
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
    pub async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        match self.routes.clone().oneshot(request.map(Body::new)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

async fn look(channels: &[Channel]) -> State {
    let looks = channels.iter().map(|channel| {
        timeout(CHECK_TIMEOUT, channel.is_reachable()).map(move |reachable| match reachable {
            Ok(true) => None,
            Ok(false) | Err(_) => Some(channel.name()),
        })
    });
    let away: Vec<&'static str> = join_all(looks).await.into_iter().flatten().collect();
    if away.is_empty() {
        State::Ready
    } else {
        State::Waiting(away)
    }
}

fn describe(state: &State) -> (StatusCode, String) {
    match state {
        State::Ready => (StatusCode::OK, "{\"status\":\"ready\"}".to_owned()),
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
        assert_eq!(describe(&State::Ready).0, StatusCode::OK);
        for state in [State::Starting, State::Draining, State::Waiting(vec!["chat"])] {
            assert_eq!(describe(&state).0, StatusCode::SERVICE_UNAVAILABLE);
        }
        assert_eq!(
            describe(&State::Waiting(vec!["chat"])).1,
            r#"{"for":["chat"],"status":"waiting"}"#
        );
    }
}

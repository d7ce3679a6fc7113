//! The stack around every handler: trace and metrics → deadline → caller → access → limit → panic.
//!
//! It stands between the connections and the services as one future without a box of its own.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame};
use opentelemetry::{KeyValue, metrics::Histogram};
use proto::method::{Access, Method};
use telemetry::request;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument as _, Span, field};

use crate::{
    Caller, Deadline,
    caller::{self, Key},
    context::{CURRENT, Current, REQUEST_ID, read_timeout},
    error,
    server::Services,
};

/// Methods of the infrastructure itself, which every caller inside the cluster may use.
const OPEN_PREFIXES: [&str; 2] = ["/grpc.health.v1.", "/grpc.reflection."];

/// What the guard enforces, and the services behind it.
pub(crate) struct Guard {
    services: Services,
    key: Key,
    slots: Arc<Semaphore>,
    default_deadline: Duration,
    max_deadline: Duration,
    duration: Histogram<f64>,
}

impl Guard {
    pub fn new(
        services: Services,
        key: Key,
        max_in_flight: usize,
        default_deadline: Duration,
        max_deadline: Duration,
    ) -> Self {
        let duration = telemetry::metrics::meter()
            .f64_histogram("rpc.server.duration")
            .with_unit("s")
            .with_description("time from the request to the end of the answer")
            .build();
        Self {
            services,
            key,
            slots: Arc::new(Semaphore::new(max_in_flight)),
            default_deadline,
            max_deadline,
            duration,
        }
    }

    /// Answers a request.
    pub async fn call(&self, request: Request<Body>) -> Response<Body> {
        let path = request.uri().path();
        if OPEN_PREFIXES.iter().any(|prefix| path.starts_with(prefix)) {
            return self.services.call(request).await;
        }
        let method = proto::method::by_path(path);
        let id = request.headers().get(REQUEST_ID).cloned();
        let (span, in_hand) = if telemetry::spans() {
            (start_span(request.headers(), method, id.as_ref()), None)
        } else {
            let name = method.map_or("unknown", |method| method.path.as_str());
            let in_hand = request::Request::new("rpc", name, id.clone(), request.headers());
            (Span::none(), Some(in_hand))
        };
        request::scope(in_hand, self.serve(request, method, id, span.clone()))
            .instrument(span)
            .await
    }

    async fn serve(
        &self,
        mut request: Request<Body>,
        method: Option<&'static Method>,
        request_id: Option<HeaderValue>,
        span: Span,
    ) -> Response<Body> {
        let record = Record {
            started: Instant::now(),
            method: method.map_or("unknown", |method| method.path.as_str()),
            duration: self.duration.clone(),
            span,
            code: None,
        };
        let admitted = match admit(self, &mut request, method) {
            Ok(admitted) => admitted,
            Err(status) => return finish(status.into_http::<Body>(), record, None),
        };
        let current = Current {
            deadline: admitted.deadline,
            request_id,
        };
        let handler = CURRENT.scope(
            current,
            AssertUnwindSafe(self.services.call(request)).catch_unwind(),
        );
        let outcome = match admitted.deadline {
            Some(deadline) => match tokio::time::timeout(deadline.remaining(), handler).await {
                Ok(outcome) => outcome,
                Err(_) => return finish(error::late().into_http::<Body>(), record, None),
            },
            None => handler.await,
        };
        let Ok(response) = outcome else {
            let status = error::internal("a handler panicked");
            return finish(status.into_http::<Body>(), record, None);
        };
        finish(readable(response), record, admitted.slot)
    }
}

struct Admitted {
    deadline: Option<Deadline>,
    slot: Option<OwnedSemaphorePermit>,
}

/// Decides whether the request may run, and puts what the handler needs to know into its extensions.
fn admit(policy: &Guard, request: &mut Request<Body>, method: Option<&Method>) -> Result<Admitted, Status> {
    let streaming = method.is_some_and(|method| method.descriptor.is_server_streaming());
    let asked = read_timeout(request.headers())?;
    let timeout = match asked {
        // an answer that streams for hours has a deadline only when the caller wants one
        None if streaming => None,
        None => Some(policy.default_deadline),
        Some(asked) if streaming => Some(asked),
        Some(asked) => Some(asked.min(policy.max_deadline)),
    };
    let deadline = timeout.map(Deadline::after);
    let caller = match request.headers().get(caller::HEADER) {
        Some(signed) => policy.key.verify(signed).map_err(|_| error::unauthenticated())?,
        None => Caller::Anonymous,
    };
    if let Some(method) = method {
        check_access(method.access, &caller)?;
    }
    let slot = if streaming {
        None
    } else {
        Some(
            Arc::clone(&policy.slots)
                .try_acquire_owned()
                .map_err(|_| error::overloaded())?,
        )
    };
    let extensions = request.extensions_mut();
    extensions.insert(caller);
    if let Some(deadline) = deadline {
        extensions.insert(deadline);
    }
    Ok(Admitted { deadline, slot })
}

/// The gateway has checked this already; a service does not rely on it.
fn check_access(access: Access, caller: &Caller) -> Result<(), Status> {
    match (access, caller) {
        (Access::Public, _)
        | (Access::User, Caller::User { .. })
        | (Access::Operator, Caller::User { operator: true, .. })
        | (Access::Internal, Caller::Service { .. }) => Ok(()),
        (Access::User | Access::Operator | Access::Internal, Caller::Anonymous) => {
            Err(error::unauthenticated())
        }
        (Access::User | Access::Operator, Caller::Service { .. })
        | (Access::Operator | Access::Internal, Caller::User { .. }) => Err(error::forbidden()),
    }
}

fn start_span(headers: &HeaderMap, method: Option<&Method>, id: Option<&HeaderValue>) -> Span {
    // names come from the contracts, never from the caller: a made-up path must not make a new span name
    let (name, service, rpc) = match method {
        Some(method) => {
            let path = method.path.trim_start_matches('/');
            let (service, rpc) = path.split_once('/').unwrap_or((path, ""));
            (path, service, rpc)
        }
        None => ("unknown", "", ""),
    };
    let span = tracing::info_span!(
        "rpc",
        otel.name = name,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.service = service,
        rpc.method = rpc,
        rpc.grpc.status_code = field::Empty,
        otel.status_code = field::Empty,
        request.id = field::Empty,
    );
    if let Some(id) = id.and_then(|id| id.to_str().ok()) {
        span.record("request.id", id);
    }
    telemetry::propagation::set_parent(&span, telemetry::propagation::extract_metadata(headers));
    span
}

/// A message that cannot be decoded is the caller's mistake, and nothing was done; tonic calls it INTERNAL or OUT_OF_RANGE, in
/// words of its own. Statuses that a handler makes always have details, so those without are tonic's.
fn readable(response: Response<Body>) -> Response<Body> {
    let headers = response.headers();
    let tonics = !headers.contains_key("grpc-status-details-bin")
        && headers.get(Status::GRPC_STATUS).is_some_and(|code| {
            matches!(
                Code::from_bytes(code.as_bytes()),
                Code::Internal | Code::OutOfRange
            )
        });
    if tonics {
        error::invalid([(
            "request",
            "must be one message of the method's type, and not longer than it accepts",
        )])
        .into_http()
    } else {
        response
    }
}

fn finish(
    response: Response<Body>,
    mut record: Record,
    slot: Option<OwnedSemaphorePermit>,
) -> Response<Body> {
    // an answer without a message carries its status in the headers
    record.note(response.headers());
    let (parts, body) = response.into_parts();
    Response::from_parts(
        parts,
        Body::new(Recorded {
            body,
            record,
            _slot: slot,
        }),
    )
}

/// Measures one request until its answer has been sent, or dropped.
struct Record {
    started: Instant,
    method: &'static str,
    duration: Histogram<f64>,
    span: Span,
    code: Option<i32>,
}

impl Record {
    fn note(&mut self, headers: &HeaderMap) {
        let code = headers.get("grpc-status").and_then(|code| code.to_str().ok());
        if let Some(code) = code.and_then(|code| code.parse().ok()) {
            self.code = Some(code);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // a stream that was dropped before its trailers was cancelled by the caller
        let code = self.code.unwrap_or(Code::Cancelled as i32);
        self.span.record("rpc.grpc.status_code", code);
        if matches!(
            Code::from(code),
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable
        ) {
            self.span.record("otel.status_code", "ERROR");
        }
        let attributes = [
            KeyValue::new("rpc.method", self.method),
            KeyValue::new("rpc.grpc.status_code", i64::from(code)),
        ];
        self.duration
            .record(self.started.elapsed().as_secs_f64(), &attributes);
    }
}

/// The body of an answer, which holds the request's slot and notes the status in the trailers.
struct Recorded {
    body: Body,
    record: Record,
    _slot: Option<OwnedSemaphorePermit>,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(trailers) = frame.trailers_ref()
        {
            self.record.note(trailers);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_is_closed_unless_the_contract_opens_it() {
        let anonymous = Caller::Anonymous;
        let user = Caller::User {
            user_id: 1,
            operator: false,
            session: None,
        };
        let operator = Caller::User {
            user_id: 1,
            operator: true,
            session: None,
        };
        let service = Caller::Service {
            name: "account".into(),
        };
        let allowed = |access, caller: &Caller| check_access(access, caller).map_err(|status| status.code());
        assert_eq!(allowed(Access::Public, &anonymous), Ok(()));
        assert_eq!(allowed(Access::User, &anonymous), Err(Code::Unauthenticated));
        assert_eq!(allowed(Access::User, &user), Ok(()));
        assert_eq!(allowed(Access::User, &service), Err(Code::PermissionDenied));
        assert_eq!(allowed(Access::Operator, &user), Err(Code::PermissionDenied));
        assert_eq!(allowed(Access::Operator, &operator), Ok(()));
        assert_eq!(allowed(Access::Internal, &operator), Err(Code::PermissionDenied));
        assert_eq!(allowed(Access::Internal, &service), Ok(()));
    }
}

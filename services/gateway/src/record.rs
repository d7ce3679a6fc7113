//! What is kept about each request: its span, its time, its end.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Span, field};

/// The instruments of the gateway.
#[derive(Clone)]
pub(crate) struct Metrics {
    duration: Histogram<f64>,
    pub shed: Counter<u64>,
    pub rate_limited: Counter<u64>,
}

impl Metrics {
    pub fn new() -> Self {
        let meter = telemetry::metrics::meter();
        let counter = |name, description| meter.u64_counter(name).with_description(description).build();
        Self {
            duration: telemetry::metrics::latency(
                "kontor.gateway.request.duration",
                "time from a request's headers to the end of its answer, by method, protocol and status",
            ),
            shed: counter(
                "kontor.gateway.shed",
                "requests refused because too many were in flight",
            ),
            rate_limited: counter(
                "kontor.gateway.rate_limited",
                "requests refused by the rate limit, by method",
            ),
        }
    }

    /// Measures and logs a request. A path that leads nowhere has the method [`UNKNOWN`].
    pub fn observe(&self, protocol: Protocol, method: &'static str, status: u16, elapsed: Duration) {
        let protocol = match protocol {
            Protocol::Rest => "rest",
            Protocol::Grpc => "grpc",
        };
        self.duration.record(
            elapsed.as_secs_f64(),
            &[
                KeyValue::new("method", method),
                KeyValue::new("protocol", protocol),
                KeyValue::new("status", i64::from(status)),
            ],
        );
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(
            rpc.method = method,
            protocol,
            status,
            duration_ms = millis,
            "request"
        );
    }
}

/// The method of a request that leads nowhere: a made-up path makes no names of its own.
pub(crate) const UNKNOWN: &str = "unknown";

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Rest,
    Grpc,
}

/// The span of a request, or what stands for it where nobody would see one. `name` and `method` come from the contracts: a
/// made-up path makes no new names.
pub(crate) fn span(
    protocol: Protocol,
    name: &str,
    method: &'static str,
    headers: &HeaderMap,
    request_id: &HeaderValue,
) -> (Span, Option<telemetry::request::Request>) {
    if !telemetry::spans() {
        let id = Some(request_id.clone());
        let in_hand = telemetry::request::Request::new("request", method, id, headers);
        return (Span::none(), Some(in_hand));
    }
    let span = tracing::info_span!(
        "request",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = field::Empty,
        rpc.method = method,
        http.response.status_code = field::Empty,
        rpc.grpc.status_code = field::Empty,
        request.id = request_id.to_str().unwrap_or_default(),
    );
    telemetry::propagation::set_parent(&span, telemetry::propagation::extract_metadata(headers));
    if protocol == Protocol::Rest {
        span.record("http.route", name);
    }
    (span, None)
}

/// Measures one request until its answer has been sent or dropped, and holds its place among those in flight.
pub(crate) struct Record {
    started: Instant,
    protocol: Protocol,
    method: &'static str,
    span: Span,
    status: Option<u16>,
    metrics: Metrics,
    _slot: OwnedSemaphorePermit,
}

impl Record {
    pub fn new(
        protocol: Protocol,
        method: &'static str,
        span: Span,
        metrics: Metrics,
        slot: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            started: Instant::now(),
            protocol,
            method,
            span,
            status: None,
            metrics,
            _slot: slot,
        }
    }

    /// How the request ended: an HTTP status, or a gRPC code.
    pub fn end(&mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        // without an end the client went away: nginx's 499, gRPC's CANCELLED
        let (field, unfinished) = match self.protocol {
            Protocol::Rest => ("http.response.status_code", 499),
            Protocol::Grpc => ("rpc.grpc.status_code", 1),
        };
        let status = self.status.unwrap_or(unfinished);
        self.span.record(field, status);
        if is_failure(self.protocol, status) {
            self.span.record("otel.status_code", "ERROR");
        }
        self.span
            .in_scope(|| self.metrics.observe(self.protocol, self.method, status, elapsed));
    }
}

fn is_failure(protocol: Protocol, status: u16) -> bool {
    match protocol {
        Protocol::Rest => status >= 500,
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS
        Protocol::Grpc => matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
    }
}

//! An OTLP receiver: what a collector would get from the services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use opentelemetry_proto::tonic::{
    collector::{
        metrics::v1::{
            ExportMetricsServiceRequest, ExportMetricsServiceResponse,
            metrics_service_server::{MetricsService, MetricsServiceServer},
        },
        trace::v1::{
            ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_server::{TraceService, TraceServiceServer},
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use tokio::{net::TcpListener, task::JoinSet};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What is kept; a test that makes more has lost its way.
const MOST_SPANS: usize = 100_000;

/// A span, as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of the process.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The trace, in hex.
    pub trace_id: String,
    /// The span, in hex.
    pub span_id: String,
    /// The span that caused it, in hex; empty for the first one of a trace.
    pub parent_id: String,
    /// `SpanKind` of the protocol: 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    /// The attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// `StatusCode` of the protocol: 0 unset, 1 ok, 2 error.
    pub status: i32,
}

#[derive(Default)]
struct Received {
    spans: Vec<Span>,
    metrics: BTreeMap<String, BTreeSet<String>>,
}

/// A running receiver. Dropping it ends it.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    _tasks: JoinSet<()>,
}

impl Collector {
    /// Starts a receiver on a free port.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .context("the collector finds no free port")?;
        let address = listener.local_addr()?;
        let received = Arc::<Mutex<Received>>::default();
        let intake = Receiver(Arc::clone(&received));
        let serve = Server::builder()
            .add_service(TraceServiceServer::new(intake.clone()))
            .add_service(MetricsServiceServer::new(intake))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // it serves until it is dropped
            let _ = serve.await;
        });
        Ok(Self {
            address,
            received,
            _tasks: tasks,
        })
    }

    /// What to set `KONTOR_OTLP_ENDPOINT` to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans of a trace that have arrived.
    pub fn trace(&self, trace_id: &str) -> Vec<Span> {
        lock(&self.received)
            .spans
            .iter()
            .filter(|span| span.trace_id == trace_id)
            .cloned()
            .collect()
    }

    /// All spans that have arrived.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.received).spans.clone()
    }

    /// The names of the metrics that a service has reported.
    pub fn metrics(&self, service: &str) -> BTreeSet<String> {
        lock(&self.received)
            .metrics
            .get(service)
            .cloned()
            .unwrap_or_default()
    }
}

#[derive(Clone)]
struct Receiver(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut received = lock(&self.0);
        for group in request.into_inner().resource_spans {
            let service = service_name(group.resource.as_ref());
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if received.spans.len() >= MOST_SPANS {
                    return Err(Status::resource_exhausted("too many spans"));
                }
                received.spans.push(Span {
                    service: service.clone(),
                    name: span.name,
                    trace_id: hex(&span.trace_id),
                    span_id: hex(&span.span_id),
                    parent_id: hex(&span.parent_span_id),
                    kind: span.kind,
                    attributes: span.attributes.iter().map(attribute).collect(),
                    status: span.status.map_or(0, |status| status.code),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let mut received = lock(&self.0);
        for group in request.into_inner().resource_metrics {
            let names = received
                .metrics
                .entry(service_name(group.resource.as_ref()))
                .or_default();
            names.extend(
                group
                    .scope_metrics
                    .into_iter()
                    .flat_map(|scope| scope.metrics)
                    .map(|metric| metric.name),
            );
        }
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

fn lock(received: &Mutex<Received>) -> MutexGuard<'_, Received> {
    // what a panicking test left behind is still worth reading
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

fn service_name(resource: Option<&Resource>) -> String {
    let attributes = resource
        .map(|resource| resource.attributes.as_slice())
        .unwrap_or_default();
    attributes
        .iter()
        .find(|pair| pair.key == "service.name")
        .map(attribute)
        .map(|(_, name)| name)
        .unwrap_or_default()
}

fn attribute(pair: &KeyValue) -> (String, String) {
    (
        pair.key.clone(),
        pair.value.as_ref().map(text).unwrap_or_default(),
    )
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(flag)) => flag.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // writing to a String cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

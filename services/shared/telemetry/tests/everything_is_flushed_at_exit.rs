//! Spans and metrics reach a real OTLP receiver before `telemetry::run` returns, also when the program fails.

use std::{collections::BTreeMap, process::ExitCode, sync::Arc};

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
    common::v1::any_value::Value,
};
use tokio::{net::TcpListener, sync::Mutex};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

#[derive(Clone, Default)]
struct Receiver {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().await.push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().await.push(request.into_inner());
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test]
async fn everything_is_flushed_at_exit() {
    let receiver = Receiver::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder()
        .add_service(TraceServiceServer::new(receiver.clone()))
        .add_service(MetricsServiceServer::new(receiver.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let variables = [
        ("KONTOR_OTLP_ENDPOINT", endpoint.as_str()),
        ("KONTOR_REGION", "eu"),
        ("KONTOR_LOG", "warn"),
    ];
    let variables: BTreeMap<_, _> = variables
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let config = telemetry::Config::read(&mut settings::Reader::from_map(variables)).unwrap();

    let program = async {
        tracing::info_span!("hello", otel.kind = "server").in_scope(|| tracing::info!("inside"));
        telemetry::metrics::meter()
            .u64_counter("kontor.test")
            .build()
            .add(3, &[]);
        telemetry::metrics::latency("kontor.test.duration", "a latency").record(0.001, &[]);
        Err::<(), _>("on purpose")
    };
    let unknown = ["KONTOR_LGO".to_owned()];
    let code = tokio::select! {
        code = telemetry::run("tester", &config, &unknown, program) => code,
        _ = server => panic!("the receiver ended"),
    };
    assert_eq!(code, ExitCode::FAILURE);

    let traces = receiver.traces.lock().await;
    let resource = traces[0].resource_spans[0].resource.as_ref().unwrap();
    let attribute = |key: &str| {
        let value = resource
            .attributes
            .iter()
            .find(|attribute| attribute.key == key)?
            .value
            .clone()?
            .value?;
        if let Value::StringValue(text) = value {
            Some(text)
        } else {
            None
        }
    };
    assert_eq!(attribute("service.name").as_deref(), Some("tester"));
    assert_eq!(attribute("region").as_deref(), Some("eu"));
    assert_eq!(
        attribute("service.version").as_deref(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(attribute("service.instance.id").unwrap().len(), 36);
    let span = &traces[0].resource_spans[0].scope_spans[0].spans[0];
    assert_eq!((span.name.as_str(), span.kind), ("hello", 2));
    assert_eq!(
        span.events[0].name, "inside",
        "what the log leaves out is still in the trace"
    );
    let metrics = receiver.metrics.lock().await;
    let names: Vec<&str> = metrics[0].resource_metrics[0].scope_metrics[0]
        .metrics
        .iter()
        .map(|metric| metric.name.as_str())
        .collect();
    assert!(
        names.contains(&"kontor.test") && names.contains(&"kontor.test.duration"),
        "{names:?}"
    );
}

//! Logs to stdout, traces and metrics to an OpenTelemetry collector.
//!
//! - [`run`] wraps the main future of a program: it starts everything, logs the error, flushes, and gives the exit code.
//! - [`propagation`] carries the trace through gRPC metadata and Kafka headers (W3C Trace Context).
//! - [`request`] is what a request has instead of a span where nothing records spans ([`spans`]).
//! - [`metrics`] has the meter and the one set of latency buckets.
//!
//! Spans of `tracing` become OpenTelemetry spans. The fields `otel.kind`, `otel.name` and `otel.status_code` of a span are
//! understood. A collector that is down costs nothing but the data: queues are bounded, exports have a timeout, and the log
//! tells of an outage once, not for every batch.
#![warn(missing_docs)]

mod config;
mod export;
mod log;
pub mod metrics;
pub mod propagation;
pub mod request;

use std::{
    fmt::Display,
    io::Write,
    panic,
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

pub use config::{Config, LogFormat};
use export::Providers;
use opentelemetry::trace::TracerProvider as _;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{
    Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How long the flush at exit may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether anybody would see a span.
static SPANS: AtomicBool = AtomicBool::new(true);

/// Whether a span of a request is worth making: a collector gets it, or the filter of the log asks for spans. Where it is
/// not, put a [`request::Request`] around the handler.
pub fn spans() -> bool {
    SPANS.load(Ordering::Relaxed)
}

/// Telemetry could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The exporter cannot be built from the settings.
    #[error("cannot export telemetry: {0}")]
    Export(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The endpoint is not usable.
    #[error("cannot export telemetry: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// The process has a log already.
    #[error("telemetry was started before: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
    /// The filter of the log is wrong.
    #[error("the log filter is wrong: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
}

/// Keeps telemetry alive. Flushes when it is dropped; [`Guard::flush`] does it without blocking the thread.
pub struct Guard {
    providers: Option<Providers>,
    // the last field: what the flush logs is still written
    _log: WorkerGuard,
}

/// Starts telemetry for the whole process; call it inside the tokio runtime, once, before anything else.
pub fn init(service: &'static str, config: &Config) -> Result<Guard, Error> {
    let providers = Providers::new(service, config)?;
    let tracer = providers.tracer.tracer("kontor");
    // spans do not depend on the filter of the log; those of the exporter's own connection would feed themselves
    let spans = Targets::new().with_default(LevelFilter::INFO).with_targets(
        ["h2", "hyper", "hyper_util", "tonic", "tower", "opentelemetry"].map(|own| (own, LevelFilter::OFF)),
    );
    let spans_layer = tracing_opentelemetry::layer()
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_tracer(tracer)
        .with_filter(spans);
    let (log, log_guard) = log::layer(config)?;
    tracing_subscriber::registry()
        .with(spans_layer)
        .with(log)
        .try_init()?;
    // a filter with brackets selects lines by their span
    SPANS.store(
        config.otlp_endpoint.is_some() || config.log.contains('['),
        Ordering::Relaxed,
    );
    opentelemetry::global::set_meter_provider(providers.meter.clone());
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            panic.message = panic.payload_as_str(),
            panic.place = place,
            "panic"
        );
    }));
    Ok(Guard {
        providers: Some(providers),
        _log: log_guard,
    })
}

/// Runs a program inside telemetry: starts it, warns about `unknown` settings, waits for `main`, logs its error, flushes.
pub async fn run<E: Display>(
    service: &'static str,
    config: &Config,
    unknown: &[String],
    main: impl Future<Output = Result<(), E>>,
) -> ExitCode {
    let guard = match init(service, config) {
        Ok(guard) => guard,
        Err(error) => {
            // there is no log yet; and nowhere to tell when stderr is closed
            let _ = writeln!(std::io::stderr(), "{error}");
            return ExitCode::FAILURE;
        }
    };
    for name in unknown {
        tracing::warn!(setting.name = name, "unknown setting, ignored");
    }
    let result = main.await;
    if let Err(error) = &result {
        tracing::error!(%error, "failed");
    }
    guard.flush().await;
    if result.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl Guard {
    /// Sends what is waiting, for at most 5 seconds, and ends telemetry.
    pub async fn flush(mut self) {
        let Some(providers) = self.providers.take() else {
            return;
        };
        let start = Instant::now();
        // the shutdown blocks; a thread that hangs in it must not hold up the exit of the runtime either
        let (done, receiver) = tokio::sync::oneshot::channel();
        thread::spawn(move || {
            providers.shutdown(FLUSH_TIMEOUT);
            let _ = done.send(());
        });
        if tokio::time::timeout(FLUSH_TIMEOUT, receiver).await.is_err() {
            tracing::warn!(
                waited.seconds = start.elapsed().as_secs(),
                "telemetry was not flushed in time"
            );
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(providers) = self.providers.take() else {
            return;
        };
        // in a thread, as the exporter's connection may need this thread's runtime: then the wait ends by the timeout
        let (done, receiver) = mpsc::channel();
        thread::spawn(move || {
            providers.shutdown(FLUSH_TIMEOUT);
            let _ = done.send(());
        });
        let _ = receiver.recv_timeout(FLUSH_TIMEOUT);
    }
}

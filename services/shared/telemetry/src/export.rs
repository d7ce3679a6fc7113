//! Providers of spans and metrics, with or without an exporter behind them.

use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    metrics::{
        PeriodicReader, SdkMeterProvider, Temporality, data::ResourceMetrics, exporter::PushMetricExporter,
    },
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData},
};
use tonic::transport::{Channel, Endpoint};

use crate::{Config, Error};

const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const METRIC_INTERVAL: Duration = Duration::from_secs(10);
/// Spans that wait; more are dropped. A span takes about 1 KiB.
const SPAN_QUEUE: usize = 8192;
const SPAN_BATCH: usize = 512;
/// A span is on its way after this time at the latest.
const SPAN_DELAY: Duration = Duration::from_secs(1);
/// An outage of the collector is told when it begins, and again after each of these.
const REMINDER: Duration = Duration::from_mins(5);

pub(crate) struct Providers {
    pub tracer: SdkTracerProvider,
    pub meter: SdkMeterProvider,
}

impl Providers {
    pub fn new(service: &'static str, config: &Config) -> Result<Self, Error> {
        let resource = resource(service, &config.region);
        let tracer = SdkTracerProvider::builder().with_resource(resource.clone());
        let meter = SdkMeterProvider::builder().with_resource(resource);
        let Some(endpoint) = &config.otlp_endpoint else {
            // ids are still made and passed on, for the log; nothing is recorded unless the caller does
            let sampler = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
            return Ok(Self {
                tracer: tracer.with_sampler(sampler).build(),
                meter: meter.build(),
            });
        };
        let channel = Endpoint::from(endpoint.clone())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(EXPORT_TIMEOUT)
            .connect_lazy();
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(SPAN_QUEUE)
            .with_max_export_batch_size(SPAN_BATCH)
            .with_scheduled_delay(SPAN_DELAY)
            .build();
        let spans = Reporting::new("traces", span_exporter(channel.clone())?);
        let metrics = Reporting::new("metrics", metric_exporter(channel)?);
        Ok(Self {
            tracer: tracer
                .with_sampler(sampler(config.trace_sample_percent))
                .with_span_processor(
                    BatchSpanProcessor::builder(spans)
                        .with_batch_config(batch)
                        .build(),
                )
                .build(),
            meter: meter
                .with_reader(
                    PeriodicReader::builder(metrics)
                        .with_interval(METRIC_INTERVAL)
                        .build(),
                )
                .build(),
        })
    }

    /// Blocks until all is sent, each signal for at most `timeout`.
    pub fn shutdown(self, timeout: Duration) {
        let Self { tracer, meter } = self;
        // side by side: one collector that does not answer costs one timeout, not two
        let spans = thread::spawn(move || tracer.shutdown_with_timeout(timeout));
        // failures were reported by the exporters
        let _ = meter.shutdown_with_timeout(timeout);
        let _ = spans.join();
    }
}

fn resource(service: &'static str, region: &str) -> Resource {
    Resource::builder()
        .with_service_name(service)
        .with_attributes([
            // all crates of the workspace have one version
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
            KeyValue::new("region", region.to_owned()),
        ])
        .build()
}

fn sampler(percent: u8) -> Sampler {
    #[expect(clippy::float_arithmetic, reason = "the API takes a share of 1")]
    let share = f64::from(percent) / 100.0;
    Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share)))
}

fn span_exporter(channel: Channel) -> Result<SpanExporter, Error> {
    Ok(SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?)
}

fn metric_exporter(channel: Channel) -> Result<MetricExporter, Error> {
    Ok(MetricExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?)
}

/// An exporter whose outages reach the log, but do not flood it. (The SDK's own log lines, one for each batch, are off.)
#[derive(Debug)]
struct Reporting<E> {
    exporter: E,
    signal: &'static str,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Outage {
    failures: u64,
    reminded: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Report {
    Nothing,
    Broken(u64),
    Mended(u64),
}

impl<E> Reporting<E> {
    fn new(signal: &'static str, exporter: E) -> Self {
        Self {
            exporter,
            signal,
            outage: Mutex::new(None),
        }
    }

    fn report(&self, result: &OTelSdkResult) {
        match (self.judge(result.is_ok(), Instant::now()), result) {
            (Report::Broken(failures), Err(error)) => tracing::warn!(
                telemetry.signal = self.signal,
                telemetry.failures = failures,
                %error,
                "telemetry cannot be exported"
            ),
            (Report::Mended(failures), _) => tracing::info!(
                telemetry.signal = self.signal,
                telemetry.failures = failures,
                "telemetry is exported again"
            ),
            _ => {}
        }
    }

    fn judge(&self, good: bool, now: Instant) -> Report {
        let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut *outage, good) {
            (None, true) => Report::Nothing,
            (None, false) => {
                *outage = Some(Outage {
                    failures: 1,
                    reminded: now,
                });
                Report::Broken(1)
            }
            (Some(Outage { failures, .. }), true) => {
                let failures = *failures;
                *outage = None;
                Report::Mended(failures)
            }
            (Some(Outage { failures, reminded }), false) => {
                *failures += 1;
                if now.duration_since(*reminded) < REMINDER {
                    return Report::Nothing;
                }
                *reminded = now;
                Report::Broken(*failures)
            }
        }
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Reporting<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let result = self.exporter.export(batch).await;
        self.report(&result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Reporting<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        self.report(&result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_when_it_begins_ends_and_lasts() {
        let exporter = Reporting::new("traces", ());
        let start = Instant::now();
        assert_eq!(exporter.judge(true, start), Report::Nothing);
        assert_eq!(exporter.judge(false, start), Report::Broken(1));
        for second in 1..=299 {
            assert_eq!(
                exporter.judge(false, start + Duration::from_secs(second)),
                Report::Nothing
            );
        }
        assert_eq!(
            exporter.judge(false, start + Duration::from_mins(5)),
            Report::Broken(301)
        );
        assert_eq!(
            exporter.judge(true, start + Duration::from_mins(6)),
            Report::Mended(301)
        );
        assert_eq!(
            exporter.judge(true, start + Duration::from_mins(6)),
            Report::Nothing
        );
    }
}

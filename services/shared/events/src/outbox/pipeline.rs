//! Events in flight to Kafka.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer},
};
use telemetry::propagation;
use tokio::sync::mpsc;
use tracing::Span;

use super::rows::Row;
use crate::{Config, record};

/// The most events in flight.
pub(super) const MAX_IN_FLIGHT: usize = 1_000;
/// How long purged events may take to come back.
const PURGE_TIMEOUT: Duration = Duration::from_secs(2);

/// What became of an event.
pub(super) struct Report {
    pub id: i64,
    pub result: Result<(), RDKafkaErrorCode>,
}

struct Reporting {
    reports: mpsc::Sender<Report>,
}

impl ClientContext for Reporting {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        kafka::line(level, facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        kafka::error(&error, reason);
    }
}

impl ProducerContext for Reporting {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, id: Box<i64>) {
        let result = match delivery {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown)),
        };
        // The channel has room for every event in flight. It is closed when the relay has given up on them: they are still
        // in the outbox then.
        let _ = self.reports.try_send(Report { id: *id, result });
    }
}

/// An event in flight.
pub(super) struct Flight {
    pub topic: String,
    pub key: String,
    since: Instant,
    span: Span,
}

/// What happened to an event that was handed to the producer.
pub(super) enum Handed {
    InFlight,
    /// The producer's queue is full: send it again later. Nothing behind it may be sent before.
    Full,
    Refused(RDKafkaErrorCode),
}

/// A producer and the events that it has not reported on.
///
/// This is not rdkafka's `FutureProducer`: that one sleeps and tries again when its queue is full, and a later event of the
/// same key can pass by meanwhile.
pub(super) struct Pipeline {
    producer: ThreadedProducer<Reporting>,
    reports: mpsc::Receiver<Report>,
    in_flight: BTreeMap<i64, Flight>,
    config: Config,
}

impl Pipeline {
    pub fn start(config: &Config) -> Result<Self, KafkaError> {
        let (sender, reports) = mpsc::channel(MAX_IN_FLIGHT);
        let producer =
            ThreadedProducer::from_config_and_context(&config.producer(), Reporting { reports: sender })?;
        Ok(Self {
            producer,
            reports,
            in_flight: BTreeMap::new(),
            config: config.clone(),
        })
    }

    pub fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub fn room(&self) -> usize {
        MAX_IN_FLIGHT.saturating_sub(self.in_flight.len())
    }

    pub fn ids(&self) -> Vec<i64> {
        self.in_flight.keys().copied().collect()
    }

    /// How long the event that was sent first is in flight.
    pub fn longest(&self) -> Duration {
        self.in_flight
            .values()
            .map(|flight| flight.since.elapsed())
            .max()
            .unwrap_or_default()
    }

    pub fn send(&mut self, row: &Row) -> Handed {
        let span = tracing::info_span!(
            "publish",
            otel.name = format!("publish {}", row.topic),
            otel.kind = "producer",
            otel.status_code = tracing::field::Empty,
            messaging.system = "kafka",
            messaging.operation.name = "publish",
            messaging.destination.name = row.topic,
            messaging.message.id = %row.event_id,
            messaging.kafka.message.key = row.key,
        );
        let pairs = row
            .headers
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        propagation::set_parent(&span, propagation::extract_pairs(pairs));
        let headers = span.in_scope(|| record::headers(row.event_id, &row.event_type));
        let topic = self.config.name(&row.topic);
        let record = BaseRecord::with_opaque_to(&topic, Box::new(row.id))
            .key(&row.key)
            .payload(&row.payload)
            .headers(headers);
        let Err((error, _)) = self.producer.send(record) else {
            let flight = Flight {
                topic: row.topic.clone(),
                key: row.key.clone(),
                since: Instant::now(),
                span,
            };
            self.in_flight.insert(row.id, flight);
            return Handed::InFlight;
        };
        span.record("otel.status_code", "ERROR");
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::QueueFull) => Handed::Full,
            code => Handed::Refused(code.unwrap_or(RDKafkaErrorCode::Unknown)),
        }
    }

    /// The next reports, all that are there. Waits for one; cancel safe.
    pub async fn reports(&mut self) -> Vec<(Report, Option<Flight>)> {
        let mut reports = Vec::new();
        self.reports.recv_many(&mut reports, MAX_IN_FLIGHT).await;
        reports.into_iter().map(|report| self.landed(report)).collect()
    }

    fn landed(&mut self, report: Report) -> (Report, Option<Flight>) {
        let flight = self.in_flight.remove(&report.id);
        if let (Some(flight), Err(code)) = (&flight, report.result) {
            flight.span.record("otel.status_code", "ERROR");
            flight.span.in_scope(|| tracing::debug!(%code, "not published"));
        }
        (report, flight)
    }

    /// Gives up on everything in flight, and returns the events that were acknowledged nevertheless.
    ///
    /// An event that was on its way may still arrive. Sent again, it comes twice, and the first of each stay in order:
    /// what a broker has taken from an idempotent producer is always a prefix of what was sent.
    pub async fn give_up(mut self) -> Vec<(i64, Flight)> {
        self.producer
            .purge(PurgeConfig::default().queue().inflight().non_blocking());
        let mut acknowledged = Vec::new();
        let deadline = tokio::time::Instant::now() + PURGE_TIMEOUT;
        while !self.in_flight.is_empty() {
            let Ok(reports) = tokio::time::timeout_at(deadline, self.reports()).await else {
                break;
            };
            if reports.is_empty() {
                break;
            }
            for (report, flight) in reports {
                if let (Ok(()), Some(flight)) = (report.result, flight) {
                    acknowledged.push((report.id, flight));
                }
            }
        }
        self.close().await;
        acknowledged
    }

    /// Ends the producer's threads.
    pub async fn close(self) {
        let producer = self.producer;
        // it waits for its threads
        let closed = tokio::task::spawn_blocking(move || drop(producer));
        if tokio::time::timeout(PURGE_TIMEOUT, closed).await.is_err() {
            tracing::debug!("the producer did not end in time");
        }
    }
}

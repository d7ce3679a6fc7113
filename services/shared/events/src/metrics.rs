//! Instruments; the README lists them.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, UpDownCounter},
};

/// What the relay counts.
pub(crate) struct Outbox {
    lag: Gauge<u64>,
    published: Counter<u64>,
    failed: Counter<u64>,
}

impl Outbox {
    pub(crate) fn new() -> Self {
        let meter = telemetry::metrics::meter();
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            lag: meter
                .u64_gauge("kontor.outbox.lag")
                .with_unit("ms")
                .with_description("age of the oldest event that Kafka has not acknowledged")
                .build(),
            published: counter("kontor.outbox.published", "events that Kafka has acknowledged"),
            failed: counter(
                "kontor.outbox.failed",
                "tries to publish that failed; the event stays",
            ),
        }
    }

    pub(crate) fn lag(&self, millis: u64) {
        self.lag.record(millis, &[]);
    }

    pub(crate) fn published(&self, topic: &str) {
        self.published.add(1, &[KeyValue::new("topic", topic.to_owned())]);
    }

    pub(crate) fn failed(&self, topic: &str) {
        self.failed.add(1, &[KeyValue::new("topic", topic.to_owned())]);
    }
}

/// What a consumer counts.
pub(crate) struct Consumer {
    consumed: Counter<u64>,
    failed: Counter<u64>,
    stuck: UpDownCounter<i64>,
    restarts: Counter<u64>,
    name: KeyValue,
}

impl Consumer {
    pub(crate) fn new(name: &str) -> Self {
        let meter = telemetry::metrics::meter();
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            consumed: counter("kontor.consumer.records", "records that were processed"),
            failed: counter("kontor.consumer.failed", "tries to process a record that failed"),
            stuck: meter
                .i64_up_down_counter("kontor.consumer.stuck")
                .with_description("partitions that stand still at a record which cannot be processed")
                .build(),
            restarts: counter("kontor.consumer.restarts", "times that the consumer began anew"),
            name: KeyValue::new("consumer", name.to_owned()),
        }
    }

    pub(crate) fn consumed(&self) {
        self.consumed.add(1, std::slice::from_ref(&self.name));
    }

    pub(crate) fn failed(&self) {
        self.failed.add(1, std::slice::from_ref(&self.name));
    }

    pub(crate) fn stuck(&self, change: i64) {
        self.stuck.add(change, std::slice::from_ref(&self.name));
    }

    pub(crate) fn restarted(&self) {
        self.restarts.add(1, std::slice::from_ref(&self.name));
    }
}

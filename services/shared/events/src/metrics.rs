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
        Self {
            lag: meter
                .u64_gauge("kontor.outbox.lag")
                .with_unit("ms")
                .with_description("age of the oldest event that Kafka has not acknowledged")
                .build(),
            published: meter
                .u64_counter("kontor.outbox.published")
                .with_description("events that Kafka has acknowledged")
                .build(),
            failed: meter
                .u64_counter("kontor.outbox.failed")
                .with_description("tries to publish that failed; the event stays in the outbox")
                .build(),
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
        Self {
            consumed: meter
                .u64_counter("kontor.consumer.records")
                .with_description("records that were processed")
                .build(),
            failed: meter
                .u64_counter("kontor.consumer.failed")
                .with_description("tries to process a record that failed")
                .build(),
            stuck: meter
                .i64_up_down_counter("kontor.consumer.stuck")
                .with_description("partitions that stand still at a record which cannot be processed")
                .build(),
            restarts: meter
                .u64_counter("kontor.consumer.restarts")
                .with_description("times that the consumer was made anew after an error")
                .build(),
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

//! Instruments; the README lists them.

use opentelemetry::{
    KeyValue,
    metrics::{Counter, UpDownCounter},
};

/// What chat counts.
#[derive(Clone)]
pub struct Metrics {
    subscriptions: UpDownCounter<i64>,
    deliveries: Counter<u64>,
    behind: Counter<u64>,
    pages: Counter<u64>,
    slow: Counter<u64>,
    undecodable: Counter<u64>,
}

impl Metrics {
    /// The instruments of the process. Make them after telemetry has started.
    pub fn new() -> Self {
        let meter = telemetry::metrics::meter();
        let counter = |name, what| meter.u64_counter(name).with_description(what).build();
        Self {
            subscriptions: meter
                .i64_up_down_counter("kontor.chat.subscriptions")
                .with_description("subscriptions that are live")
                .build(),
            deliveries: counter("kontor.chat.deliveries", "messages handed to subscribers"),
            behind: counter("kontor.chat.gaps", "live messages that came before the one due"),
            pages: counter(
                "kontor.chat.history_pages",
                "pages of history read for subscribers",
            ),
            slow: counter(
                "kontor.chat.slow_subscribers",
                "subscriptions ended because they read too slowly",
            ),
            undecodable: counter(
                "kontor.chat.undecodable",
                "records that are no event of this version",
            ),
        }
    }

    pub(crate) fn subscriptions(&self, change: i64) {
        self.subscriptions.add(change, &[]);
    }

    pub(crate) fn delivered(&self, from: &'static str) {
        self.deliveries.add(1, &[KeyValue::new("from", from)]);
    }

    pub(crate) fn behind(&self) {
        self.behind.add(1, &[]);
    }

    pub(crate) fn filled(&self) {
        self.pages.add(1, &[]);
    }

    pub(crate) fn slow(&self) {
        self.slow.add(1, &[]);
    }

    pub(crate) fn undecodable(&self) {
        self.undecodable.add(1, &[]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

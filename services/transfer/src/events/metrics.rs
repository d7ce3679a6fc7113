//! What the relay tells about itself.

use std::sync::LazyLock;

use opentelemetry::metrics::{Counter, Gauge};

use crate::store::Lag;

static LAG_ROWS: LazyLock<Gauge<i64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .i64_gauge("ledger.events.lag.rows")
        .with_description("rows of the journal that wait to be published")
        .build()
});

static LAG: LazyLock<Gauge<f64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .f64_gauge("ledger.events.lag")
        .with_unit("s")
        .with_description("age of the oldest row that waits to be published")
        .build()
});

static PUBLISHED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.events.published")
        .with_description("events that Kafka has acknowledged")
        .build()
});

static FAILED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.events.failed")
        .with_description("pages of events that Kafka has not taken as a whole; they are sent again")
        .build()
});

#[expect(
    clippy::cast_precision_loss,
    clippy::float_arithmetic,
    reason = "an age in seconds, for people"
)]
pub(super) fn lag(lag: Lag) {
    LAG_ROWS.record(lag.rows, &[]);
    LAG.record(lag.millis as f64 / 1_000.0, &[]);
}

pub(super) fn published(events: usize) {
    PUBLISHED.add(events as u64, &[]);
}

pub(super) fn failed() {
    FAILED.add(1, &[]);
}

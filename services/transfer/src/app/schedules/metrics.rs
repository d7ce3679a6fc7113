//! What schedules tell about themselves.

use std::sync::LazyLock;

use chrono::TimeDelta;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Histogram},
};

static OCCURRENCES: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.schedule.occurrences")
        .with_description("attempts at occurrences, by how they ended")
        .build()
});

static LATE: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    telemetry::metrics::latency("ledger.schedule.lateness", "from an occurrence's time to its end")
});

pub(super) fn occurred(how: &'static str) {
    OCCURRENCES.add(1, &[KeyValue::new("outcome", how)]);
}

pub(super) fn late(by: TimeDelta) {
    LATE.record(by.as_seconds_f64().max(0.), &[]);
}

//! What the engine tells about itself.

use std::sync::{Arc, LazyLock};

use opentelemetry::metrics::{Counter, Histogram};
use tokio::sync::Semaphore;

static REFUSED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.queue.refused")
        .with_description("calls refused because the queue was full")
        .build()
});

static BATCH: LazyLock<Histogram<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_histogram("ledger.batch.rows")
        .with_description("rows of the journal in one commit")
        .with_boundaries(vec![
            1., 2., 4., 8., 16., 32., 64., 128., 256., 512., 1_024., 2_048., 4_096., 8_192.,
        ])
        .build()
});

static COMMIT: LazyLock<Histogram<f64>> = LazyLock::new(|| {
    telemetry::metrics::latency(
        "ledger.batch.duration",
        "from the first lock of a batch to its commit",
    )
});

static GUESSED_WRONG: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.batch.stale")
        .with_description(
            "batches that were prepared with accounts that another replica had changed, and then read them",
        )
        .build()
});

pub(super) fn guessed_wrong() {
    GUESSED_WRONG.add(1, &[]);
}

pub(super) fn refused() {
    REFUSED.add(1, &[]);
}

pub(super) fn committed(rows: usize, duration: std::time::Duration) {
    BATCH.record(rows as u64, &[]);
    COMMIT.record(duration.as_secs_f64(), &[]);
}

pub(super) fn observe_queue(room: &Arc<Semaphore>, capacity: usize) {
    let room = Arc::downgrade(room);
    // the meter keeps the callback; the returned handle has no use
    let _ = telemetry::metrics::meter()
        .u64_observable_gauge("ledger.queue.rows")
        .with_description("rows that wait to be written or are being written")
        .with_callback(move |gauge| {
            if let Some(room) = room.upgrade() {
                gauge.observe(capacity.saturating_sub(room.available_permits()) as u64, &[]);
            }
        })
        .build();
}

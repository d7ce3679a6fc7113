//! The meter of the process.
//!
//! Make instruments after [`crate::init`]: earlier ones measure nothing, for ever.

use opentelemetry::metrics::{Histogram, Meter};

/// The bounds of all latency histograms, in seconds: 250 µs for a read from memory, 10 s for a deadline.
pub const LATENCY_SECONDS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

/// The meter for all instruments of kontor.
pub fn meter() -> Meter {
    opentelemetry::global::meter("kontor")
}

/// A histogram of latencies in seconds.
pub fn latency(name: &'static str, description: &'static str) -> Histogram<f64> {
    meter()
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(LATENCY_SECONDS.to_vec())
        .build()
}

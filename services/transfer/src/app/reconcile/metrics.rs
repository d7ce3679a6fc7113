//! What the reconciler tells about itself.

use std::sync::LazyLock;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge},
};

static COMPARED: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.reconciled.accounts")
        .with_description("accounts compared with the journal: with the last entry, or the sum of all")
        .build()
});

static FOUND: LazyLock<Counter<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_counter("ledger.drift.found")
        .with_description("times that a stored balance was found to differ from the journal")
        .build()
});

static DRIFTING: LazyLock<Gauge<u64>> = LazyLock::new(|| {
    telemetry::metrics::meter()
        .u64_gauge("ledger.drift.accounts")
        .with_description("accounts whose stored balance differs from the journal, at most 10,000")
        .build()
});

pub(super) fn compared(check: &'static str, accounts: usize) {
    COMPARED.add(accounts as u64, &[KeyValue::new("check", check)]);
}

pub(super) fn found(drifts: usize) {
    FOUND.add(drifts as u64, &[]);
}

pub(super) fn drifting(accounts: usize) {
    DRIFTING.record(accounts as u64, &[]);
}

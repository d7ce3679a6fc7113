//! How far a pass over all accounts is, and what it has found.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

/// Accounts that are remembered to drift.
const REMEMBERED: usize = 10_000;

/// A pass over all accounts, and then the next one.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// The account that was looked at last.
    pub behind: i64,
    begun: Option<Instant>,
    ended: bool,
}

impl Pass {
    /// Whether there is something to do; begins a pass when its time has come.
    pub fn is_due(&mut self, every: Duration) -> bool {
        if self.until_due(every).is_zero() && (self.ended || self.begun.is_none()) {
            *self = Self {
                begun: Some(Instant::now()),
                ..Self::default()
            };
        }
        !self.ended
    }

    /// How long there is nothing to do.
    pub fn until_due(&self, every: Duration) -> Duration {
        match self.begun {
            Some(begun) if self.ended => every.saturating_sub(begun.elapsed()),
            _ => Duration::ZERO,
        }
    }

    /// There is no account left.
    pub fn end(&mut self, check: &'static str) {
        self.ended = true;
        let seconds = self.begun.map(|begun| begun.elapsed().as_secs());
        tracing::debug!(
            ledger.check = check,
            pass.seconds = seconds,
            "all balances were compared with the journal"
        );
    }
}

/// The accounts that drift, as far as they are remembered.
#[derive(Debug, Default)]
pub(super) struct Drifting(HashSet<i64>);

impl Drifting {
    pub fn add(&mut self, account: i64) {
        if self.0.len() < REMEMBERED {
            self.0.insert(account);
        }
    }

    pub fn remove(&mut self, account: i64) {
        self.0.remove(&account);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

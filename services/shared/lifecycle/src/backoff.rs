//! Growing pauses between tries.

use std::time::Duration;

/// Doubles from the first pause to the longest; half of each pause is random, so that instances do not try in step.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    tries: u32,
}

impl Backoff {
    /// Pauses from `first` to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            tries: 0,
        }
    }

    /// How many pauses were taken since the start or the last success.
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    /// Begins again with the first pause.
    pub fn reset(&mut self) {
        self.tries = 0;
    }

    /// The next pause.
    #[expect(
        clippy::should_implement_trait,
        reason = "pauses never end, and need no iterator"
    )]
    pub fn next(&mut self) -> Duration {
        let full = self
            .first
            .saturating_mul(1_u32.checked_shl(self.tries.min(16)).unwrap_or(1))
            .min(self.longest);
        self.tries = self.tries.saturating_add(1);
        let half = full / 2;
        let random = u64::try_from(half.as_micros()).unwrap_or(u64::MAX);
        half + Duration::from_micros(rand::random_range(0..=random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let within = |pause: Duration, full: u64| {
            assert!(
                pause >= Duration::from_millis(full / 2) && pause <= Duration::from_millis(full),
                "{pause:?}"
            );
        };
        for full in [100, 200, 400, 800, 1_600, 2_000, 2_000] {
            within(backoff.next(), full);
        }
        for _ in 0..100 {
            within(backoff.next(), 2_000);
        }
        backoff.reset();
        within(backoff.next(), 100);
    }
}

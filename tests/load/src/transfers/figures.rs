//! What many latencies come to.

use std::{fmt, time::Duration};

/// A measurement.
pub(super) struct Figures {
    /// In microseconds, sorted.
    latencies: Vec<u32>,
    elapsed: Duration,
}

impl Figures {
    /// From microseconds in any order.
    pub fn new(mut latencies: Vec<u32>, elapsed: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed }
    }

    pub fn per_second(&self) -> u128 {
        self.latencies.len() as u128 * 1_000 / self.elapsed.as_millis().max(1)
    }

    /// The smallest latency that `percent` of all do not exceed (nearest rank).
    fn percentile(&self, percent: usize) -> u32 {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.saturating_sub(1)).copied().unwrap_or(0)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "| {}", self.per_second())?;
        for percent in [50, 95, 99, 100] {
            let microseconds = self.percentile(percent);
            write!(
                formatter,
                " | {}.{:02}",
                microseconds / 1_000,
                microseconds % 1_000 / 10
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let figures = Figures::new(
            (1..=200).rev().map(|ms| ms * 1_000).collect(),
            Duration::from_secs(2),
        );
        assert_eq!(figures.to_string(), "| 100 | 100.00 | 190.00 | 198.00 | 200.00");
        assert_eq!(
            Figures::new(Vec::new(), Duration::ZERO).to_string(),
            "| 0 | 0.00 | 0.00 | 0.00 | 0.00"
        );
    }
}

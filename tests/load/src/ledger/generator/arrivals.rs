//! The moments at which an open loop's requests are due.
#![expect(
    clippy::float_arithmetic,
    reason = "the times between random arrivals follow a logarithm"
)]

use std::{
    collections::VecDeque,
    os::fd::{AsFd, AsRawFd},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use mio::unix::SourceFd;
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// Arrivals this close together are sent together: each waking costs CPU that the services then lack.
const TOGETHER: Duration = Duration::from_micros(100);

/// A Poisson process: each arrival is independent of all others.
pub(super) struct Arrivals {
    random: SmallRng,
    mean: Duration,
    next: Instant,
    due: VecDeque<Instant>,
    timer: TimerFd,
    is_set: bool,
}

impl Arrivals {
    pub fn new(start: Instant, per_second: u64, seed: u64) -> Result<Self> {
        ensure!(per_second > 0, "an open loop needs a rate");
        Ok(Self {
            random: SmallRng::seed_from_u64(seed),
            mean: Duration::from_secs(1) / u32::try_from(per_second)?,
            next: start,
            due: VecDeque::new(),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?,
            is_set: false,
        })
    }

    /// What to wait for.
    pub fn timer(&self) -> Timer {
        Timer(self.timer.as_fd().as_raw_fd())
    }

    /// The timer has ended. Setting it anew also makes it quiet.
    pub fn rang(&mut self) {
        self.is_set = false;
    }

    /// Draws all arrivals up to now.
    pub fn catch_up(&mut self, now: Instant) {
        while self.next <= now {
            self.due.push_back(self.next);
            let uniform: f64 = self.random.random();
            self.next += self.mean.mul_f64(-(1.0 - uniform).ln());
        }
    }

    pub fn first(&self) -> Option<Instant> {
        self.due.front().copied()
    }

    pub fn take(&mut self) {
        self.due.pop_front();
    }

    pub fn drop_all(&mut self, dropped: impl FnMut(Instant)) {
        self.due.drain(..).for_each(dropped);
    }

    /// Rings at the next arrival.
    pub fn set_timer(&mut self, now: Instant) -> Result<()> {
        if !self.is_set {
            let wait = self.next.saturating_duration_since(now).max(TOGETHER);
            self.timer.set(
                Expiration::OneShot(TimeSpec::from(wait)),
                TimerSetTimeFlags::empty(),
            )?;
            self.is_set = true;
        }
        Ok(())
    }
}

/// The timer as mio wants it.
pub(super) struct Timer(i32);

impl Timer {
    pub fn register(
        &self,
        registry: &mio::Registry,
        token: mio::Token,
        interest: mio::Interest,
    ) -> Result<()> {
        Ok(registry.register(&mut SourceFd(&self.0), token, interest)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_keep_the_rate_and_come_again_from_their_seed() {
        let start = Instant::now();
        let draw = || {
            let mut arrivals = Arrivals::new(start, 10_000, 7).unwrap();
            arrivals.catch_up(start + Duration::from_secs(10));
            arrivals.due
        };
        let first = draw();
        assert!((98_500..101_500).contains(&first.len()), "{}", first.len());
        assert_eq!(first, draw());
    }
}

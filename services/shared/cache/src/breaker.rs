use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// So many failures in a row open it.
const FAILURES: u32 = 3;
/// While it is open, one command in this time goes through.
const PAUSE: Duration = Duration::from_millis(500);

/// Keeps commands from waiting for a server that is away.
#[derive(Default)]
pub(crate) struct Breaker(Mutex<State>);

#[derive(Default)]
struct State {
    failures: u32,
    /// Open until then; the command that asks first afterwards is the probe.
    retry_at: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Opened,
    StillOpen,
    Closed,
}

impl Breaker {
    pub fn lets_pass(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut state.retry_at {
            None => true,
            Some(retry_at) if now >= *retry_at => {
                *retry_at = now + PAUSE;
                true
            }
            Some(_) => false,
        }
    }

    pub fn record(&self, good: bool, now: Instant) -> Change {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = state.retry_at.is_some();
        if good {
            *state = State::default();
            return if open { Change::Closed } else { Change::None };
        }
        state.failures = state.failures.saturating_add(1);
        if state.failures < FAILURES {
            return Change::None;
        }
        state.retry_at = Some(now + PAUSE);
        if open { Change::StillOpen } else { Change::Opened }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_and_lets_one_probe_through() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        assert_eq!(breaker.record(false, start), Change::None);
        assert_eq!(breaker.record(true, start), Change::None);
        assert_eq!(breaker.record(false, start), Change::None);
        assert_eq!(breaker.record(false, start), Change::None);
        assert!(breaker.lets_pass(start));
        assert_eq!(breaker.record(false, start), Change::Opened);
        assert!(!breaker.lets_pass(start + Duration::from_millis(499)));
        let later = start + PAUSE;
        assert!(breaker.lets_pass(later));
        assert!(!breaker.lets_pass(later), "one probe at a time");
        assert_eq!(breaker.record(false, later), Change::StillOpen);
        assert!(!breaker.lets_pass(later + Duration::from_millis(499)));
        assert!(breaker.lets_pass(later + PAUSE));
        assert_eq!(breaker.record(true, later + PAUSE), Change::Closed);
        assert!(breaker.lets_pass(later + PAUSE));
    }
}

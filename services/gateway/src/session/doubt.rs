//! Redis comes back with what it knew before it was away, sessions that have ended meanwhile among it. Auth tells it of those
//! as soon as it can; until then a session that Redis calls live is asked of auth.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long after the last failure: some times as long as auth waits between two tries to tell.
const LASTS: Duration = Duration::from_secs(3);

/// Whether Redis may have missed the end of a session.
#[derive(Default)]
pub(super) struct Doubt(Mutex<Option<Instant>>);

impl Doubt {
    /// Redis has not answered.
    pub fn begin(&self, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(now + LASTS);
    }

    /// Whether it is too early to believe it.
    pub fn remains(&self, now: Instant) -> bool {
        let mut until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *until = until.filter(|until| *until > now);
        until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_some_time_after_the_last_failure() {
        let (doubt, start) = (Doubt::default(), Instant::now());
        assert!(!doubt.remains(start));
        doubt.begin(start);
        doubt.begin(start + Duration::from_secs(1));
        assert!(doubt.remains(start + LASTS));
        assert!(!doubt.remains(start + LASTS + Duration::from_secs(1)));
    }
}

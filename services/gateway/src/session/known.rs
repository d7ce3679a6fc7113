//! Sessions that were looked up a moment ago: a client that sends many requests has its session looked up a few times a
//! second, not with each of them.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rpc::Caller;

use super::Digest;

/// How long an answer counts, from the moment of the question. With the time that the question itself may take, a session
/// stops within the promised second.
const FRESH: Duration = Duration::from_millis(400);
/// Sessions that are kept. Beyond, all are forgotten at once: nearly all of them would be a moment later anyway.
const MOST: usize = 16_384;

/// Live sessions only: one that is not known here is asked about.
#[derive(Default)]
pub(super) struct Known(Mutex<HashMap<Digest, Entry>>);

struct Entry {
    caller: Caller,
    until: Instant,
}

impl Known {
    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose session it is, if somebody has just asked.
    pub fn caller(&self, digest: &Digest, now: Instant) -> Option<Caller> {
        let entries = self.entries();
        let entry = entries.get(digest)?;
        (entry.until > now).then(|| entry.caller.clone())
    }

    /// Keeps what was found when it was asked at that time; at most for `left`, which is what remains of the session.
    pub fn learn(&self, digest: Digest, caller: Caller, asked: Instant, left: Duration) {
        let mut entries = self.entries();
        if entries.len() >= MOST {
            entries.clear();
        }
        let until = asked + FRESH.min(left);
        entries.insert(digest, Entry { caller, until });
    }

    /// The session has ended.
    pub fn forget(&self, digest: &Digest) {
        self.entries().remove(digest);
    }

    /// Gives back what has no use any more.
    pub fn sweep(&self, now: Instant) {
        let mut entries = self.entries();
        entries.retain(|_, entry| entry.until > now);
        if entries.is_empty() {
            entries.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn user(user_id: i64) -> Caller {
        Caller::User {
            user_id,
            operator: false,
            session: None,
        }
    }

    #[test]
    fn an_answer_counts_for_a_moment_from_its_question() {
        let (known, asked) = (Known::default(), Instant::now());
        known.learn([1; 32], user(1), asked, DAY);
        let just_before = asked + FRESH.saturating_sub(Duration::from_nanos(1));
        assert_eq!(known.caller(&[1; 32], just_before), Some(user(1)));
        assert_eq!(known.caller(&[1; 32], asked + FRESH), None);
        assert_eq!(known.caller(&[2; 32], asked), None);
    }

    #[test]
    fn it_does_not_outlive_the_session() {
        let (known, asked) = (Known::default(), Instant::now());
        known.learn([1; 32], user(1), asked, Duration::from_millis(5));
        assert_eq!(known.caller(&[1; 32], asked + Duration::from_millis(5)), None);
        known.learn([2; 32], user(2), asked, DAY);
        known.forget(&[2; 32]);
        assert_eq!(known.caller(&[2; 32], asked), None);
    }

    #[test]
    fn it_is_bounded_and_gives_room_back() {
        let (known, asked) = (Known::default(), Instant::now());
        for number in 0..40_000u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            known.learn(digest, user(1), asked, DAY);
            assert!(known.entries().len() <= MOST);
        }
        known.sweep(asked + FRESH);
        assert_eq!(known.entries().capacity(), 0);
    }
}

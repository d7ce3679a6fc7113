//! Sessions that were looked up before: a client that sends many requests has its session looked up once, and again when it has
//! changed.
//!
//! Redis tells of changes (`cache::follow`). An answer counts while it was heard a moment ago that nothing has changed, and where
//! that is not heard, for as long a moment itself. Either way what is believed was true [`FRESH`] ago.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cache::Follower;
use rpc::Caller;

use super::{Digest, KEY_PREFIX, watch::read_hex};

/// How old what is believed may be. With the time that a question itself may take, a session stops within the promised second.
const FRESH: Duration = Duration::from_millis(400);
/// Sessions that are kept. Beyond, all are forgotten at once.
const MOST: usize = 32_768;
/// How long a session is believed at most before it is asked about again, whatever its end.
const LONGEST: Duration = Duration::from_hours(24);
/// What nobody has used for so long is given up.
const UNUSED: Duration = Duration::from_mins(1);
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Longer than any question takes: an answer to one from before a change must not count.
const REMEMBER_CHANGES: Duration = Duration::from_secs(5);

/// Live sessions only: one that is not known here is asked about.
#[derive(Default)]
pub(super) struct Known(Mutex<State>);

#[derive(Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// Since when changes are told.
    told_since: Option<Instant>,
    /// Every change before was told.
    told_up_to: Option<Instant>,
    swept: Option<Instant>,
}

enum Entry {
    Live {
        caller: Caller,
        /// When it was asked about.
        asked: Instant,
        /// When the session ends by itself.
        ends: Instant,
        used: Instant,
    },
    Changed(Instant),
}

impl State {
    /// The time since when answers count that are older than a moment: none while changes are not told.
    fn counts_since(&self, now: Instant) -> Option<Instant> {
        self.told_since
            .filter(|_| self.told_up_to.is_some_and(|up_to| now < up_to + FRESH))
    }

    /// What was asked before may have changed without a trace here.
    fn forget_all(&mut self, now: Instant) {
        self.entries.clear();
        self.told_since = self.told_since.map(|_| now);
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose session it is, if that is known.
    pub fn caller(&self, digest: &Digest, now: Instant) -> Option<Caller> {
        let mut state = self.state();
        let since = state.counts_since(now);
        let Entry::Live {
            caller,
            asked,
            ends,
            used,
        } = state.entries.get_mut(digest)?
        else {
            return None;
        };
        let counts = now < *asked + FRESH || since.is_some_and(|since| since <= *asked);
        if *ends <= now || !counts {
            return None;
        }
        *used = now;
        Some(caller.clone())
    }

    /// Keeps what was found when it was asked at that time; at most for `left`, which is what remains of the session.
    pub fn learn(&self, digest: Digest, caller: Caller, asked: Instant, left: Duration) {
        let mut state = self.state();
        match state.entries.get(&digest) {
            // it may have been different then
            Some(Entry::Changed(at)) if *at >= asked => return,
            None if state.entries.len() >= MOST => state.forget_all(Instant::now()),
            _ => {}
        }
        let (ends, used) = (asked + left.min(LONGEST), asked);
        let entry = Entry::Live {
            caller,
            asked,
            ends,
            used,
        };
        state.entries.insert(digest, entry);
    }

    /// The session has ended, or is another one now.
    pub fn forget(&self, digest: &Digest) {
        let (mut state, now) = (self.state(), Instant::now());
        if state.entries.len() >= MOST {
            state.forget_all(now);
        }
        state.entries.insert(*digest, Entry::Changed(now));
    }

    /// Changes are not told any more.
    pub fn hears_nothing(&self) {
        self.state().told_since = None;
    }

    /// Gives back what has no use any more, now and then.
    pub fn sweep(&self, now: Instant) {
        let mut state = self.state();
        if state.swept.is_some_and(|swept| now < swept + SWEEP_EVERY) {
            return;
        }
        state.swept = Some(now);
        state.entries.retain(|_, entry| match entry {
            Entry::Live { ends, used, .. } => *ends > now && now < *used + UNUSED,
            Entry::Changed(at) => now < *at + REMEMBER_CHANGES,
        });
        if state.entries.is_empty() {
            state.entries.shrink_to_fit();
        }
    }
}

impl Follower for Known {
    fn begins(&self, at: Instant) {
        let mut state = self.state();
        state.told_since = Some(at);
        state.told_up_to = Some(at);
    }

    fn up_to(&self, moment: Instant) {
        self.state().told_up_to = Some(moment);
    }

    fn changed(&self, key: &str) {
        match key.strip_prefix(KEY_PREFIX).and_then(read_hex) {
            Some(digest) => self.forget(&digest),
            None => self.all_changed(),
        }
    }

    fn all_changed(&self) {
        self.state().forget_all(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const ONE: Digest = [1; 32];
    const TWO: Digest = [2; 32];

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
        known.learn(ONE, user(1), asked, DAY);
        let just_before = asked + FRESH.saturating_sub(Duration::from_nanos(1));
        assert_eq!(known.caller(&ONE, just_before), Some(user(1)));
        assert_eq!(known.caller(&ONE, asked + FRESH), None);
        assert_eq!(known.caller(&TWO, asked), None);
    }

    #[test]
    fn it_counts_while_it_is_heard_that_nothing_has_changed() {
        let (known, asked) = (Known::default(), Instant::now());
        known.begins(asked);
        known.learn(ONE, user(1), asked, DAY);
        let later = asked + Duration::from_secs(30);
        assert_eq!(known.caller(&ONE, later), None, "nothing was heard for long");
        known.up_to(later);
        assert_eq!(known.caller(&ONE, later), Some(user(1)));
        assert_eq!(known.caller(&ONE, later + FRESH), None);
        known.changed(&format!("{KEY_PREFIX}{}", "01".repeat(32)));
        assert_eq!(known.caller(&ONE, later), None);
    }

    #[test]
    fn what_was_asked_before_anything_was_heard_counts_for_a_moment_only() {
        let (known, asked) = (Known::default(), Instant::now());
        known.learn(ONE, user(1), asked, DAY);
        let later = asked + FRESH;
        known.begins(later);
        assert_eq!(known.caller(&ONE, later), None);
        known.learn(ONE, user(1), later, DAY);
        known.up_to(later + DAY / 2);
        assert_eq!(known.caller(&ONE, later + DAY / 2), Some(user(1)));
        known.hears_nothing();
        assert_eq!(known.caller(&ONE, later + DAY / 2), None);
    }

    #[test]
    fn an_answer_that_a_change_has_overtaken_does_not_count() {
        let (known, asked) = (Known::default(), Instant::now());
        known.begins(asked);
        known.forget(&ONE);
        known.learn(ONE, user(1), asked, DAY);
        assert_eq!(known.caller(&ONE, asked), None);
        let again = Instant::now() + Duration::from_millis(1);
        known.learn(ONE, user(1), again, DAY);
        assert_eq!(known.caller(&ONE, again), Some(user(1)));
        known.all_changed();
        assert_eq!(known.caller(&ONE, again), None);
    }

    #[test]
    fn it_does_not_outlive_the_session() {
        let (known, asked) = (Known::default(), Instant::now());
        known.begins(asked);
        known.learn(ONE, user(1), asked, Duration::from_millis(5));
        assert_eq!(known.caller(&ONE, asked + Duration::from_millis(5)), None);
        // nor does one that never ends by itself overflow the clock
        known.learn(TWO, user(2), asked, Duration::MAX);
        assert_eq!(known.caller(&TWO, asked), Some(user(2)));
        known.up_to(asked + LONGEST);
        assert_eq!(known.caller(&TWO, asked + LONGEST), None);
    }

    #[test]
    fn it_is_bounded_and_gives_room_back() {
        let (known, asked) = (Known::default(), Instant::now());
        known.begins(asked);
        for number in 0..80_000u32 {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&number.to_be_bytes());
            if number % 2 == 0 {
                known.learn(digest, user(1), asked, DAY);
            } else {
                known.forget(&digest);
            }
            assert!(known.state().entries.len() <= MOST);
        }
        known.sweep(asked);
        assert!(!known.state().entries.is_empty());
        known.sweep(Instant::now() + UNUSED);
        assert_eq!(known.state().entries.capacity(), 0);
    }
}

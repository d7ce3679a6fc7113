//! What was worked out a moment ago, kept as long as there is room for it.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

/// A bounded map of values with an end. The newer half of it and the older half: a full newer half becomes the older one,
/// and what was older is dropped at once, without looking at it.
pub(crate) struct Recent<K, V> {
    halves: Mutex<Halves<K, V>>,
    /// Entries of one half.
    room: usize,
}

struct Halves<K, V> {
    newer: HashMap<K, (V, u64)>,
    older: HashMap<K, (V, u64)>,
    /// When the newer half began, in the caller's seconds.
    since: u64,
}

impl<K: Hash + Eq, V: Clone> Recent<K, V> {
    pub fn new(room: usize) -> Self {
        let halves = Halves {
            newer: HashMap::new(),
            older: HashMap::new(),
            since: 0,
        };
        Self {
            halves: Mutex::new(halves),
            room,
        }
    }

    /// The value of a key whose end is after `now`.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: u64) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, end) = halves.newer.get(key).or_else(|| halves.older.get(key))?;
        (*end > now).then(|| value.clone())
    }

    /// Keeps a value until `end`, or until there is no room for it any more.
    pub fn put(&self, key: K, value: V, now: u64, end: u64) {
        let mut halves = self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        // an age that nothing outlives: a quiet process gives the room back with its next entry
        let is_old = now.saturating_sub(halves.since) > 60;
        if is_old || halves.newer.len() >= self.room {
            halves.older = std::mem::take(&mut halves.newer);
            halves.since = now;
        }
        halves.newer.insert(key, (value, end));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        let halves = self.halves.lock().unwrap();
        halves.newer.len() + halves.older.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lasts_until_its_end() {
        let recent = Recent::<String, u8>::new(10);
        recent.put("a".to_owned(), 1, 100, 130);
        assert_eq!((recent.get("a", 129), recent.get("a", 130)), (Some(1), None));
        recent.put("a".to_owned(), 2, 130, 160);
        assert_eq!((recent.get("a", 130), recent.get("b", 130)), (Some(2), None));
    }

    #[test]
    fn there_are_never_more_than_two_halves() {
        let recent = Recent::<u32, u32>::new(10);
        for number in 0..1_000 {
            recent.put(number, number, 100, 130);
            assert!(recent.len() <= 20);
        }
        assert_eq!(
            (recent.get(&999, 100), recent.get(&985, 100)),
            (Some(999), Some(985))
        );
        assert_eq!(recent.get(&900, 100), None);
    }

    #[test]
    fn what_nobody_asks_for_goes_with_time() {
        let recent = Recent::<u32, u32>::new(10);
        recent.put(1, 1, 100, 130);
        recent.put(2, 2, 200, 230);
        recent.put(3, 3, 300, 330);
        assert_eq!(recent.len(), 2);
    }
}

//! One question for many who ask it at the same time.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Shared, WeakShared},
};

/// Questions under way, by key. Holds no answers: who asks later asks anew.
pub(crate) struct Flights<T: Clone, K: Eq + Hash = super::Digest> {
    waiting: Arc<Waiting<K, T>>,
}

struct Waiting<K, T: Clone>(Mutex<Questions<K, T>>);

struct Questions<K, T: Clone> {
    by_key: HashMap<K, (u64, WeakShared<BoxFuture<'static, T>>)>,
    /// Tells a question from a later one of the same key.
    asked: u64,
}

impl<T: Clone, K: Eq + Hash> Default for Flights<T, K> {
    fn default() -> Self {
        Self {
            waiting: Arc::new(Waiting(Mutex::new(Questions {
                by_key: HashMap::new(),
                asked: 0,
            }))),
        }
    }
}

impl<T, K> Flights<T, K>
where
    T: Clone + Send + Sync + 'static,
    K: Eq + Hash + Copy + Send + 'static,
{
    /// Waits for the question of that key, asking it with `ask` when nobody does. It goes on while anybody waits.
    pub async fn join(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, T>) -> T {
        self.flight(key, ask).await
    }

    fn flight(&self, key: K, ask: impl FnOnce() -> BoxFuture<'static, T>) -> Shared<BoxFuture<'static, T>> {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = waiting.by_key.get(&key).and_then(|(_, flight)| flight.upgrade()) {
            return flight;
        }
        waiting.asked += 1;
        let number = waiting.asked;
        let landed = Landed {
            key,
            number,
            waiting: Arc::clone(&self.waiting),
        };
        let question = ask();
        let flight = async move {
            let _landed = landed;
            question.await
        };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            waiting.by_key.insert(key, (number, weak));
        }
        flight
    }
}

/// Forgets a question when its future ends, answered or abandoned.
struct Landed<K: Eq + Hash, T: Clone> {
    key: K,
    number: u64,
    waiting: Arc<Waiting<K, T>>,
}

impl<K: Eq + Hash, T: Clone> Drop for Landed<K, T> {
    fn drop(&mut self) {
        let mut waiting = self.waiting.0.lock().unwrap_or_else(PoisonError::into_inner);
        // somebody may have asked anew between the end of the last waiter and now: that question stays
        if waiting
            .by_key
            .get(&self.key)
            .is_some_and(|(number, _)| *number == self.number)
        {
            waiting.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::future::join_all;

    use super::*;

    /// Counts questions; each is answered with its number when the gate opens.
    #[derive(Default)]
    struct Oracle {
        asked: AtomicUsize,
        gate: tokio::sync::Notify,
    }

    fn asking(oracle: &Arc<Oracle>) -> BoxFuture<'static, usize> {
        let oracle = Arc::clone(oracle);
        Box::pin(async move {
            let number = oracle.asked.fetch_add(1, Ordering::SeqCst) + 1;
            oracle.gate.notified().await;
            number
        })
    }

    fn waiting(flights: &Flights<usize, u8>) -> usize {
        flights.waiting.0.lock().unwrap().by_key.len()
    }

    #[tokio::test]
    async fn who_asks_at_the_same_time_shares_the_answer() {
        let (flights, oracle) = (Flights::<usize, u8>::default(), Arc::new(Oracle::default()));
        let mut all = Box::pin(join_all((0..10).map(|_| flights.join(1, || asking(&oracle)))));
        assert!(futures_util::poll!(&mut all).is_pending());
        oracle.gate.notify_one();
        assert_eq!(all.await, [1; 10]);
        assert_eq!(waiting(&flights), 0);
        oracle.gate.notify_one();
        assert_eq!(flights.join(1, || asking(&oracle)).await, 2);
    }

    #[tokio::test]
    async fn an_abandoned_question_is_forgotten() {
        let (flights, oracle) = (Flights::<usize, u8>::default(), Arc::new(Oracle::default()));
        let mut abandoned = Box::pin(flights.join(1, || asking(&oracle)));
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        assert_eq!(waiting(&flights), 1);
        drop(abandoned);
        assert_eq!(waiting(&flights), 0);
        oracle.gate.notify_one();
        assert_eq!(flights.join(1, || asking(&oracle)).await, 2);
    }
}

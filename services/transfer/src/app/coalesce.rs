//! Reads of many callers become one statement, as writes become one commit.
//!
//! While a statement runs, the keys of further callers gather for the next one. A caller never gets the result of a statement
//! that had begun before the call: what it reads is at least as new as the call. Alone, a call goes at once.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use lifecycle::Lifecycle;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::error::Error;

/// Callers that may wait; one takes some 100 bytes.
const QUEUE: usize = 16_384;
/// Callers that one statement answers at most.
const CALLERS: usize = 1_024;
/// Statements at the same time: one works while the next is on its way.
const IN_FLIGHT: usize = 2;
/// How long a statement may take; the database ends it at about the same time.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where values come from.
pub trait Source<K, V>: Send + Sync + 'static {
    /// The values of keys, each of which is there once; a key without a value is left out.
    fn read(&self, keys: &[K]) -> impl Future<Output = Result<HashMap<K, V>, Error>> + Send;
}

/// Takes keys and gives values. Clones share the queue.
pub struct Coalescer<K, V> {
    queue: mpsc::Sender<Ask<K, V>>,
}

struct Ask<K, V> {
    key: K,
    deadline: Instant,
    reply: oneshot::Sender<Result<Option<V>, Error>>,
}

impl<K, V> Coalescer<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + 'static,
{
    /// A coalescer that is owned by `lifecycle`.
    pub fn start(name: &'static str, source: impl Source<K, V>, lifecycle: &Lifecycle) -> Self {
        let (queue, asks) = mpsc::channel(QUEUE);
        let life = lifecycle.clone();
        lifecycle.spawn(name, async move { answer_all(&source, asks, &life).await });
        Self { queue }
    }

    /// Reads the value of a key; none when there is none.
    pub async fn get(&self, key: K, deadline: Instant) -> Result<Option<V>, Error> {
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Ask { key, deadline, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Error::Overloaded),
            Err(TrySendError::Closed(_)) => return Err(stopped()),
        }
        match tokio::time::timeout_at(deadline.into(), answer).await {
            Ok(answer) => answer.unwrap_or_else(|_| Err(stopped())),
            Err(_) => Err(Error::Late),
        }
    }
}

/// Works until the process stops: while it drains, requests in flight still want their answers.
async fn answer_all<K, V>(
    source: &impl Source<K, V>,
    mut asks: mpsc::Receiver<Ask<K, V>>,
    lifecycle: &Lifecycle,
) where
    K: Clone + Eq + Hash + Send + Sync,
    V: Clone + Send,
{
    let mut in_flight = FuturesUnordered::new();
    loop {
        tokio::select! {
            // what nobody takes waits in the queue, which is bounded
            ask = asks.recv(), if in_flight.len() < IN_FLIGHT => match ask {
                Some(ask) => in_flight.push(answer(source, gather(ask, &mut asks))),
                None => return,
            },
            Some(()) = in_flight.next() => {}
            () = lifecycle.stopping() => return,
        }
    }
}

/// Takes what waits, without waiting for more. Whoever has gone is left out; whose time is over hears it from the timer.
fn gather<K, V>(first: Ask<K, V>, asks: &mut mpsc::Receiver<Ask<K, V>>) -> Vec<Ask<K, V>> {
    let now = Instant::now();
    let mut gathered = Vec::new();
    let mut next = Some(first);
    while let Some(ask) = next {
        if ask.deadline > now && !ask.reply.is_closed() {
            gathered.push(ask);
        }
        if gathered.len() >= CALLERS {
            break;
        }
        next = asks.try_recv().ok();
    }
    gathered
}

async fn answer<K, V>(source: &impl Source<K, V>, asks: Vec<Ask<K, V>>)
where
    K: Clone + Eq + Hash + Send + Sync,
    V: Clone + Send,
{
    if asks.is_empty() {
        return;
    }
    let mut callers: HashMap<K, Vec<oneshot::Sender<_>>> = HashMap::with_capacity(asks.len());
    for ask in asks {
        callers.entry(ask.key).or_default().push(ask.reply);
    }
    let keys: Vec<K> = callers.keys().cloned().collect();
    let found = tokio::time::timeout(PATIENCE, source.read(&keys))
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable("a read took too long".into())));
    for (key, replies) in callers {
        for reply in replies {
            // a caller who has gone needs no answer
            let _ = reply.send(match &found {
                Ok(found) => Ok(found.get(&key).cloned()),
                Err(error) => Err(again(error)),
            });
        }
    }
}

/// The same failure for another caller.
fn again(error: &Error) -> Error {
    let text = error.to_string();
    match error {
        Error::Unavailable(_) => Error::Unavailable(text.into()),
        _ => Error::Internal(text.into()),
    }
}

fn stopped() -> Error {
    Error::Unavailable("the ledger stops".into())
}

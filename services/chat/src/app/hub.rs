use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use opentelemetry::Context;
use tokio::sync::{
    Semaphore,
    mpsc::{self, error::TrySendError},
};

use super::{Error, Message};
use crate::metrics::Metrics;

/// How many signals wait for a subscriber before it counts as slow.
const INBOX: usize = 256;
/// How many subscriptions read from the database at a time, so that senders find a connection.
const READERS: usize = 4;

/// How many may subscribe.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// At this instance.
    pub subscriptions: usize,
    /// Of one user at this instance.
    pub per_user: usize,
}

/// A message that came from Kafka; all its subscribers share it.
#[derive(Debug)]
pub struct Live {
    /// The message.
    pub message: Message,
    /// The trace of the record.
    pub trace: Context,
}

/// What a subscription hears.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    /// A message.
    Message(Arc<Live>),
    /// A room was opened with the subscriber as a member.
    Opened(i64),
    /// Something may have been missed.
    Reset,
}

/// The subscriptions of this instance. No method waits.
pub struct Hub {
    state: Mutex<State>,
    limits: Limits,
    metrics: Metrics,
    readers: Semaphore,
}

#[derive(Default)]
struct State {
    next: u64,
    subscribers: HashMap<u64, Subscriber>,
    by_user: HashMap<i64, Vec<u64>>,
    by_room: HashMap<i64, Vec<u64>>,
}

struct Subscriber {
    user: i64,
    rooms: Vec<i64>,
    sender: mpsc::Sender<Signal>,
    slow: Arc<AtomicBool>,
}

/// The receiving end of a subscription. It leaves the hub when it is dropped.
pub(super) struct Inbox {
    id: u64,
    receiver: mpsc::Receiver<Signal>,
    slow: Arc<AtomicBool>,
    hub: Arc<Hub>,
}

impl Hub {
    /// A hub without subscriptions.
    pub fn new(limits: Limits, metrics: Metrics) -> Self {
        Self {
            state: Mutex::default(),
            limits,
            metrics,
            readers: Semaphore::new(READERS),
        }
    }

    /// A message came: those who follow its room hear it.
    pub fn deliver(&self, live: Live) {
        let room = live.message.room;
        let signal = Signal::Message(Arc::new(live));
        let mut state = self.state();
        let ids = state.by_room.get(&room).cloned().unwrap_or_default();
        self.signal(&mut state, &ids, &signal);
    }

    /// A room was opened: the subscriptions of its members follow it from now on.
    pub fn open(&self, room: i64, members: &[i64]) {
        let mut state = self.state();
        let ids: Vec<u64> = members
            .iter()
            .filter_map(|member| state.by_user.get(member))
            .flatten()
            .copied()
            .collect();
        for id in &ids {
            state.follow(*id, &[room]);
        }
        self.signal(&mut state, &ids, &Signal::Opened(room));
    }

    /// Something may have been missed: every subscription looks at the database.
    pub fn reset(&self) {
        let mut state = self.state();
        let ids: Vec<u64> = state.subscribers.keys().copied().collect();
        self.signal(&mut state, &ids, &Signal::Reset);
    }

    /// Takes a new subscription in. It hears of rooms opened for the user from now on.
    pub(super) fn register(self: &Arc<Self>, user: i64) -> Result<Inbox, Error> {
        let mut state = self.state();
        let own = state.by_user.get(&user).map_or(0, Vec::len);
        if state.subscribers.len() >= self.limits.subscriptions || own >= self.limits.per_user {
            return Err(Error::TooManySubscriptions);
        }
        let id = state.next;
        state.next += 1;
        let (sender, receiver) = mpsc::channel(INBOX);
        let slow = Arc::new(AtomicBool::new(false));
        state.subscribers.insert(
            id,
            Subscriber {
                user,
                rooms: Vec::new(),
                sender,
                slow: slow.clone(),
            },
        );
        state.by_user.entry(user).or_default().push(id);
        self.metrics.subscriptions(1);
        Ok(Inbox {
            id,
            receiver,
            slow,
            hub: self.clone(),
        })
    }

    /// Waits for a turn to read from the database.
    pub(super) async fn reader(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // never closed
        self.readers.acquire().await.ok()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn signal(&self, state: &mut State, ids: &[u64], signal: &Signal) {
        for id in ids {
            let Some(subscriber) = state.subscribers.get(id) else {
                continue;
            };
            match subscriber.sender.try_send(signal.clone()) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    subscriber.slow.store(true, Ordering::Relaxed);
                    self.metrics.slow();
                    self.remove(state, *id);
                }
                Err(TrySendError::Closed(_)) => self.remove(state, *id),
            }
        }
    }

    fn remove(&self, state: &mut State, id: u64) {
        let Some(subscriber) = state.subscribers.remove(&id) else {
            return;
        };
        self.metrics.subscriptions(-1);
        forget(&mut state.by_user, subscriber.user, id);
        for room in subscriber.rooms {
            forget(&mut state.by_room, room, id);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // no code that holds the lock can panic half way through a change
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn follow(&mut self, id: u64, rooms: &[i64]) {
        let Some(subscriber) = self.subscribers.get_mut(&id) else {
            return;
        };
        for room in rooms {
            let ids = self.by_room.entry(*room).or_default();
            if !ids.contains(&id) {
                ids.push(id);
                subscriber.rooms.push(*room);
            }
        }
    }
}

fn forget(index: &mut HashMap<i64, Vec<u64>>, key: i64, id: u64) {
    if let Some(ids) = index.get_mut(&key) {
        ids.retain(|other| *other != id);
        if ids.is_empty() {
            index.remove(&key);
        }
    }
}

impl Inbox {
    /// Hears the messages of these rooms from now on.
    pub(super) fn follow(&self, rooms: &[i64]) {
        self.hub.state().follow(self.id, rooms);
    }

    /// The next signal; an error when too many had to wait. Cancel safe.
    pub(super) async fn recv(&mut self) -> Result<Signal, Error> {
        if self.slow.load(Ordering::Relaxed) {
            return Err(Error::SlowSubscriber);
        }
        // the hub lets go of the sender only when the subscriber is slow
        self.receiver.recv().await.ok_or(Error::SlowSubscriber)
    }

    /// The next signal when one waits.
    pub(super) fn try_recv(&mut self) -> Result<Option<Signal>, Error> {
        if self.slow.load(Ordering::Relaxed) {
            return Err(Error::SlowSubscriber);
        }
        Ok(self.receiver.try_recv().ok())
    }

    pub(super) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        let mut state = self.hub.state();
        self.hub.remove(&mut state, self.id);
    }
}

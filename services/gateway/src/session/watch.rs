//! Sessions with open streams: a stream is let in once and lasts, so its session is looked at again and again, and the
//! stream ends with it.
//!
//! Redis is asked for all of them at once, every [`EVERY`]. Auth is asked where Redis knows nothing, and for all while Redis
//! is away, fewer times. When neither can tell, nobody is logged out.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, future, stream};
use lifecycle::Lifecycle;
use rpc::Caller;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{Cached, Digest, Found, Sessions, cache_key, hex, resolve, unix_now};

/// How often Redis is asked. With the deadline of a command it stays below the second in which an ended session stops.
const EVERY: Duration = Duration::from_millis(400);
/// Sessions in one command to Redis.
const BATCH: usize = 500;
/// How often auth is asked about a session that Redis does not know, and about each one while Redis is away.
const WHEN_MISSING: Duration = Duration::from_secs(30);
const WHEN_AWAY: Duration = Duration::from_secs(2);
/// Questions to auth at the same time, and those that may wait; the others are found due again at the next look.
const ASKED_AT_ONCE: usize = 32;
const WAITING: usize = 4_096;
/// The pause of one of the places above after auth could not tell.
const PAUSE: Duration = Duration::from_millis(100);

/// The sessions that have open streams. Each is in it while it has one, so there are never more than streams.
#[derive(Default)]
pub(super) struct Registry(Mutex<HashMap<Digest, Entry>>);

struct Entry {
    streams: usize,
    ended: CancellationToken,
    /// In Unix seconds, as soon as the first look tells.
    expires_at: i64,
    /// When auth was asked last.
    asked: Option<Instant>,
}

/// A stream's hold on its session; gives it back when it is dropped.
pub(crate) struct Watched {
    registry: Arc<Registry>,
    digest: Digest,
    ended: CancellationToken,
}

impl Watched {
    /// Waits until the session has ended.
    pub async fn ended(self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let mut entries = self.registry.entries();
        if let Some(entry) = entries.get_mut(&self.digest) {
            entry.streams -= 1;
            if entry.streams == 0 {
                entries.remove(&self.digest);
            }
        }
    }
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, HashMap<Digest, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(self: &Arc<Self>, digest: Digest) -> Watched {
        let mut entries = self.entries();
        let entry = entries.entry(digest).or_insert_with(|| Entry {
            streams: 0,
            ended: CancellationToken::new(),
            expires_at: i64::MAX,
            asked: None,
        });
        entry.streams += 1;
        Watched {
            registry: Arc::clone(self),
            digest,
            ended: entry.ended.clone(),
        }
    }

    /// Ends those whose time is over, and returns the others that have not ended.
    fn open(&self, now: i64) -> Vec<Digest> {
        let mut open = Vec::new();
        for (digest, entry) in &*self.entries() {
            if entry.expires_at <= now {
                entry.ended.cancel();
            }
            if !entry.ended.is_cancelled() {
                open.push(*digest);
            }
        }
        open
    }

    fn learn(&self, digest: &Digest, found: &Found) {
        if let Some(entry) = self.entries().get_mut(digest) {
            match found {
                Found::Session { expires_at, .. } => entry.expires_at = *expires_at,
                Found::Invalid => entry.ended.cancel(),
                Found::Unknown => {}
            }
        }
    }

    fn is_open(&self, digest: &Digest) -> bool {
        self.entries()
            .get(digest)
            .is_some_and(|entry| !entry.ended.is_cancelled())
    }

    /// Those that auth has not been asked about for a while, the longest first, marked as asked now; at most `limit`.
    fn due(&self, digests: &[Digest], pause: Duration, now: Instant, limit: usize) -> Vec<Digest> {
        let mut entries = self.entries();
        let mut due: Vec<(Option<Instant>, Digest)> = digests
            .iter()
            .filter_map(|digest| {
                let asked = entries.get(digest)?.asked;
                let pause = own_pause(pause, digest);
                asked
                    .is_none_or(|asked| now.saturating_duration_since(asked) >= pause)
                    .then_some((asked, *digest))
            })
            .collect();
        due.sort_unstable();
        due.truncate(limit);
        for (_, digest) in &due {
            if let Some(entry) = entries.get_mut(digest) {
                entry.asked = Some(now);
            }
        }
        due.into_iter().map(|(_, digest)| digest).collect()
    }
}

/// Up to a quarter longer, by the digest: streams that began together drift apart.
fn own_pause(pause: Duration, digest: &Digest) -> Duration {
    pause + pause * u32::from(digest[0]) / 1024
}

impl Sessions {
    /// Watches the caller's session for a stream, if the caller has one.
    pub fn watch(&self, caller: &Caller) -> Option<Watched> {
        Some(self.streams.add(digest_of(caller)?))
    }

    /// Looks at the watched sessions until the lifecycle stops.
    pub async fn look_after_streams(self: Arc<Self>, lifecycle: Lifecycle) {
        let (questions, mut waiting) = mpsc::channel(WAITING);
        let looking = async {
            let mut ticks = interval(EVERY);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                self.known.sweep(std::time::Instant::now());
                self.look(&questions).await;
            }
        };
        let asking = stream::poll_fn(move |cx| waiting.poll_recv(cx))
            .for_each_concurrent(ASKED_AT_ONCE, |digest| Arc::clone(&self).ask_again(digest));
        tokio::select! {
            ((), ()) = future::join(looking, asking) => {}
            () = lifecycle.stopping() => {}
        }
    }

    async fn look(&self, questions: &mpsc::Sender<Digest>) {
        let open = self.streams.open(unix_now());
        let mut missing = Vec::new();
        let mut batches = open.chunks(BATCH);
        while let Some(batch) = batches.next() {
            let keys: Vec<String> = batch.iter().map(|digest| cache_key(&hex(digest))).collect();
            match self.cache.get_many::<Cached>(&keys).await {
                Ok(values) => {
                    let now = unix_now();
                    for (digest, value) in batch.iter().zip(values) {
                        match value {
                            Some(cached) => self.learn(digest, &cached.into_found(now)),
                            None => missing.push(*digest),
                        }
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "watched sessions not read from redis");
                    let rest: Vec<Digest> = batch.iter().chain(batches.flatten()).copied().collect();
                    self.question(questions, &rest, WHEN_AWAY);
                    break;
                }
            }
        }
        self.question(questions, &missing, WHEN_MISSING);
    }

    fn learn(&self, digest: &Digest, found: &Found) {
        if *found == Found::Invalid {
            self.known.forget(digest);
        }
        self.streams.learn(digest, found);
    }

    /// Has auth asked about those that are due, as far as there is room.
    fn question(&self, questions: &mpsc::Sender<Digest>, digests: &[Digest], pause: Duration) {
        for digest in self
            .streams
            .due(digests, pause, Instant::now(), questions.capacity())
        {
            // there is room: nobody else sends
            let _ = questions.try_send(digest);
        }
    }

    async fn ask_again(self: Arc<Self>, digest: Digest) {
        if !self.streams.is_open(&digest) {
            return;
        }
        match resolve(self.auth.clone(), digest).await {
            Ok(found) => self.learn(&digest, &found),
            // not a warning: it would be one for each stream; who calls next is told, and the channel logs the outage
            Err(status) => {
                tracing::debug!(code = ?status.code(), "auth did not resolve a watched session");
                sleep(PAUSE).await;
            }
        }
    }
}

/// The session of a caller who has one.
pub(super) fn digest_of(caller: &Caller) -> Option<Digest> {
    match caller {
        Caller::User {
            session: Some(session),
            ..
        } => read_hex(session),
        _ => None,
    }
}

/// The digest that was written with [`hex`].
pub(super) fn read_hex(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const ONE: Digest = [0; 32];
    const TWO: Digest = [1; 32];

    fn live(expires_at: i64) -> Found {
        Found::Session {
            user_id: 1,
            operator: false,
            expires_at,
        }
    }

    #[test]
    fn a_session_is_watched_while_it_has_streams() {
        let registry = Arc::<Registry>::default();
        let (first, second) = (registry.add(ONE), registry.add(ONE));
        assert_eq!(registry.open(0), [ONE]);
        drop(first);
        assert_eq!(registry.open(0), [ONE]);
        drop(second);
        assert!(registry.entries().is_empty());
        // a hold that waits is one, too
        let waiting = registry.add(ONE).ended();
        assert_eq!(registry.open(0), [ONE]);
        drop(waiting);
        assert!(registry.entries().is_empty());
    }

    #[test]
    fn all_streams_of_an_ended_session_end_and_no_others() {
        let registry = Arc::<Registry>::default();
        let (first, second, other) = (registry.add(ONE), registry.add(ONE), registry.add(TWO));
        registry.learn(&ONE, &live(100));
        registry.learn(&ONE, &Found::Unknown);
        assert!(registry.is_open(&ONE));
        registry.learn(&ONE, &Found::Invalid);
        assert!(!registry.is_open(&ONE) && registry.open(0) == [TWO]);
        assert!(first.ended().now_or_never().is_some());
        assert!(second.ended().now_or_never().is_some());
        assert!(other.ended().now_or_never().is_none());
        assert!(registry.entries().is_empty());
    }

    #[test]
    fn a_session_ends_by_itself_at_its_time() {
        let registry = Arc::<Registry>::default();
        let stream = registry.add(ONE);
        registry.learn(&ONE, &live(100));
        assert_eq!(registry.open(99), [ONE]);
        assert!(registry.open(100).is_empty());
        assert!(stream.ended().now_or_never().is_some());
    }

    #[test]
    fn auth_is_asked_now_and_then_the_longest_waiting_first() {
        let registry = Arc::<Registry>::default();
        let _streams = (registry.add(ONE), registry.add(TWO));
        let due = |pause, at, limit| registry.due(&[ONE, TWO], pause, at, limit);
        let (start, nobody) = (Instant::now(), Vec::<Digest>::new());
        let second = start + Duration::from_millis(1);
        assert_eq!(due(WHEN_AWAY, start, 0), nobody);
        assert_eq!(due(WHEN_AWAY, start, 1), [ONE]);
        assert_eq!(due(WHEN_AWAY, second, 9), [TWO]);
        assert_eq!(due(WHEN_AWAY, second, 9), nobody);
        assert_eq!(due(WHEN_AWAY, start + WHEN_AWAY, 9), [ONE]);
        assert_eq!(due(WHEN_AWAY, second + own_pause(WHEN_AWAY, &TWO), 9), [TWO]);
        let later = start + WHEN_MISSING;
        assert_eq!(due(WHEN_MISSING, later, 9), nobody);
        assert_eq!(due(WHEN_MISSING, later + WHEN_MISSING, 9), [ONE, TWO]);
    }

    #[test]
    fn a_digest_is_read_from_hex() {
        let digest: Digest = std::array::from_fn(|n| u8::try_from(n * 8).unwrap_or_default());
        assert_eq!(read_hex(&hex(&digest)), Some(digest));
        assert_eq!(read_hex("00"), None);
        assert_eq!(read_hex(&"x".repeat(64)), None);
    }
}

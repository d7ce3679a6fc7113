//! A small, steady load from outside of the cluster, whose users hold the system to its word.
//!
//! Each user moves money to the next one and writes to them, reads, and signs in now and then. What is unknown is asked again with
//! the same id until there is an answer, so that at the end every acknowledged transfer is in the balances once, and every
//! acknowledged message is in the history once. The first user subscribes, and gets each message to them once, in order.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::future::{join, try_join, try_join_all};
use proto::chat::v1::{Message, RoomPosition, chat_service_client::ChatServiceClient};
use uuid::Uuid;

use super::{Cluster, PATIENCE};
use crate::{
    eventually::{eventually, same},
    rest::{Answer, Rest},
    user::{User, sign_in},
    world::Subscription,
};

/// What each user has at first, in minor units: enough for every transfer of a test.
const START: i64 = 100_000;
/// Of how many requests of a user one is a sign-in, which costs a password hash.
const SIGN_IN_EVERY: usize = 24;

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What was asked for.
    pub what: &'static str,
    /// When it was sent.
    pub begin: Instant,
    /// When the answer was there, or when it was clear that there would be none.
    pub end: Instant,
    /// Why it failed: the status and the sentence, or why there was no answer.
    pub failure: Option<String>,
}

/// The users, and what they were told.
pub struct Load {
    cluster: Cluster,
    users: Vec<User>,
    pace: Duration,
    /// Users are to make no more requests.
    stopped: AtomicBool,
    /// All of their requests are answered.
    quiet: AtomicBool,
    /// The rooms of the first user, and their last positions when the load begins.
    rooms: BTreeMap<i64, i64>,
    attempts: Mutex<Vec<Attempt>>,
    /// Acknowledged, by sender: how many transfers of one minor unit, and the ids of messages.
    moved: Mutex<BTreeMap<usize, i64>>,
    written: Mutex<BTreeMap<usize, Vec<String>>>,
    /// What the first user was sent live.
    delivered: Mutex<Vec<(Instant, Message)>>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Signs so many users up; each then makes a request every `pace`.
    pub async fn prepare(cluster: &Cluster, users: usize, pace: Duration) -> Result<Self> {
        let operator = cluster.operator().await?;
        let users = try_join_all((0..users).map(async |n| {
            // one by one would be slow, all at once more than the limit of sign-ups from one address
            let name = format!("Load{n}");
            cluster.user(&operator, &name, START).await
        }))
        .await?;
        let (first, last) = (&users[0], &users[users.len() - 1]);
        let mut rooms = BTreeMap::new();
        for (from, to) in [(first, &users[1]), (last, first)] {
            let sent = from.write(to.id, "hello", Uuid::new_v4()).await?.expect(201)?;
            let number = |name: &str| sent[name].as_i64().with_context(|| format!("no {name}: {sent}"));
            rooms.insert(number("room_id")?, number("seq")?);
        }
        Ok(Self {
            cluster: cluster.clone(),
            users,
            pace,
            stopped: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            rooms,
            attempts: Mutex::default(),
            moved: Mutex::default(),
            written: Mutex::default(),
            delivered: Mutex::default(),
        })
    }

    /// Runs the load while `body` runs; behind it every request is answered, and everything that was promised is looked up.
    pub async fn during<T>(&self, body: impl Future<Output = Result<T>>) -> Result<T> {
        let body = async {
            let done = body.await;
            self.stopped.store(true, Ordering::Release);
            done
        };
        let users = async {
            let done = try_join_all((0..self.users.len()).map(|n| self.act(n))).await;
            self.quiet.store(true, Ordering::Release);
            done
        };
        // a user who cannot go on must not hide why the body failed, nor the other way round
        let (done, (users, subscribed)) = join(body, join(users, self.subscribe())).await;
        let done = done?;
        users.context("a user")?;
        subscribed.context("the subscriber")?;
        self.nothing_is_lost().await?;
        Ok(done)
    }

    /// How many requests were answered well so far.
    pub fn answered(&self) -> usize {
        locked(&self.attempts)
            .iter()
            .filter(|attempt| attempt.failure.is_none())
            .count()
    }

    /// The requests that were sent since a moment.
    pub fn since(&self, begin: Instant) -> Vec<Attempt> {
        locked(&self.attempts)
            .iter()
            .filter(|attempt| attempt.begin >= begin)
            .cloned()
            .collect()
    }

    /// An error that shows them, if any request has failed.
    pub fn no_request_failed(&self) -> Result<()> {
        let attempts = locked(&self.attempts);
        let failed: Vec<_> = attempts
            .iter()
            .filter_map(|attempt| Some(format!("{}: {}", attempt.what, attempt.failure.as_ref()?)))
            .collect();
        ensure!(
            failed.is_empty(),
            "{} of {} requests failed:\n{}",
            failed.len(),
            attempts.len(),
            failed.iter().take(12).cloned().collect::<Vec<_>>().join("\n")
        );
        Ok(())
    }

    /// The longest time without a message for the subscriber, among those that came since a moment.
    pub fn longest_silence(&self, begin: Instant) -> Duration {
        let delivered = locked(&self.delivered);
        let moments: Vec<_> = std::iter::once(begin)
            .chain(delivered.iter().map(|(at, _)| *at).filter(|at| *at >= begin))
            .collect();
        let pauses = moments.windows(2).map(|pair| pair[1] - pair[0]);
        pauses.max().unwrap_or_default()
    }

    /// Waits until so many more requests of each kind, sent from now on, were answered well and one more message was delivered.
    pub async fn goes_on(&self, more: usize) -> Result<()> {
        let begin = Instant::now();
        eventually("the load goes on", PATIENCE, async || {
            let since = self.since(begin);
            for what in ["transfer", "message", "read"] {
                let well = since
                    .iter()
                    .filter(|attempt| attempt.what == what && attempt.failure.is_none())
                    .count();
                ensure!(well >= more, "{well} of {more} × {what}");
            }
            let delivered = locked(&self.delivered).last().map(|(at, _)| *at);
            ensure!(delivered.is_some_and(|at| at >= begin), "no message is delivered");
            Ok(())
        })
        .await
    }

    /// One user's requests, one after the other, until the end.
    async fn act(&self, n: usize) -> Result<()> {
        let (user, next) = (&self.users[n], &self.users[(n + 1) % self.users.len()]);
        let mut turn = n;
        while !self.stopped.load(Ordering::Acquire) {
            let begin = Instant::now();
            if turn.is_multiple_of(SIGN_IN_EVERY) {
                self.until_answered("sign-in", async || self.sign_in(user).await)
                    .await?;
            } else {
                match turn % 3 {
                    0 => self.transfer(n, next).await?,
                    1 => self.write(n, next).await?,
                    _ => {
                        let path = format!("/api/users/{}", user.id);
                        self.until_answered("read", async || user.rest.get(&path).await)
                            .await?;
                    }
                }
            }
            turn += 1;
            let left = self.pace.saturating_sub(begin.elapsed());
            tokio::time::sleep(left).await;
        }
        Ok(())
    }

    async fn sign_in(&self, user: &User) -> Result<Answer> {
        let body =
            serde_json::json!({"email": user.email, "password": crate::user::PASSWORD, "bearer": true});
        self.rest_of(user).post("/api/login", &body).await
    }

    fn rest_of(&self, user: &User) -> Rest {
        user.rest.at(self.cluster.gateway())
    }

    async fn transfer(&self, n: usize, to: &User) -> Result<()> {
        let id = Uuid::new_v4();
        self.until_answered("transfer", async || self.users[n].transfer(to.id, 1, id).await)
            .await?;
        *locked(&self.moved).entry(n).or_default() += 1;
        Ok(())
    }

    async fn write(&self, n: usize, to: &User) -> Result<()> {
        let id = Uuid::new_v4();
        let text = format!("from {n}");
        self.until_answered("message", async || self.users[n].write(to.id, &text, id).await)
            .await?;
        locked(&self.written).entry(n).or_default().push(id.to_string());
        Ok(())
    }

    /// Sends a request until it is answered well, and remembers each attempt.
    async fn until_answered(
        &self,
        what: &'static str,
        mut send: impl AsyncFnMut() -> Result<Answer>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let begin = Instant::now();
            let answer = send().await;
            let (failure, may_go_on) = match answer {
                Ok(answer) if matches!(answer.status, 200 | 201) => (None, true),
                // 429: also how a service says that it has no room
                Ok(answer) => (
                    Some(format!("{} {}", answer.status, answer.text)),
                    answer.is_unknown() || answer.status == 429,
                ),
                Err(error) => (Some(format!("{error:#}")), true),
            };
            let failed = failure.clone();
            locked(&self.attempts).push(Attempt {
                what,
                begin,
                end: Instant::now(),
                failure,
            });
            match failed {
                None => return Ok(()),
                Some(failure) if !may_go_on => bail!("{what} was refused: {failure}"),
                Some(failure) if Instant::now() >= deadline => bail!("{what} is never answered: {failure}"),
                Some(_) => tokio::time::sleep(self.pace).await,
            }
        }
    }

    /// The first user's live messages, until all that were acknowledged are there; a subscription that ends is resumed.
    async fn subscribe(&self) -> Result<()> {
        let user = &self.users[0];
        let mut last = self.rooms.clone();
        let mut since_quiet = None;
        while !self.all_is_delivered() {
            let positions = last
                .iter()
                .map(|(&room_id, &after_seq)| RoomPosition { room_id, after_seq })
                .collect::<Vec<_>>();
            let begun = tokio::time::timeout(
                Duration::from_secs(10),
                Subscription::begin(ChatServiceClient::new(self.cluster.door(user)?), positions),
            );
            let Ok(Ok(mut subscription)) = begun.await else {
                tokio::time::sleep(self.pace).await;
                continue;
            };
            while !self.all_is_delivered() {
                if self.quiet.load(Ordering::Acquire) {
                    let quiet = since_quiet.get_or_insert_with(Instant::now);
                    ensure!(
                        quiet.elapsed() < PATIENCE,
                        "acknowledged messages are not delivered"
                    );
                }
                // silence is no end: Kafka may be away
                let next = tokio::time::timeout(Duration::from_secs(1), subscription.step(PATIENCE)).await;
                match next {
                    Err(_) => {}
                    Ok(Ok(Some(message))) => self.take(message, &mut last)?,
                    Ok(Ok(None) | Err(_)) => break,
                }
            }
        }
        Ok(())
    }

    /// A message came: it must be the next one of its room.
    fn take(&self, message: Message, last: &mut BTreeMap<i64, i64>) -> Result<()> {
        let before = last.insert(message.room_id, message.seq);
        ensure!(
            before.is_some_and(|before| message.seq == before + 1),
            "room {}: message {} after {before:?}",
            message.room_id,
            message.seq
        );
        locked(&self.delivered).push((Instant::now(), message));
        Ok(())
    }

    /// Whether the load is over and every message from and to the first user has come.
    fn all_is_delivered(&self) -> bool {
        if !self.quiet.load(Ordering::Acquire) {
            return false;
        }
        let delivered: BTreeSet<_> = locked(&self.delivered)
            .iter()
            .map(|(_, message)| message.message_id.clone())
            .collect();
        let written = locked(&self.written);
        [0, self.users.len() - 1]
            .iter()
            .filter_map(|sender| written.get(sender))
            .flatten()
            .all(|id| delivered.contains(id))
    }

    /// Every acknowledged transfer counts once, every acknowledged message stands in the history once.
    async fn nothing_is_lost(&self) -> Result<()> {
        let moved = locked(&self.moved).clone();
        let of = |n: usize| moved.get(&n).copied().unwrap_or_default();
        let count = self.users.len();
        for (n, user) in self.users.iter().enumerate() {
            let balance = START - of(n) + of((n + count - 1) % count);
            eventually("a balance can be read", PATIENCE, async || user.balance().await).await?;
            same(&user.balance().await?, &balance)
                .with_context(|| format!("the balance of {}", user.name))?;
        }
        let written = locked(&self.written).clone();
        for (n, ids) in &written {
            let next = &self.users[(n + 1) % count];
            let mut history = BTreeSet::new();
            for id in history_of(&self.users[*n], next).await? {
                ensure!(history.insert(id.clone()), "message {id} is there twice");
            }
            let lost: Vec<_> = ids.iter().filter(|id| !history.contains(*id)).collect();
            ensure!(lost.is_empty(), "acknowledged and not there: {lost:?}");
        }
        Ok(())
    }
}

/// The ids of all messages that one user has sent to the other.
async fn history_of(from: &User, to: &User) -> Result<Vec<String>> {
    let (mut ids, mut token) = (Vec::new(), String::new());
    loop {
        let path = format!(
            "/api/messages/{}/{}?page_size=100&page_token={token}",
            from.id, to.id
        );
        let page = from.rest.get(&path).await?.expect(200)?;
        let own = page["messages"].as_array().into_iter().flatten();
        ids.extend(
            own.filter(|message| message["sender_id"] == from.id)
                .filter_map(|message| message["message_id"].as_str())
                .map(str::to_owned),
        );
        match page["previous_page_token"].as_str() {
            Some(previous) if !previous.is_empty() => previous.clone_into(&mut token),
            _ => return Ok(ids),
        }
    }
}

/// Signs users in at once, again and again, until `body` is done: passwords are what costs most CPU.
pub async fn sign_ins_during<T>(
    users: &[User],
    at_once: usize,
    pace: Duration,
    body: impl Future<Output = Result<T>>,
) -> Result<T> {
    let stopped = AtomicBool::new(false);
    let body = async {
        let done = body.await;
        stopped.store(true, Ordering::Release);
        done
    };
    let load = try_join_all((0..at_once).map(async |n| {
        let user = &users[n % users.len()];
        while !stopped.load(Ordering::Acquire) {
            // refused or not: what is looked at is the work that it makes
            let _ = sign_in(&user.rest, &user.email, crate::user::PASSWORD).await;
            tokio::time::sleep(pace).await;
        }
        anyhow::Ok(())
    }));
    let (done, _) = try_join(body, load).await?;
    Ok(done)
}

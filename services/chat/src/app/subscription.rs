use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use lifecycle::Lifecycle;

use super::{
    Chat, Directory, Error, Live, Message, Position, Retry, Standing, Store,
    hub::{Inbox, Signal},
};
use crate::domain::feed::{Feed, Verdict};

/// How many rooms a subscription follows when it begins: the newest. Anybody can make a user a member of many rooms, so more
/// of them is no reason to refuse.
const NEWEST_ROOMS: usize = 10_000;
/// How many messages are read from the history at a time.
const PAGE: i64 = 100;

/// A message for a subscriber.
#[derive(Debug)]
pub enum Delivered {
    /// It came through Kafka.
    Live(Arc<Live>),
    /// It was read from the history.
    History(Message),
}

/// A subscription that is live. Dropping it ends it.
pub struct Subscription<S> {
    user: i64,
    inbox: Inbox,
    feed: Feed,
    /// Rooms with lower numbers are not among the newest.
    oldest: i64,
    /// What was read from the history and not delivered yet.
    page: VecDeque<Message>,
    store: S,
    lifecycle: Lifecycle,
}

impl<S: Store, D: Directory> Chat<S, D> {
    /// Subscribes to the newest rooms of the caller and to those that are named. From the return on nothing is missed. Tells
    /// where each room begins.
    pub async fn subscribe(
        &self,
        caller: i64,
        from: &[Position],
    ) -> Result<(Vec<Position>, Subscription<S>), Error> {
        if self.lifecycle.is_draining() {
            return Err(Error::Draining);
        }
        // First it hears of new rooms, then it follows the rooms that there are, and only then it looks where they stand:
        // whatever is stored after each look comes as a signal, in whatever order the two meet.
        let inbox = self.hub.register(caller)?;
        let mut subscription = Subscription {
            user: caller,
            inbox,
            feed: Feed::default(),
            oldest: i64::MIN,
            page: VecDeque::new(),
            store: self.store.clone(),
            lifecycle: self.lifecycle.clone(),
        };
        let named: Vec<i64> = from.iter().map(|position| position.room).collect();
        let standings = subscription.look(&named).await?;
        subscription.oldest = oldest(&standings);
        let mut begins: HashMap<i64, (i64, i64)> = standings
            .into_iter()
            .map(|standing| (standing.room, (standing.last_seq, standing.last_seq)))
            .collect();
        for (index, position) in from.iter().enumerate() {
            let (begin, last) = begins.get_mut(&position.room).ok_or(Error::RoomNotFound)?;
            if position.seq > *last {
                return Err(Error::PositionBehindEnd { index });
            }
            *begin = position.seq;
        }
        for (room, (begin, last)) in &begins {
            subscription.feed.follow(*room, *begin, *last);
        }
        let mut positions: Vec<Position> = begins
            .into_iter()
            .map(|(room, (begin, _))| Position { room, seq: begin })
            .collect();
        positions.sort_unstable_by_key(|position| position.room);
        Ok((positions, subscription))
    }
}

impl<S: Store> Subscription<S> {
    /// The next message. The subscription is over after an error.
    pub async fn next(&mut self) -> Result<Delivered, Error> {
        loop {
            if self.lifecycle.is_draining() {
                return Err(Error::Draining);
            }
            if let Some(message) = self.page.pop_front() {
                self.feed
                    .advance(message.room, message.seq)
                    .map_err(|_| hole(message.room))?;
                self.inbox.hub().metrics().delivered("history");
                return Ok(Delivered::History(message));
            }
            // what waits goes first: the history is read at the subscriber's pace, and meanwhile the inbox fills
            if let Some(signal) = self.inbox.try_recv()? {
                if let Some(live) = self.hear(signal).await? {
                    return Ok(Delivered::Live(live));
                }
                continue;
            }
            if self.read().await? {
                continue;
            }
            let signal = tokio::select! {
                signal = self.inbox.recv() => signal?,
                () = self.lifecycle.draining() => return Err(Error::Draining),
            };
            if let Some(live) = self.hear(signal).await? {
                return Ok(Delivered::Live(live));
            }
        }
    }

    async fn hear(&mut self, signal: Signal) -> Result<Option<Arc<Live>>, Error> {
        match signal {
            Signal::Message(live) => match self.feed.offer(live.message.room, live.message.seq) {
                Verdict::Deliver => {
                    self.inbox.hub().metrics().delivered("live");
                    return Ok(Some(live));
                }
                Verdict::Behind => self.inbox.hub().metrics().behind(),
                Verdict::Seen | Verdict::Foreign => {}
            },
            Signal::Opened(room) if room >= self.oldest => self.feed.follow(room, 0, 0),
            // told again, of one that is not followed
            Signal::Opened(_) => {}
            Signal::Reset => {
                let followed: Vec<i64> = self.feed.rooms().collect();
                for standing in self.look(&followed).await? {
                    // a room that is new was opened after the subscription began, as only such a room can come in among the
                    // newest: all of it is due
                    self.feed.follow(standing.room, 0, standing.last_seq);
                }
            }
        }
        Ok(None)
    }

    /// Follows the newest rooms of the user and the named ones, then looks where they stand.
    async fn look(&self, named: &[i64]) -> Result<Vec<Standing>, Error> {
        let hub = self.inbox.hub().clone();
        let _turn = hub.reader().await;
        let limit = i64::try_from(NEWEST_ROOMS).unwrap_or(i64::MAX);
        let rooms = self.store.newest_rooms(self.user, named, limit).await?;
        self.inbox.follow(&rooms);
        // a room that came in between is not among them: its own signal is on the way
        Ok(self.store.standings(&rooms).await?)
    }

    /// Reads a page of the history when some room is behind.
    async fn read(&mut self) -> Result<bool, Error> {
        let Some(gap) = self.feed.next_gap() else {
            return Ok(false);
        };
        let hub = self.inbox.hub().clone();
        let page = {
            let _turn = hub.reader().await;
            self.store.messages_after(gap.room, gap.after, PAGE).await?
        };
        if page.is_empty() {
            return Err(hole(gap.room));
        }
        hub.metrics().filled();
        self.page = page.into();
        Ok(true)
    }
}

/// The oldest of the newest rooms, when there are more than these.
fn oldest(standings: &[Standing]) -> i64 {
    let mut rooms: Vec<i64> = standings.iter().map(|standing| standing.room).collect();
    // those that are named besides are older than all of the newest
    rooms.sort_unstable_by(|one, other| other.cmp(one));
    rooms.get(NEWEST_ROOMS - 1).copied().unwrap_or(i64::MIN)
}

/// The database does not have what it was said to have: it has gone back. The subscriber begins anew.
fn hole(room: i64) -> Error {
    Error::Failed(Retry::Later(
        format!("the history of room {room} has a hole").into(),
    ))
}

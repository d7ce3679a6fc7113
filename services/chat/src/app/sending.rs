//! Writing: messages and rooms.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Chat, Created, Directory, Draft, Error, Message, NewRoom, Retry, Sent, Store, Stored};
use crate::domain::{
    direct::Pair,
    user::{Status, Unreachable, reachable},
};

/// How many users are asked for at a time.
const ASKED_AT_ONCE: usize = 8;
/// How many rooms a user may create: every room is in the lists of others, who do not choose to be its members.
const MAX_CREATED: i64 = 1_000;

impl<S: Store, D: Directory> Chat<S, D> {
    /// Stores a message to another user. The same again gives the first result.
    pub async fn send_direct(&self, caller: i64, pair: Pair, draft: Draft) -> Result<Sent, Error> {
        if draft.sender != caller {
            return Err(Error::NotTheSender);
        }
        let receiver = pair.other(caller);
        let same = |message: &Message| message.receiver == Some(receiver);
        let statuses = self.statuses(&[caller, receiver]).await?;
        if let Err(error) = may_send(&statuses, caller).and_then(|()| may_receive(&statuses, receiver)) {
            return self.sent_before(&draft, same, error).await;
        }
        settle(self.store.send_direct(pair, &draft).await?, &draft, same)
    }

    /// Stores a message to a room of the caller. The same again gives the first result.
    pub async fn send(&self, caller: i64, room: i64, draft: Draft) -> Result<Sent, Error> {
        if draft.sender != caller {
            return Err(Error::NotTheSender);
        }
        let same = |message: &Message| message.room == room;
        let statuses = self.statuses(&[caller]).await?;
        if let Err(error) = may_send(&statuses, caller) {
            return self.sent_before(&draft, same, error).await;
        }
        settle(self.store.send(room, &draft).await?, &draft, same)
    }

    /// Creates a room. The same again gives the first result.
    pub async fn create_room(&self, room: NewRoom) -> Result<i64, Error> {
        let statuses = self.statuses(&room.members).await?;
        let mut others = room.members.iter().filter(|member| **member != room.creator);
        let allowed = may_send(&statuses, room.creator)
            .and_then(|()| others.try_for_each(|member| may_receive(&statuses, *member)));
        let created = match allowed {
            Ok(()) => self.store.create_room(&room, MAX_CREATED).await?,
            // a retry of what was allowed before
            Err(refusal) => self.store.created_room(&room).await?.ok_or(refusal)?,
        };
        match created {
            Created::Room(id) => Ok(id),
            Created::Other => Err(Error::RequestIdReused),
            Created::Full => Err(Error::TooManyRoomsCreated),
        }
    }

    /// The answer to a message that may not be sent now: what was answered before, if it is a retry.
    async fn sent_before(
        &self,
        draft: &Draft,
        same_place: impl Fn(&Message) -> bool,
        refusal: Error,
    ) -> Result<Sent, Error> {
        match self.store.message(draft.id).await? {
            Some(message) if is_same(&message, draft) && same_place(&message) => Ok(sent(&message)),
            Some(_) | None => Err(refusal),
        }
    }

    /// What is known about users: from the own projection, else from the directory. No row is locked meanwhile.
    async fn statuses(&self, users: &[i64]) -> Result<HashMap<i64, Status>, Retry> {
        let mut known: HashMap<i64, Status> = self.store.users(users).await?.into_iter().collect();
        let missing: Vec<i64> = users
            .iter()
            .copied()
            .filter(|user| !known.contains_key(user))
            .collect();
        let asked: Vec<(i64, Option<Status>)> = stream::iter(missing)
            .map(|user| async move { Ok::<_, Retry>((user, self.ask(user).await?)) })
            .buffer_unordered(ASKED_AT_ONCE)
            .try_collect()
            .await?;
        known.extend(
            asked
                .into_iter()
                .filter_map(|(user, status)| Some((user, status?))),
        );
        Ok(known)
    }

    async fn ask(&self, user: i64) -> Result<Option<Status>, Retry> {
        let status = self.directory.status(user).await?;
        if status == Some(Status::Active) {
            self.store.remember_active(user).await?;
        }
        Ok(status)
    }
}

fn may_send(statuses: &HashMap<i64, Status>, user: i64) -> Result<(), Error> {
    match statuses.get(&user) {
        Some(Status::Active) => Ok(()),
        Some(Status::Pending | Status::Frozen | Status::Closed) | None => Err(Error::CallerNotActive),
    }
}

fn may_receive(statuses: &HashMap<i64, Status>, user: i64) -> Result<(), Error> {
    reachable(statuses.get(&user).copied()).map_err(|why| match why {
        Unreachable::Absent => Error::UserNotFound,
        Unreachable::Frozen => Error::UserFrozen,
    })
}

fn is_same(message: &Message, draft: &Draft) -> bool {
    message.sender == draft.sender && message.content == draft.content
}

fn sent(message: &Message) -> Sent {
    Sent {
        room: message.room,
        seq: message.seq,
        at: message.at,
    }
}

fn settle(stored: Stored, draft: &Draft, same_place: impl Fn(&Message) -> bool) -> Result<Sent, Error> {
    match stored {
        Stored::New(sent) => Ok(sent),
        Stored::Before(message) if is_same(&message, draft) && same_place(&message) => Ok(sent(&message)),
        Stored::Before(_) => Err(Error::MessageIdReused),
        Stored::NoRoom => Err(Error::RoomNotFound),
    }
}

//! Reading: pages of messages and rooms.

use super::{Chat, Directory, Error, Page, Position, RoomPage, Store};
use crate::domain::direct::Pair;

impl<S: Store, D: Directory> Chat<S, D> {
    /// The messages of two users, one of whom is the caller.
    pub async fn direct_messages(
        &self,
        caller: i64,
        pair: Pair,
        before: Option<Position>,
        limit: i64,
    ) -> Result<Page, Error> {
        if caller != pair.low() && caller != pair.high() {
            return Err(Error::NotYourMessages);
        }
        match self.store.direct_room(pair).await? {
            Some(room) => self.page(room, before, limit).await,
            None => Ok(Page::default()),
        }
    }

    /// The messages of a room of the caller.
    pub async fn messages(
        &self,
        caller: i64,
        room: i64,
        before: Option<Position>,
        limit: i64,
    ) -> Result<Page, Error> {
        if !self.store.is_member(room, caller).await? {
            return Err(Error::RoomNotFound);
        }
        self.page(room, before, limit).await
    }

    /// The rooms of the caller.
    pub async fn rooms(&self, caller: i64, below: Option<i64>, limit: i64) -> Result<RoomPage, Error> {
        // one more than asked for tells whether there is a next page
        let mut rooms = self.store.rooms(caller, below, limit + 1).await?;
        let asked = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = rooms.len() > asked;
        rooms.truncate(asked);
        let next = rooms.last().filter(|_| more).map(|room| room.id);
        Ok(RoomPage { rooms, next })
    }

    async fn page(&self, room: i64, before: Option<Position>, limit: i64) -> Result<Page, Error> {
        let before = match before {
            Some(position) if position.room != room => return Err(Error::ForeignPage),
            before => before.map(|position| position.seq),
        };
        let messages = self.store.messages_before(room, before, limit).await?;
        // positions have no gaps: below the first there is something unless it is the very first
        let previous = messages
            .first()
            .filter(|first| first.seq > 1)
            .map(|first| Position { room, seq: first.seq });
        Ok(Page { messages, previous })
    }
}

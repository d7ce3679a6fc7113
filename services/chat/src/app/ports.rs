use super::{
    Retry,
    model::{Created, Draft, Message, NewRoom, Room, Standing, Stored},
};
use crate::domain::{direct::Pair, user::Status};

/// What chat keeps.
pub trait Store: Clone + Send + Sync + 'static {
    /// Stores a message to a room of which the sender is a member, and its event.
    fn send(&self, room: i64, draft: &Draft) -> impl Future<Output = Result<Stored, Retry>> + Send;

    /// Stores a message in the room of two, which is opened when there is none, and its events.
    fn send_direct(&self, pair: Pair, draft: &Draft) -> impl Future<Output = Result<Stored, Retry>> + Send;

    /// The message with an id, whoever wrote it.
    fn message(&self, id: uuid::Uuid) -> impl Future<Output = Result<Option<Message>, Retry>> + Send;

    /// Creates a room and its event, unless its creator has created `limit` rooms. A request that came before finds what it
    /// created.
    fn create_room(&self, room: &NewRoom, limit: i64) -> impl Future<Output = Result<Created, Retry>> + Send;

    /// What a request to create a room has created before, as [`Store::create_room`]; none when it is new.
    fn created_room(&self, room: &NewRoom) -> impl Future<Output = Result<Option<Created>, Retry>> + Send;

    /// Rooms of a user, newest first, below a number.
    fn rooms(
        &self,
        user: i64,
        below: Option<i64>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Room>, Retry>> + Send;

    /// The newest rooms of a user, at most so many, and those of the named rooms that are the user's; each once.
    fn newest_rooms(
        &self,
        user: i64,
        named: &[i64],
        limit: i64,
    ) -> impl Future<Output = Result<Vec<i64>, Retry>> + Send;

    /// Where these rooms stand.
    fn standings(&self, rooms: &[i64]) -> impl Future<Output = Result<Vec<Standing>, Retry>> + Send;

    /// The room of two, if they ever wrote.
    fn direct_room(&self, pair: Pair) -> impl Future<Output = Result<Option<i64>, Retry>> + Send;

    /// Whether the user is a member of the room.
    fn is_member(&self, room: i64, user: i64) -> impl Future<Output = Result<bool, Retry>> + Send;

    /// The newest messages of a room before a position, oldest first; fewer than asked when they are long.
    fn messages_before(
        &self,
        room: i64,
        before: Option<i64>,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Message>, Retry>> + Send;

    /// The messages of a room after a position, oldest first; fewer than asked when they are long.
    fn messages_after(
        &self,
        room: i64,
        after: i64,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<Message>, Retry>> + Send;

    /// What is known about users; those of whom nothing is known are left out.
    fn users(&self, ids: &[i64]) -> impl Future<Output = Result<Vec<(i64, Status)>, Retry>> + Send;

    /// Remembers that a user is active, unless something is known by now.
    fn remember_active(&self, user: i64) -> impl Future<Output = Result<(), Retry>> + Send;
}

/// Who owns the list of users.
pub trait Directory: Send + Sync + 'static {
    /// The status of a user; none when there is no such user.
    fn status(&self, user: i64) -> impl Future<Output = Result<Option<Status>, Retry>> + Send;
}

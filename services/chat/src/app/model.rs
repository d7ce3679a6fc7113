use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::domain::direct::Pair;

/// A message to store.
#[derive(Clone, Debug)]
pub struct Draft {
    /// Made by the client.
    pub id: Uuid,
    /// Who writes.
    pub sender: i64,
    /// The text, checked.
    pub content: String,
}

/// A message that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Made by the client.
    pub id: Uuid,
    /// The room.
    pub room: i64,
    /// The position in the room, from 1.
    pub seq: i64,
    /// Who wrote.
    pub sender: i64,
    /// The other one, in a room of two.
    pub receiver: Option<i64>,
    /// The text.
    pub content: String,
    /// When it was stored.
    pub at: DateTime<Utc>,
}

/// What the sender hears of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The room.
    pub room: i64,
    /// The position in the room.
    pub seq: i64,
    /// When it was stored.
    pub at: DateTime<Utc>,
}

/// What the store made of a message.
#[derive(Clone, Debug)]
pub enum Stored {
    /// It is new.
    New(Sent),
    /// There is a message with this id.
    Before(Box<Message>),
    /// There is no such room for the sender.
    NoRoom,
}

/// A room to create.
#[derive(Clone, Debug)]
pub struct NewRoom {
    /// Who creates it.
    pub creator: i64,
    /// Made by the client.
    pub request: Uuid,
    /// The name, checked.
    pub name: String,
    /// All members, the creator included, in order, each once.
    pub members: Vec<i64>,
}

/// What the store made of a room to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The room is there as asked for: made now, or by the same request before.
    Room(i64),
    /// The request has created another room before.
    Other,
    /// Its creator has created as many rooms as allowed.
    Full,
}

/// A room of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The room's number.
    pub id: i64,
    /// The name, unless it is a room of two.
    pub name: Option<String>,
    /// The two, of a room of two.
    pub pair: Option<Pair>,
    /// The position of its newest message.
    pub last_seq: i64,
}

/// A page of messages, oldest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages.
    pub messages: Vec<Message>,
    /// The page before this one ends before this position.
    pub previous: Option<Position>,
}

/// A page of rooms, newest first.
#[derive(Clone, Debug, Default)]
pub struct RoomPage {
    /// The rooms.
    pub rooms: Vec<Room>,
    /// The next page begins below this room.
    pub next: Option<i64>,
}

/// A position in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The room.
    pub room: i64,
    /// A position of a message.
    pub seq: i64,
}

/// Where a room of a user stands.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    /// The room.
    pub room: i64,
    /// The position of its newest message; 0 when it has none.
    pub last_seq: i64,
}

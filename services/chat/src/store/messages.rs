//! Writing messages: one transaction each.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::rooms;
use crate::{
    app::{Draft, Message, Sent, Stored},
    domain::direct::Pair,
    events,
};

/// Stores a message to a room of the sender, and its event.
pub(super) async fn send(pool: &PgPool, room: i64, draft: &Draft) -> Result<Stored, sqlx::Error> {
    let mut transaction = postgres::begin(pool).await?;
    let stored = append(&mut transaction, room, draft).await?;
    match stored {
        Appended::New(sent) => {
            transaction.commit().await?;
            Ok(Stored::New(sent))
        }
        Appended::Before => {
            transaction.rollback().await?;
            before(pool, draft.id).await
        }
        Appended::NoRoom => Ok(Stored::NoRoom),
    }
}

/// Stores a message to the room of two, and its event. The first message opens the room in the same transaction.
pub(super) async fn send_direct(pool: &PgPool, pair: Pair, draft: &Draft) -> Result<Stored, sqlx::Error> {
    let mut transaction = postgres::begin(pool).await?;
    let room = rooms::open_direct(&mut transaction, pair).await?;
    match append(&mut transaction, room, draft).await? {
        Appended::New(sent) => {
            transaction.commit().await?;
            Ok(Stored::New(sent))
        }
        Appended::Before => {
            // the room too, if it is new: it would have no message
            transaction.rollback().await?;
            before(pool, draft.id).await
        }
        Appended::NoRoom => Ok(Stored::NoRoom),
    }
}

/// The message with an id.
pub(super) async fn find(executor: impl PgExecutor<'_>, id: Uuid) -> Result<Option<Message>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT m.room_id, m.seq, m.sender_id, m.content, m.created_at, r.low_user, r.high_user
           FROM messages m
           JOIN rooms r ON r.id = m.room_id
          WHERE m.id = $1",
        id
    )
    .fetch_optional(executor)
    .await?;
    Ok(row.map(|row| Message {
        id,
        room: row.room_id,
        seq: row.seq,
        sender: row.sender_id,
        receiver: receiver(row.low_user, row.high_user, row.sender_id),
        content: row.content,
        at: row.created_at,
    }))
}

/// The other one, in a room of two.
pub(super) fn receiver(low: Option<i64>, high: Option<i64>, sender: i64) -> Option<i64> {
    Some(Pair::new(low?, high?)?.other(sender))
}

async fn before(pool: &PgPool, id: Uuid) -> Result<Stored, sqlx::Error> {
    let message = find(pool, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    Ok(Stored::Before(Box::new(message)))
}

enum Appended {
    New(Sent),
    Before,
    NoRoom,
}

/// Gives the message the next position of its room, stores it, and its event.
async fn append(transaction: &mut PgConnection, room: i64, draft: &Draft) -> Result<Appended, sqlx::Error> {
    // Takes the row lock of the room until the commit: the positions of the room, its messages and the ids of its events in
    // the outbox are given one after the other.
    let locked = sqlx::query!(
        "UPDATE rooms
            SET last_seq = last_seq + 1
          WHERE id = $1
            AND EXISTS (SELECT
                          FROM members
                         WHERE user_id = $2
                           AND room_id = $1)
         RETURNING last_seq, low_user, high_user",
        room,
        draft.sender
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(locked) = locked else {
        return Ok(Appended::NoRoom);
    };
    let Some(at) = insert(transaction, room, locked.last_seq, draft).await? else {
        return Ok(Appended::Before);
    };
    let message = Message {
        id: draft.id,
        room,
        seq: locked.last_seq,
        sender: draft.sender,
        receiver: receiver(locked.low_user, locked.high_user, draft.sender),
        content: draft.content.clone(),
        at,
    };
    events::outgoing::message_sent(transaction, &message).await?;
    Ok(Appended::New(Sent {
        room,
        seq: message.seq,
        at,
    }))
}

/// None when there is a message with this id. One that is being stored is waited for.
async fn insert(
    transaction: &mut PgConnection,
    room: i64,
    seq: i64,
    draft: &Draft,
) -> Result<Option<DateTime<Utc>>, sqlx::Error> {
    sqlx::query_scalar!(
        "INSERT INTO messages (id, room_id, seq, sender_id, content)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT ON CONSTRAINT messages_pkey DO NOTHING
         RETURNING created_at",
        draft.id,
        room,
        seq,
        draft.sender,
        draft.content
    )
    .fetch_optional(transaction)
    .await
}

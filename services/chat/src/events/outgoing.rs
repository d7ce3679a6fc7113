//! What chat tells. Call within the transaction that holds the room's row lock: its events are published in this order.

use ::events::{Outgoing, outbox};
use prost::Message as _;
use proto::chat::v1::{ChatEvent, RoomOpened, chat_event::Event};
use sqlx::PgConnection;

use super::MESSAGES;
use crate::{app::Message, wire};

/// A room was opened.
pub async fn room_opened(
    transaction: &mut PgConnection,
    room: i64,
    members: &[i64],
) -> Result<(), sqlx::Error> {
    let event = RoomOpened {
        room_id: room,
        member_ids: members.to_vec(),
    };
    publish(transaction, room, Event::RoomOpened(event)).await
}

/// A message was sent.
pub async fn message_sent(transaction: &mut PgConnection, message: &Message) -> Result<(), sqlx::Error> {
    publish(
        transaction,
        message.room,
        Event::MessageSent(wire::message(message.clone())),
    )
    .await
}

async fn publish(transaction: &mut PgConnection, room: i64, event: Event) -> Result<(), sqlx::Error> {
    let payload = ChatEvent { event: Some(event) }.encode_to_vec();
    let event = Outgoing {
        topic: MESSAGES,
        key: &room.to_string(),
        event_type: "kontor.chat.v1.ChatEvent",
        payload: &payload,
    };
    outbox::enqueue(transaction, &event).await
}

//! A message as the contracts have it, in answers and in events alike.

use chrono::{DateTime, Utc};
use prost_types::Timestamp;
use proto::chat::v1::Message as Wire;
use uuid::Uuid;

use crate::app::Message;

/// To the contract.
pub fn message(message: Message) -> Wire {
    Wire {
        message_id: message.id.to_string(),
        room_id: message.room,
        seq: message.seq,
        sender_id: message.sender,
        receiver_id: message.receiver,
        content: message.content,
        timestamp: Some(timestamp(message.at)),
    }
}

/// From the contract; none when something is missing.
pub fn read_message(wire: Wire) -> Option<Message> {
    let at = wire.timestamp?;
    Some(Message {
        id: Uuid::parse_str(&wire.message_id).ok()?,
        room: wire.room_id,
        seq: wire.seq,
        sender: wire.sender_id,
        receiver: wire.receiver_id,
        content: wire.content,
        at: DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?)?,
    })
}

/// To the contract.
pub fn timestamp(at: DateTime<Utc>) -> Timestamp {
    // below a thousand million, unless it is a leap second, which PostgreSQL does not know
    let nanos = i32::try_from(at.timestamp_subsec_nanos()).unwrap_or(0);
    Timestamp {
        seconds: at.timestamp(),
        nanos,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_as_it_was() {
        let before = Message {
            id: Uuid::from_u128(7),
            room: 1,
            seq: 2,
            sender: 3,
            receiver: Some(4),
            content: "hello".to_owned(),
            at: DateTime::from_timestamp(1_700_000_000, 123_456_000).unwrap(),
        };
        assert_eq!(read_message(message(before.clone())), Some(before.clone()));
        assert_eq!(
            read_message(Wire {
                message_id: "x".to_owned(),
                ..message(before)
            }),
            None
        );
    }
}

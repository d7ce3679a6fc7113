//! What chat hears.

use std::sync::Arc;

use ::events::consume::Delivery;
use prost::{DecodeError, Message as _};
use proto::{
    account::v1::{UserChanged, UserStatus},
    chat::v1::{ChatEvent, chat_event::Event},
};

use crate::{
    app::{Hub, Live},
    domain::user::Status,
    metrics::Metrics,
    wire,
};

/// A record that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is no protobuf message of its kind.
    #[error("the record cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    /// Something that must be there is missing, or has a value that this version does not know.
    #[error("the record lacks {0}")]
    Lacks(&'static str),
}

/// Hands the events of the topic of messages to the hub. Decodes each once, for all subscribers.
pub fn to_hub(hub: Arc<Hub>, metrics: Metrics) -> impl FnMut(Delivery) + Send + 'static {
    move |delivery| match delivery {
        Delivery::Reset => hub.reset(),
        Delivery::Record(record) => match ChatEvent::decode(record.payload.as_ref()).map(|event| event.event)
        {
            Ok(Some(Event::RoomOpened(opened))) => hub.open(opened.room_id, &opened.member_ids),
            Ok(Some(Event::MessageSent(message))) => match wire::read_message(message) {
                Some(message) => hub.deliver(Live {
                    message,
                    trace: record.context(),
                }),
                None => unreadable(&metrics, &Unreadable::Lacks("a field of the message")),
            },
            // an event of a later version: not for us
            Ok(None) => {}
            // subscribers miss nothing: the next message of the room shows them the gap
            Err(error) => unreadable(&metrics, &error.into()),
        },
    }
}

fn unreadable(metrics: &Metrics, error: &Unreadable) {
    metrics.undecodable();
    tracing::error!(%error, "an event is dropped: the history has it");
}

/// Reads an event of account.
pub fn user_changed(payload: &[u8]) -> Result<(i64, Status), Unreadable> {
    let event = UserChanged::decode(payload)?;
    let status = status(event.status()).ok_or(Unreadable::Lacks("a known status"))?;
    Ok((event.user_id, status))
}

/// The status of a user; none when there is no such user.
pub fn status(status: UserStatus) -> Option<Status> {
    match status {
        UserStatus::Unspecified => None,
        UserStatus::Pending => Some(Status::Pending),
        UserStatus::Active => Some(Status::Active),
        UserStatus::Frozen => Some(Status::Frozen),
        UserStatus::Closed => Some(Status::Closed),
    }
}

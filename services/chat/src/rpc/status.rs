//! The one place where errors become statuses.

use rpc::error::{internal, invalid, reject, unavailable};
use tonic::{Code, Status};

use crate::app::{Error, Retry};

/// The status of an error. Nothing of the inside goes out.
pub fn from_error(error: Error) -> Status {
    match error {
        Error::NotTheSender => reject(
            Code::PermissionDenied,
            "NOT_THE_SENDER",
            "Can only send as yourself",
        ),
        Error::NotYourMessages => reject(
            Code::PermissionDenied,
            "NOT_YOUR_MESSAGES",
            "Can only read your own messages",
        ),
        Error::UserNotFound => reject(Code::NotFound, "USER_NOT_FOUND", "User not found"),
        Error::UserFrozen => reject(
            Code::FailedPrecondition,
            "USER_NOT_ACTIVE",
            "The user cannot receive messages now",
        ),
        Error::CallerNotActive => reject(
            Code::FailedPrecondition,
            "CALLER_NOT_ACTIVE",
            "Your account is not active",
        ),
        Error::RoomNotFound => reject(Code::NotFound, "ROOM_NOT_FOUND", "Room not found"),
        Error::MessageIdReused => reject(
            Code::AlreadyExists,
            "MESSAGE_ID_REUSED",
            "The message id was used for another message",
        ),
        Error::RequestIdReused => reject(
            Code::AlreadyExists,
            "REQUEST_ID_REUSED",
            "The request id was used for another request",
        ),
        Error::ForeignPage => invalid([("page_token", "must come from an answer about these messages")]),
        Error::PositionBehindEnd { index } => {
            let field = format!("positions[{index}].after_seq");
            invalid([(
                field.as_str(),
                "must not be behind the newest message of the room",
            )])
        }
        Error::TooManySubscriptions => reject(
            Code::ResourceExhausted,
            "TOO_MANY_SUBSCRIPTIONS",
            "Too many subscriptions",
        ),
        Error::TooManyRoomsCreated => reject(
            Code::ResourceExhausted,
            "TOO_MANY_ROOMS_CREATED",
            "You have created as many rooms as a user may",
        ),
        Error::SlowSubscriber => reject(
            Code::ResourceExhausted,
            "SLOW_SUBSCRIBER",
            "Reading too slowly; resume",
        ),
        Error::Draining => reject(Code::Unavailable, "DRAINING", "This instance is stopping; resume"),
        Error::Failed(Retry::Later(cause)) => unavailable(&cause),
        Error::Failed(Retry::Never(cause)) => internal(&cause),
    }
}

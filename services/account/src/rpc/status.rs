//! The one place that says what a caller hears of an error.

use rpc::error::{internal, overloaded, reject, unavailable};
use tonic::{Code, Status};

use crate::app::Error;

pub fn from_error(error: Error) -> Status {
    match error {
        Error::UserNotFound => reject(Code::NotFound, "USER_NOT_FOUND", "User not found"),
        Error::EmailTaken => reject(
            Code::AlreadyExists,
            "EMAIL_TAKEN",
            "The email belongs to another user",
        ),
        Error::RequestIdReused => reject(
            Code::AlreadyExists,
            "REQUEST_ID_REUSED",
            "The request id was used for a user with other content",
        ),
        Error::WeakPassword => reject(
            Code::InvalidArgument,
            "WEAK_PASSWORD",
            "The password must have at least 8 characters",
        ),
        Error::Overloaded => overloaded(),
        Error::Unavailable(source) => unavailable(&source),
        Error::Internal(source) => internal(&source),
    }
}

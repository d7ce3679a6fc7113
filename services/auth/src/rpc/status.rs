//! The one place that says what a caller hears of an error.

use rpc::error::{internal, overloaded, reject, unavailable};
use tonic::{Code, Status};

use crate::app::Error;

pub fn from_error(error: Error) -> Status {
    match error {
        Error::InvalidCredentials => reject(
            Code::Unauthenticated,
            "INVALID_CREDENTIALS",
            "Invalid credentials",
        ),
        Error::SessionInvalid => reject(Code::Unauthenticated, "SESSION_INVALID", "Unauthorized"),
        Error::EmailTaken => reject(Code::AlreadyExists, "EMAIL_TAKEN", "The email is taken"),
        Error::CredentialExists => reject(
            Code::AlreadyExists,
            "CREDENTIAL_EXISTS",
            "The user has a credential with another email",
        ),
        Error::CredentialNotFound => reject(
            Code::NotFound,
            "CREDENTIAL_NOT_FOUND",
            "The user has no credential",
        ),
        Error::Overloaded => overloaded(),
        Error::Unavailable(source) => unavailable(&source),
        Error::Internal(source) => internal(&source),
    }
}

/// The name of a failed sign-in in the metrics.
pub fn outcome(error: &Error) -> &'static str {
    match error {
        Error::InvalidCredentials => "invalid",
        Error::Overloaded => "overloaded",
        Error::SessionInvalid
        | Error::EmailTaken
        | Error::CredentialExists
        | Error::CredentialNotFound
        | Error::Unavailable(_)
        | Error::Internal(_) => "error",
    }
}

pub fn weak_password() -> Status {
    reject(
        Code::InvalidArgument,
        "WEAK_PASSWORD",
        "The password must have at least 8 characters and at most 1024 bytes",
    )
}

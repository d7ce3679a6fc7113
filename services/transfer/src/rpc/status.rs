//! The one place that says what a caller hears of an error.

use rpc::error::{internal, reject, unavailable};
use tonic::{Code, Status};

use crate::{app::Error, domain::posting::Refusal};

pub fn from_error(error: Error) -> Status {
    match error {
        Error::Refused(Refusal::InsufficientBalance) => reject(
            Code::FailedPrecondition,
            "INSUFFICIENT_BALANCE",
            "Insufficient balance",
        ),
        Error::Refused(Refusal::CurrencyMismatch) => reject(
            Code::FailedPrecondition,
            "CURRENCY_MISMATCH",
            "The accounts have different currencies",
        ),
        Error::Refused(Refusal::BalanceOverflow) => reject(
            Code::FailedPrecondition,
            "BALANCE_OVERFLOW",
            "The balance would exceed the largest one",
        ),
        Error::UserNotFound => reject(Code::NotFound, "USER_NOT_FOUND", "User not found"),
        Error::NotYourAccount => reject(
            Code::PermissionDenied,
            "NOT_YOUR_ACCOUNT",
            "Can only transfer from your account",
        ),
        Error::TransferNotFound => reject(Code::NotFound, "TRANSFER_NOT_FOUND", "Transfer not found"),
        Error::IdReused => reject(
            Code::AlreadyExists,
            "TRANSFER_ID_REUSED",
            "The transfer id was used for a transfer with other content",
        ),
        Error::AccountExists => reject(
            Code::AlreadyExists,
            "ACCOUNT_EXISTS",
            "The account exists with another currency",
        ),
        Error::Unavailable(source) => unavailable(&source),
        Error::Internal(source) => internal(&source),
    }
}

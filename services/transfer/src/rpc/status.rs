//! The one place that says what a caller hears of an error.

use proto::transfer::v1::{FieldViolation, TransferError};
use rpc::error::{internal, invalid, late, overloaded, reject, unavailable};
use tonic::{Code, Status};

use crate::{
    app::error::Error,
    domain::{account::ChangeRefusal, command::Refusal},
};

pub fn from_error(error: Error) -> Status {
    match error {
        Error::Refused(refusal) => refused(refusal),
        Error::NotChanged(refusal) => not_changed(refusal),
        Error::UserNotFound => reject(Code::NotFound, "USER_NOT_FOUND", "User not found"),
        Error::AccountExists => reject(
            Code::AlreadyExists,
            "ACCOUNT_EXISTS",
            "The account exists with another currency",
        ),
        Error::ScheduleNotFound => reject(Code::NotFound, "SCHEDULE_NOT_FOUND", "Schedule not found"),
        Error::ScheduleIdReused(field) => reused("SCHEDULE_ID_REUSED", "schedule", field),
        Error::TooManySchedules => reject(
            Code::ResourceExhausted,
            "TOO_MANY_SCHEDULES",
            "There are 1,000 active schedules already",
        ),
        Error::FirstOccurrence(problem) => invalid([("first_at", problem)]),
        Error::RequestIdReused(field) => reused("REQUEST_ID_REUSED", "account", field),
        Error::TooManyAccounts => reject(
            Code::ResourceExhausted,
            "TOO_MANY_ACCOUNTS",
            "There are 100 additional accounts already",
        ),
        Error::OperatorOnly => reject(
            Code::PermissionDenied,
            "OPERATOR_ONLY",
            "Only an operator may do this",
        ),
        Error::StatementTooLong => reject(
            Code::FailedPrecondition,
            "STATEMENT_TOO_LONG",
            "The statement has more than 10,000 entries; ask for a shorter time",
        ),
        Error::InTheFuture => invalid([("at", "must not be in the future")]),
        Error::PositionPastEnd => invalid([("after_position", "must not be behind the last entry")]),
        Error::TooManyWatchers => reject(
            Code::ResourceExhausted,
            "TOO_MANY_WATCHERS",
            "As many watch accounts here as may; try again",
        ),
        Error::LedgerNotEmpty => reject(
            Code::FailedPrecondition,
            "LEDGER_NOT_EMPTY",
            "The ledger is not empty",
        ),
        Error::BadExport(problem) => reject(
            Code::InvalidArgument,
            "BAD_EXPORT",
            format!("The export cannot be taken: {problem}"),
        ),
        Error::Overloaded => overloaded(),
        Error::Late => late(),
        Error::Unavailable(source) => unavailable(&source),
        Error::Internal(source) => internal(&source),
    }
}

fn not_changed(refusal: ChangeRefusal) -> Status {
    let failed = |reason, message: &str| reject(Code::FailedPrecondition, reason, message);
    match refusal {
        ChangeRefusal::NotEmpty => failed("ACCOUNT_NOT_EMPTY", "The account has money or pending transfers"),
        ChangeRefusal::Frozen => failed("ACCOUNT_FROZEN", "The account is frozen"),
        ChangeRefusal::Closed => failed("ACCOUNT_CLOSED", "The account is closed"),
        ChangeRefusal::LimitsCrossed => invalid([("minimum", "must not be above the maximum")]),
    }
}

fn refused(refusal: Refusal) -> Status {
    let failed = |reason, message: &str| reject(Code::FailedPrecondition, reason, message);
    match refusal {
        Refusal::AccountNotFound => reject(Code::NotFound, "ACCOUNT_NOT_FOUND", "Account not found"),
        Refusal::NotYourAccount => reject(
            Code::PermissionDenied,
            "NOT_YOUR_ACCOUNT",
            "Can only transfer from your account",
        ),
        Refusal::InsufficientBalance => failed("INSUFFICIENT_BALANCE", "Insufficient balance"),
        Refusal::CurrencyMismatch => failed("CURRENCY_MISMATCH", "The accounts have different currencies"),
        Refusal::BalanceOverflow => failed("BALANCE_OVERFLOW", "The balance would exceed the largest one"),
        Refusal::MaximumExceeded => failed(
            "MAXIMUM_EXCEEDED",
            "The balance would exceed the account's maximum",
        ),
        Refusal::AccountFrozen => failed("ACCOUNT_FROZEN", "The account is frozen"),
        Refusal::AccountClosed => failed("ACCOUNT_CLOSED", "The account is closed"),
        Refusal::TransferNotFound => reject(Code::NotFound, "TRANSFER_NOT_FOUND", "Transfer not found"),
        Refusal::IdReused(field) => reused("TRANSFER_ID_REUSED", "transfer", field),
        Refusal::NotPending => failed("NOT_PENDING", "The transfer was not pending"),
        Refusal::AlreadyPosted => failed("ALREADY_POSTED", "The pending transfer was posted"),
        Refusal::AlreadyVoided => failed("ALREADY_VOIDED", "The pending transfer was voided"),
        Refusal::PendingExpired => failed("PENDING_EXPIRED", "The pending transfer has expired"),
        Refusal::NotExpired => failed("NOT_EXPIRED", "The pending transfer has not expired"),
        Refusal::ExceedsPending => failed("EXCEEDS_PENDING", "The amount is more than is pending"),
        Refusal::PartOfSplit => failed(
            "PART_OF_SPLIT",
            "A transfer to several accounts is posted as a whole",
        ),
        Refusal::NotReversible => failed("NOT_REVERSIBLE", "Only a transfer can be reversed"),
        Refusal::NotPosted => failed("NOT_POSTED", "The transfer has not been posted"),
        Refusal::AlreadyReversed => failed("ALREADY_REVERSED", "The transfer was reversed before"),
        Refusal::LinkedFailed => failed("LINKED_FAILED", "Another transfer of the chain failed"),
        Refusal::Malformed(field) => invalid([(field, malformed(field))]),
    }
}

/// What the rules refuse though a request's fields are well formed by themselves.
fn malformed(field: &str) -> &'static str {
    match field {
        "to" => "must not be the paying account",
        "splits" => "must not pay an account twice",
        "expires_at" => "must be in the future, at most 366 days away",
        "linked" => "must be false in the last action",
        _ => "must sum up to between 1 and 9007199254740991 minor units",
    }
}

fn reused(reason: &str, what: &str, field: &'static str) -> Status {
    let mut details = tonic_types::ErrorDetails::with_error_info(
        reason,
        rpc::error::DOMAIN,
        std::collections::HashMap::new(),
    );
    details.add_bad_request_violation(field, format!("differs from the {what} that has this id"));
    <Status as tonic_types::StatusExt>::with_error_details(
        Code::AlreadyExists,
        format!("The {what} id was used for a {what} with other content: {field} differs"),
        details,
    )
}

/// The same for one item of a batch.
pub fn item_error(status: &Status) -> TransferError {
    TransferError {
        code: i32::from(status.code()),
        reason: rpc::error::reason(status).unwrap_or_default(),
        message: status.message().to_owned(),
        violations: rpc::error::violations(status)
            .into_iter()
            .map(|(field, description)| FieldViolation { field, description })
            .collect(),
    }
}

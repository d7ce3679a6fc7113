//! Statuses with `google.rpc` details. A reason is a constant that programs may compare; a message is a sentence for people.
//!
//! Every code is a promise. INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND, PERMISSION_DENIED, ALREADY_EXISTS and
//! RESOURCE_EXHAUSTED: nothing was written. UNAVAILABLE, DEADLINE_EXCEEDED, INTERNAL, UNKNOWN: the outcome is unknown.

use std::{collections::HashMap, fmt::Display};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The `domain` of every `ErrorInfo`.
pub const DOMAIN: &str = "kontor";

/// How many bad fields are named. An error travels in the headers of the answer, the sentence three times over, and peers
/// take no more than 16 KiB of these.
const MAX_VIOLATIONS: usize = 20;

/// INVALID_ARGUMENT with one violation for each bad field, of many for the first ones: its name and what it must be.
pub fn invalid<'a, D: Display>(violations: impl IntoIterator<Item = (&'a str, D)>) -> Status {
    let mut details = info("INVALID_ARGUMENT");
    let mut sentence = String::new();
    for (field, description) in violations.into_iter().take(MAX_VIOLATIONS) {
        let description = description.to_string();
        if !sentence.is_empty() {
            sentence.push_str("; ");
        }
        sentence.push_str(field);
        sentence.push(' ');
        sentence.push_str(&description);
        details.add_bad_request_violation(field, description);
    }
    Status::with_error_details(Code::InvalidArgument, sentence, details)
}

/// A refusal with a reason that programs may compare and a sentence for people.
pub fn reject(code: Code, reason: &str, message: impl Into<String>) -> Status {
    Status::with_error_details(code, message, info(reason))
}

/// UNAUTHENTICATED: there is no valid session.
pub fn unauthenticated() -> Status {
    reject(Code::Unauthenticated, "UNAUTHENTICATED", "Unauthorized")
}

/// PERMISSION_DENIED: the caller is known, and may not.
pub fn forbidden() -> Status {
    reject(
        Code::PermissionDenied,
        "PERMISSION_DENIED",
        "You are not allowed to do this",
    )
}

/// RESOURCE_EXHAUSTED: more work than can wait. Nothing was written; try again later.
pub fn overloaded() -> Status {
    reject(
        Code::ResourceExhausted,
        "OVERLOADED",
        "Too many requests are waiting; try again",
    )
}

/// DEADLINE_EXCEEDED: the time of the request is over. A write may have happened.
pub fn late() -> Status {
    reject(
        Code::DeadlineExceeded,
        "DEADLINE_EXCEEDED",
        "The deadline passed before the answer was ready",
    )
}

/// INTERNAL without any detail: what went wrong goes to the log, beside the request's id.
pub fn internal(error: &(impl Display + ?Sized)) -> Status {
    tracing::error!(error = %error, "internal error");
    reject(Code::Internal, "INTERNAL", "Internal error")
}

/// UNAVAILABLE without any detail: something that the service needs is away for the moment. A write may have happened.
pub fn unavailable(error: &(impl Display + ?Sized)) -> Status {
    tracing::warn!(error = %error, "a dependency is unavailable");
    reject(
        Code::Unavailable,
        "UNAVAILABLE",
        "Temporarily unavailable; try again",
    )
}

/// The reason of a status, when it has one.
pub fn reason(status: &Status) -> Option<String> {
    status.get_details_error_info().map(|info| info.reason)
}

/// The bad fields that a status names, each with what it must be.
pub fn violations(status: &Status) -> Vec<(String, String)> {
    status.get_details_bad_request().map_or_else(Vec::new, |details| {
        details
            .field_violations
            .into_iter()
            .map(|violation| (violation.field, violation.description))
            .collect()
    })
}

fn info(reason: &str) -> ErrorDetails {
    ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_and_its_violations_travel_in_the_details() {
        let status = invalid([("amount", "must be positive"), ("to", "must not be the sender")]);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(
            status.message(),
            "amount must be positive; to must not be the sender"
        );
        assert_eq!(reason(&status).as_deref(), Some("INVALID_ARGUMENT"));
        assert_eq!(violations(&status).len(), 2);
    }

    #[test]
    fn an_error_fits_into_the_headers() {
        let fields: Vec<String> = (0..10_000)
            .map(|at| format!("transfer.splits[{at}].amount"))
            .collect();
        let problem = "must be between 1 and 9007199254740991 minor units";
        let status = invalid(fields.iter().map(|field| (field.as_str(), problem)));
        assert_eq!(violations(&status).len(), MAX_VIOLATIONS);
        assert!(status.message().len() + status.details().len() * 4 / 3 < 12 * 1024);
    }

    #[test]
    fn an_internal_error_tells_the_caller_nothing() {
        let status = internal("password of postgres is hunter2");
        assert_eq!(status.message(), "Internal error");
        assert!(!String::from_utf8_lossy(status.details()).contains("hunter2"));
    }
}

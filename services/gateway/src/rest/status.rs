//! The one place where a gRPC status becomes an HTTP status: `application/problem+json` with `error`, `reason`,
//! `request_id`, and `violations` for bad fields.
//!
//! Only what our services meant for the caller is passed on: a status without an `ErrorInfo` of our domain was made by a
//! library, and its text is replaced. A 5xx never carries text of an upstream.

use std::borrow::Cow;

use channel::UNREACHABLE;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use prost_reflect::{Kind, MessageDescriptor};
use rpc::error::DOMAIN;
use serde::Serialize;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;

/// The reason of a RESOURCE_EXHAUSTED that means: the server is full, whoever asks.
const OVERLOADED: &str = "OVERLOADED";
/// What a client waits that is told to come back, when the status itself does not say how long.
const RETRY_AFTER_S: u64 = 1;

/// An error as HTTP tells it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub status: StatusCode,
    pub reason: Cow<'static, str>,
    pub sentence: Cow<'static, str>,
    pub violations: Vec<(String, String)>,
    pub retry_after_s: Option<u64>,
}

impl Problem {
    pub fn new(status: StatusCode, reason: &'static str, sentence: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            reason: Cow::Borrowed(reason),
            sentence: sentence.into(),
            violations: Vec::new(),
            retry_after_s: None,
        }
    }

    /// 400: fields that are not what the contract asks for.
    pub fn invalid(violations: Vec<(String, String)>) -> Self {
        let sentence = sentence_of(&violations);
        Self {
            violations,
            ..Self::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", Cow::Owned(sentence))
        }
    }

    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "ROUTE_NOT_FOUND",
            "There is nothing at this path",
        )
    }

    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "This path does not have this method",
        )
    }

    pub fn not_json() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "Send a JSON body with the header content-type: application/json",
        )
    }

    pub fn too_large() -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BODY_TOO_LARGE",
            "The body is larger than this method takes",
        )
    }

    pub fn slow_body() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "BODY_TIMEOUT",
            "The body did not arrive in time",
        )
    }

    /// The same error with the names of the fields that clients of `input` know.
    pub fn from_status(status: &Status, input: Option<&MessageDescriptor>) -> Self {
        let details = status.get_error_details();
        let ours = details.error_info().filter(|info| info.domain == DOMAIN);
        let reason = ours.map(|info| info.reason.as_str());
        let http = http_status(status.code(), reason);
        let mut problem = if let Some(reason) = reason {
            Self::new(
                http,
                "",
                fixed_sentence(http).unwrap_or_else(|| Cow::Owned(status.message().to_owned())),
            )
            .with_reason(reason)
        } else {
            let sentence = fixed_sentence(http).unwrap_or(Cow::Borrowed("The request was refused"));
            Self::new(http, default_reason(status.code()), sentence)
        };
        if ours.is_some()
            && matches!(http, StatusCode::BAD_REQUEST | StatusCode::CONFLICT)
            && let Some(bad) = details.bad_request()
            && !bad.field_violations.is_empty()
        {
            problem.violations = bad
                .field_violations
                .iter()
                .map(|violation| (json_path(input, &violation.field), violation.description.clone()))
                .collect();
            // what differs is no bad field: there the service's own sentence says more
            if http == StatusCode::BAD_REQUEST {
                problem.sentence = sentence_of(&problem.violations).into();
            }
        }
        problem.retry_after_s = match http {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                let delay = details.retry_info().and_then(|info| info.retry_delay);
                Some(delay.map_or(RETRY_AFTER_S, |delay| {
                    delay.as_millis().div_ceil(1_000).try_into().unwrap_or(u64::MAX)
                }))
            }
            _ => None,
        };
        problem
    }

    fn with_reason(self, reason: &str) -> Self {
        Self {
            reason: Cow::Owned(reason.to_owned()),
            ..self
        }
    }

    pub fn into_response(self, request_id: &HeaderValue) -> Response<Body> {
        let document = Document {
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            error: &self.sentence,
            reason: &self.reason,
            request_id: request_id.to_str().unwrap_or_default(),
            violations: self
                .violations
                .iter()
                .map(|(field, description)| Violation { field, description })
                .collect(),
        };
        // a document of strings and a number always has a JSON form
        let json = serde_json::to_vec(&document).unwrap_or_default();
        let mut response = Response::new(Body::new(http_body_util::Full::new(json.into())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"kontor\""),
            );
        }
        super::guard_headers(headers);
        response
    }
}

#[derive(Serialize)]
struct Document<'a> {
    title: &'a str,
    status: u16,
    error: &'a str,
    reason: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Violation<'a>>,
}

#[derive(Serialize)]
struct Violation<'a> {
    field: &'a str,
    description: &'a str,
}

/// The HTTP status of a gRPC code; the reason tells apart what HTTP has two statuses for.
fn http_status(code: Code, reason: Option<&str>) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted if reason == Some(OVERLOADED) => StatusCode::SERVICE_UNAVAILABLE,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable if reason == Some(UNREACHABLE) => StatusCode::BAD_GATEWAY,
        // cancelled, but not by our caller, who would not read this: the outcome is unknown
        Code::Unavailable | Code::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal | Code::Unknown | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What is said for a status whatever an upstream wrote.
fn fixed_sentence(status: StatusCode) -> Option<Cow<'static, str>> {
    let sentence = match status {
        StatusCode::INTERNAL_SERVER_ERROR => "Internal error",
        StatusCode::NOT_IMPLEMENTED => "This is not implemented",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "Temporarily unavailable; try again",
        StatusCode::GATEWAY_TIMEOUT => "The deadline passed before the answer was ready",
        _ => return None,
    };
    Some(Cow::Borrowed(sentence))
}

/// The reason of a status that names none of ours.
fn default_reason(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        Code::Unauthenticated => "UNAUTHENTICATED",
        Code::Internal | Code::Unknown | Code::DataLoss => "INTERNAL",
    }
}

fn sentence_of(violations: &[(String, String)]) -> String {
    let clauses: Vec<String> = violations
        .iter()
        .map(|(field, description)| format!("{field} {description}"))
        .collect();
    clauses.join("; ")
}

/// A service names fields as its contract does (`from_user_id`, `positions[0].room_id`); a client knows their JSON names.
fn json_path(input: Option<&MessageDescriptor>, path: &str) -> String {
    let mut descriptor = input.cloned();
    let segments = path.split('.').map(|segment| {
        let (name, index) = segment.find('[').map_or((segment, ""), |at| segment.split_at(at));
        let field = descriptor
            .as_ref()
            .and_then(|descriptor| descriptor.get_field_by_name(name));
        descriptor = field.as_ref().and_then(|field| match field.kind() {
            Kind::Message(inner) => Some(inner),
            _ => None,
        });
        let name = field.as_ref().map_or(name, |field| field.json_name());
        format!("{name}{index}")
    });
    segments.collect::<Vec<_>>().join(".")
}

/// Adds what is true of every REST answer: it is about one caller's money or messages, and it is not a web page.
pub(crate) fn guard_headers(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn of(status: &Status) -> Problem {
        Problem::from_status(status, None)
    }

    #[test]
    fn every_code_has_its_status() {
        let expected = [
            (Code::Cancelled, 503),
            (Code::Unknown, 500),
            (Code::InvalidArgument, 400),
            (Code::DeadlineExceeded, 504),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::PermissionDenied, 403),
            (Code::ResourceExhausted, 429),
            (Code::FailedPrecondition, 400),
            (Code::Aborted, 409),
            (Code::OutOfRange, 400),
            (Code::Unimplemented, 501),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
            (Code::DataLoss, 500),
            (Code::Unauthenticated, 401),
        ];
        for (code, status) in expected {
            let ours = of(&rpc::error::reject(code, "SOME_REASON", "A sentence of ours"));
            assert_eq!(
                (ours.status.as_u16(), ours.reason.as_ref()),
                (status, "SOME_REASON"),
                "{code:?}"
            );
            let foreign = of(&Status::new(code, "relation \"users\" does not exist"));
            assert_eq!(foreign.status.as_u16(), status, "{code:?}");
            assert!(
                !foreign.sentence.contains("users"),
                "{code:?}: {}",
                foreign.sentence
            );
            assert_eq!(
                ours.sentence.contains("of ours"),
                status < 500,
                "{code:?}: {}",
                ours.sentence
            );
        }
    }

    #[test]
    fn sentences_of_services_reach_the_client_word_for_word() {
        let status = rpc::error::reject(
            Code::FailedPrecondition,
            "INSUFFICIENT_BALANCE",
            "Insufficient balance",
        );
        assert_eq!(of(&status).sentence, "Insufficient balance");
        assert_eq!(of(&rpc::error::unauthenticated()).sentence, "Unauthorized");
    }

    #[test]
    fn unreachable_and_overloaded_have_statuses_of_their_own() {
        assert_eq!(
            of(&rpc::error::reject(Code::Unavailable, UNREACHABLE, "x")).status,
            502
        );
        let full = of(&rpc::error::overloaded());
        assert_eq!((full.status.as_u16(), full.retry_after_s), (503, Some(1)));
    }

    #[test]
    fn a_retry_delay_is_rounded_up() {
        let mut details =
            ErrorDetails::with_error_info("RATE_LIMITED", DOMAIN, std::collections::HashMap::new());
        details.set_retry_info(Some(std::time::Duration::from_millis(1_001)));
        let status = Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        assert_eq!(of(&status).retry_after_s, Some(2));
    }

    #[test]
    fn a_conflict_names_what_differs_in_its_own_words() {
        let mut details =
            ErrorDetails::with_error_info("TRANSFER_ID_REUSED", DOMAIN, std::collections::HashMap::new());
        details.add_bad_request_violation("amount", "differs");
        let status = Status::with_error_details(Code::AlreadyExists, "amount differs", details);
        let problem = of(&status);
        assert_eq!(
            (problem.status.as_u16(), &*problem.sentence),
            (409, "amount differs")
        );
        assert_eq!(problem.violations, [("amount".to_owned(), "differs".to_owned())]);
    }

    #[test]
    fn violations_are_named_as_the_client_wrote_them() {
        let pool = super::super::contract::pool().unwrap();
        let input = pool
            .get_message_by_name("kontor.transfer.v1.CreateTransferRequest")
            .unwrap();
        let status = rpc::error::invalid([
            ("from_user_id", "must be positive"),
            ("amount", "must be positive"),
        ]);
        let problem = Problem::from_status(&status, Some(&input));
        assert_eq!(problem.sentence, "from must be positive; amount must be positive");
        assert_eq!(problem.violations[0].0, "from");
        let nested = pool
            .get_message_by_name("kontor.chat.v1.SubscribeRequest")
            .unwrap();
        assert_eq!(
            json_path(Some(&nested), "positions[3].room_id"),
            "positions[3].room_id"
        );
        assert_eq!(json_path(None, "grpc-timeout"), "grpc-timeout");
    }
}

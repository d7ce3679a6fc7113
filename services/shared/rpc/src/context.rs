//! What belongs to the request in hand: its deadline, its caller, its id.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use tonic::{Request, Status};

use crate::Caller;

const GRPC_TIMEOUT: &str = "grpc-timeout";

/// The header that names a request in logs and in answers; the gateway makes one when the client has not.
pub const REQUEST_ID: &str = "x-request-id";

/// When the answer of a request must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline some time from now.
    pub fn after(timeout: Duration) -> Self {
        Self(Instant::now() + timeout)
    }

    /// The moment itself.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time that is left; zero when it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// What calls inherit from the request that this task serves; nothing where it serves none.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// When its answer must be there.
    pub deadline: Option<Deadline>,
    /// Its id.
    pub request_id: Option<HeaderValue>,
}

tokio::task_local! {
    /// Set by the server's guard around each handler, so that calls which the handler makes inherit it.
    pub(crate) static CURRENT: Current;
}

/// What the calls of this task inherit.
pub fn current() -> Current {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// The verified caller of a request that came through the server stack.
pub fn caller<T>(request: &Request<T>) -> Result<&Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .ok_or_else(crate::error::unauthenticated)
}

/// The deadline of a request that came through the server stack; in one without, a moment from now.
pub fn deadline<T>(request: &Request<T>) -> Deadline {
    request
        .extensions()
        .get::<Deadline>()
        .copied()
        .unwrap_or_else(|| Deadline::after(Duration::from_secs(5)))
}

/// Reads `grpc-timeout`: at most 8 digits and a unit, as the gRPC over HTTP/2 specification has it.
pub fn read_timeout(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(GRPC_TIMEOUT) else {
        return Ok(None);
    };
    let malformed = || {
        crate::error::invalid([(
            "grpc-timeout",
            "must be 1 to 8 digits and a unit H, M, S, m, u or n",
        )])
    };
    let text = value.to_str().map_err(|_| malformed())?;
    let (digits, unit) = text
        .split_at_checked(text.len().saturating_sub(1))
        .ok_or_else(malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let amount: u64 = digits.parse().map_err(|_| malformed())?;
    Ok(Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return Err(malformed()),
    }))
}

/// Writes `grpc-timeout` in milliseconds, at least one. It is rounded up: who is asked does not give up before who asks.
pub fn write_timeout(headers: &mut HeaderMap, timeout: Duration) {
    let millis = timeout.as_nanos().div_ceil(1_000_000).clamp(1, 99_999_999);
    if let Ok(value) = HeaderValue::try_from(format!("{millis}m")) {
        headers.insert(GRPC_TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<Duration>, Status> {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(value).unwrap());
        read_timeout(&headers)
    }

    #[test]
    fn a_timeout_is_read_in_every_unit() {
        assert_eq!(read("2H").unwrap(), Some(Duration::from_hours(2)));
        assert_eq!(read("99999999S").unwrap(), Some(Duration::from_secs(99_999_999)));
        assert_eq!(read("15m").unwrap(), Some(Duration::from_millis(15)));
        assert_eq!(read("7n").unwrap(), Some(Duration::from_nanos(7)));
        assert_eq!(read_timeout(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_malformed_timeout_is_the_callers_mistake() {
        for value in ["", "m", "123456789m", "-1m", "1.5S", "10", "1x", "+1S", "1é"] {
            assert!(read(value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_timeout_comes_back() {
        let mut headers = HeaderMap::new();
        write_timeout(&mut headers, Duration::from_millis(1_234));
        assert_eq!(
            read_timeout(&headers).unwrap(),
            Some(Duration::from_millis(1_234))
        );
        write_timeout(&mut headers, Duration::from_micros(1_000_001));
        assert_eq!(
            read_timeout(&headers).unwrap(),
            Some(Duration::from_millis(1_001))
        );
        write_timeout(&mut headers, Duration::ZERO);
        assert_eq!(read_timeout(&headers).unwrap(), Some(Duration::from_millis(1)));
    }
}

//! Calls to the services behind the gateway.

use bytes::Bytes;
use channel::{Answer, Channel, Stack};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use lifecycle::Lifecycle;
use opentelemetry::{KeyValue, metrics::Counter};
use proto::method::Method;
use rpc::{
    Caller, Deadline,
    caller::{self, Key},
    context::{REQUEST_ID, write_timeout},
    error,
};
use tonic::{Code, Status, body::Body};
use tracing::{Instrument as _, Span};

use crate::{config::Addresses, rest::FRAME_HEADER_BYTES};

/// The name under which the gateway signs who calls.
const ISSUER: &str = "gateway";
/// The upstream that knows sessions.
const AUTH: &str = "auth";
/// `CANCELLED` as it stands in `grpc-status`.
const CANCELLED: &str = "1";
/// The largest unary answer: a full page of the longest messages fits.
pub(crate) const MAX_ANSWER_BYTES: usize = 32 * 1024 * 1024;

/// The channels to all services.
pub(crate) struct Upstreams {
    channels: [Channel; 4],
    key: Key,
    errors: Counter<u64>,
}

/// Who calls, and for how long: what every request to an upstream carries.
pub(crate) struct Call<'a> {
    pub method: &'static Method,
    pub caller: &'a Caller,
    pub request_id: &'a HeaderValue,
    /// None for a stream that lasts.
    pub deadline: Option<Deadline>,
}

impl Call<'_> {
    /// An upstream that keeps the same deadline may say so first, and tonic's servers call it cancelled.
    fn punctual(&self, headers: &HeaderMap) -> Result<(), Status> {
        let cancelled = headers
            .get(Status::GRPC_STATUS)
            .is_some_and(|code| code == CANCELLED);
        match self.deadline {
            Some(deadline) if cancelled && deadline.remaining().is_zero() => Err(error::late()),
            _ => Ok(()),
        }
    }
}

impl Upstreams {
    pub fn new(addresses: &Addresses, server: &rpc::server::Config, lifecycle: &Lifecycle) -> Self {
        let Addresses {
            auth,
            account,
            transfer,
            chat,
        } = addresses;
        let channels = [
            (AUTH, auth),
            ("account", account),
            ("transfer", transfer),
            ("chat", chat),
        ]
        .map(|(name, addresses)| Channel::new(name, addresses.clone(), server.tls.clone(), lifecycle));
        let errors = telemetry::metrics::meter()
            .u64_counter("kontor.gateway.upstream.errors")
            .with_description("answers of upstreams that are not the caller's doing, by upstream and code")
            .build();
        Self {
            channels,
            key: server.key.clone(),
            errors,
        }
    }

    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The channel to auth, with the gateway's own identity.
    pub fn auth(&self) -> Stack {
        let [auth, ..] = &self.channels;
        Stack::new(auth.clone(), self.key.clone(), ISSUER)
    }

    /// Sends a request, whatever its body, and returns the answer as it comes.
    pub async fn send(
        &self,
        call: &Call<'_>,
        mut headers: HeaderMap,
        body: Body,
    ) -> Result<Response<Body>, Status> {
        let channel = self.channel(call.method)?;
        let span = channel::call_span(&call.method.path);
        self.dress(&mut headers, call, &span)?;
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_static(&call.method.path);
        *request.headers_mut() = headers;
        let sent = channel.send(request).instrument(span.clone()).await;
        let answer = sent.and_then(|response| {
            check(call.method, response.status(), response.headers())?;
            call.punctual(response.headers()).map(|()| response)
        });
        answer.inspect_err(|status| {
            span.record("otel.status_code", "ERROR");
            self.note(call.method, call.request_id, status);
        })
    }

    /// Calls a unary method with a framed message; returns the first headers and the message of the answer.
    pub async fn unary(&self, call: &Call<'_>, framed: Bytes) -> Result<(HeaderMap, Bytes), Status> {
        let channel = self.channel(call.method)?;
        // room for the others: deadline, identity, id, trace
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let span = channel::call_span(&call.method.path);
        self.dress(&mut headers, call, &span)?;
        let told = channel
            .unary(&call.method.path, &headers, &framed, MAX_ANSWER_BYTES)
            .instrument(span.clone())
            .await;
        let message = told.and_then(|answer| {
            check(call.method, answer.status, &answer.headers)?;
            call.punctual(&answer.headers)?;
            message_of(&answer).map(|message| (answer.headers, message))
        });
        message.inspect_err(|status| {
            if blame(status.code()).is_some() {
                span.record("otel.status_code", "ERROR");
            }
            self.note(call.method, call.request_id, status);
        })
    }

    fn channel(&self, method: &Method) -> Result<&Channel, Status> {
        self.channels
            .iter()
            .find(|channel| channel.name() == method.upstream)
            .ok_or_else(|| Status::unimplemented("no such service"))
    }

    /// Adds what every request to an upstream carries.
    fn dress(&self, headers: &mut HeaderMap, call: &Call<'_>, span: &Span) -> Result<(), Status> {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(REQUEST_ID, call.request_id.clone());
        let signed = match call.caller {
            // only auth ends sessions; for all others it would be a longer header that says who somebody is
            Caller::User {
                user_id, operator, ..
            } if call.method.upstream != AUTH => {
                let caller = Caller::User {
                    user_id: *user_id,
                    operator: *operator,
                    session: None,
                };
                self.key.sign(ISSUER, &caller)
            }
            caller => self.key.sign(ISSUER, caller),
        };
        let signed = signed.map_err(|error| error::internal(&error))?;
        headers.insert(caller::HEADER, signed);
        if let Some(deadline) = call.deadline {
            write_timeout(headers, deadline.remaining());
        }
        span.in_scope(|| telemetry::propagation::inject_metadata(headers));
        Ok(())
    }

    /// Logs and counts an upstream's error that is not the caller's doing. What it says stays in the log.
    pub fn note(&self, method: &'static Method, request_id: &HeaderValue, status: &Status) {
        let Some(code) = blame(status.code()) else { return };
        let upstream = method.upstream.as_str();
        self.errors.add(
            1,
            &[KeyValue::new("upstream", upstream), KeyValue::new("code", code)],
        );
        tracing::warn!(
            request.id = request_id.to_str().unwrap_or_default(),
            rpc.method = method.path,
            rpc.code = code,
            detail = status.message(),
            reason = error::reason(status),
            "upstream error"
        );
    }
}

/// The name of a code that means: not the caller's doing.
pub(crate) fn blame(code: Code) -> Option<&'static str> {
    match code {
        Code::Unknown => Some("UNKNOWN"),
        Code::Internal => Some("INTERNAL"),
        Code::DataLoss => Some("DATA_LOSS"),
        Code::Unavailable => Some("UNAVAILABLE"),
        Code::DeadlineExceeded => Some("DEADLINE_EXCEEDED"),
        Code::Unimplemented => Some("UNIMPLEMENTED"),
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => None,
    }
}

/// An upstream that does not speak gRPC is as good as away.
fn check(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<(), Status> {
    if status == StatusCode::OK && is_grpc(headers) {
        return Ok(());
    }
    let answer = format_args!("{} answered {status} without gRPC", method.upstream);
    Err(error::unavailable(&answer))
}

/// Whether a message is native gRPC: `application/grpc`, with or without a subtype. gRPC-Web is not.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The one message of an answer.
fn message_of(answer: &Answer) -> Result<Bytes, Status> {
    let is_fine = |headers: &HeaderMap| headers.get(Status::GRPC_STATUS).is_some_and(|code| code == "0");
    // nearly every answer is fine: then its status is not parsed
    if !answer.trailers.as_ref().is_some_and(is_fine) {
        // an answer without a message has its status among the headers
        let status = Status::from_header_map(&answer.headers)
            .filter(|status| status.code() != Code::Ok)
            .or_else(|| answer.trailers.as_ref().and_then(Status::from_header_map));
        match status {
            Some(status) if status.code() == Code::Ok => {}
            Some(status) => return Err(status),
            None => return Err(error::unavailable("the answer ended without a status")),
        }
    }
    unframed(&answer.data)
}

/// The message of the one frame that the data of a unary answer is.
fn unframed(data: &Bytes) -> Result<Bytes, Status> {
    let Some((&[0, a, b, c, d], message)) = data.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Err(error::internal("the answer has no plain message"));
    };
    if usize::try_from(u32::from_be_bytes([a, b, c, d])).ok() != Some(message.len()) {
        return Err(error::internal("the answer is not one message"));
    }
    Ok(data.slice(FRAME_HEADER_BYTES..))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    #[test]
    fn native_grpc_is_told_from_everything_else() {
        let is = |content_type: &'static str| {
            is_grpc(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(content_type),
            )]))
        };
        assert!(is("application/grpc") && is("application/grpc+proto") && is("application/grpc;x=y"));
        assert!(!is("application/grpc-web") && !is("application/grpc-web+proto") && !is("application/json"));
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn an_answer_has_its_status_at_the_end_or_at_the_beginning() {
        let pair = |code: &'static str| {
            HeaderMap::from_iter([(
                HeaderName::from_static("grpc-status"),
                HeaderValue::from_static(code),
            )])
        };
        let told = |headers: HeaderMap, trailers: Option<HeaderMap>| {
            let data = Bytes::from_static(b"\0\0\0\0\x02ab");
            message_of(&Answer {
                status: StatusCode::OK,
                headers,
                data,
                trailers,
            })
            .map_err(|status| status.code())
        };
        let nothing = HeaderMap::new;
        assert_eq!(told(nothing(), Some(pair("0"))).as_deref(), Ok(&b"ab"[..]));
        assert_eq!(told(nothing(), Some(pair("5"))), Err(Code::NotFound));
        assert_eq!(told(pair("5"), None), Err(Code::NotFound));
        assert_eq!(told(nothing(), None), Err(Code::Unavailable));
        assert_eq!(told(nothing(), Some(nothing())), Err(Code::Unavailable));
    }

    #[test]
    fn an_answer_is_one_whole_plain_message() {
        let message = |data: &'static [u8]| unframed(&Bytes::from_static(data)).ok();
        assert_eq!(message(b"\0\0\0\0\x02ab").as_deref(), Some(&b"ab"[..]));
        assert_eq!(message(b"\0\0\0\0\0").as_deref(), Some(&b""[..]));
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x01\0\0\0\x02ab",
        ] {
            assert_eq!(message(bad), None, "{bad:?}");
        }
    }
}

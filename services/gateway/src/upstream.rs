//! Calls to the services behind the gateway.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, Uri, header};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use lifecycle::Lifecycle;
use opentelemetry::{KeyValue, metrics::Counter};
use proto::method::Method;
use rpc::{
    Caller,
    caller::{self, Key},
    client::{Channel, Stack},
    context::{REQUEST_ID, write_timeout},
    error,
};
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;

use crate::{config::Addresses, rest::FRAME_HEADER_BYTES};

/// The name under which the gateway signs who calls.
const ISSUER: &str = "gateway";
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
    pub timeout: Option<Duration>,
}

impl Upstreams {
    pub fn new(addresses: &Addresses, key: Key, lifecycle: &Lifecycle) -> Self {
        let Addresses {
            auth,
            account,
            transfer,
            chat,
        } = addresses;
        let channels = [
            ("auth", auth),
            ("account", account),
            ("transfer", transfer),
            ("chat", chat),
        ]
        .map(|(name, addresses)| Channel::new(name, addresses.clone(), lifecycle));
        let errors = telemetry::metrics::meter()
            .u64_counter("kontor.gateway.upstream.errors")
            .with_description("answers of upstreams that are not the caller's doing, by upstream and code")
            .build();
        Self {
            channels,
            key,
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
        let channel = self
            .channels
            .iter()
            .find(|channel| channel.name() == call.method.upstream);
        let channel = channel.ok_or_else(|| Status::unimplemented("no such service"))?;
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(REQUEST_ID, call.request_id.clone());
        let signed = self
            .key
            .sign(ISSUER, call.caller)
            .map_err(|error| error::internal(&error))?;
        headers.insert(caller::HEADER, signed);
        if let Some(timeout) = call.timeout {
            write_timeout(&mut headers, timeout);
        }
        let mut request = Request::new(body);
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = Uri::from_static(&call.method.path);
        let span = rpc::client::call_span(&call.method.path);
        span.in_scope(|| telemetry::propagation::inject_metadata(&mut headers));
        *request.headers_mut() = headers;
        let sent = channel.send(request).instrument(span.clone()).await;
        let answer = sent.and_then(|response| check(call.method, response));
        answer.inspect_err(|status| {
            span.record("otel.status_code", "ERROR");
            self.note(call.method, call.request_id, status);
        })
    }

    /// Calls a unary method with a framed message; returns the first headers and the message of the answer.
    pub async fn unary(&self, call: &Call<'_>, framed: Bytes) -> Result<(HeaderMap, Bytes), Status> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        let response = self.send(call, headers, Body::new(Full::new(framed))).await?;
        let (parts, body) = response.into_parts();
        read_answer(&parts.headers, body)
            .await
            .map(|message| (parts.headers, message))
            .inspect_err(|status| self.note(call.method, call.request_id, status))
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
fn check(method: &Method, response: Response<Body>) -> Result<Response<Body>, Status> {
    let is_grpc = is_grpc(response.headers());
    if response.status() == http::StatusCode::OK && is_grpc {
        return Ok(response);
    }
    let answer = format_args!("{} answered {} without gRPC", method.upstream, response.status());
    Err(error::unavailable(&answer))
}

/// Whether a message is native gRPC: `application/grpc`, with or without a subtype. gRPC-Web is not.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Reads the one message of an answer.
async fn read_answer(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Status> {
    // an answer without a message has its status among the headers
    if let Some(status) = Status::from_header_map(headers).filter(|status| status.code() != Code::Ok) {
        return Err(status);
    }
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or_default();
    let mut chunks = Chunks::default();
    let mut status = None;
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        match frame.into_data() {
            Ok(chunk) => chunks.add(chunk, expected)?,
            Err(frame) => status = frame.trailers_ref().and_then(Status::from_header_map),
        }
    }
    match status {
        Some(status) if status.code() == Code::Ok => chunks.into_message(),
        Some(status) => Err(status),
        None => Err(error::unavailable("the answer ended without a status")),
    }
}

/// The data of an answer. Most answers are one chunk, which is not copied.
#[derive(Default)]
struct Chunks {
    first: Bytes,
    rest: BytesMut,
}

impl Chunks {
    fn add(&mut self, chunk: Bytes, expected: usize) -> Result<(), Status> {
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = chunk;
            return Ok(());
        }
        if self.rest.is_empty() {
            self.rest.reserve(expected.min(MAX_ANSWER_BYTES));
            self.rest.extend_from_slice(&self.first);
        }
        self.rest.extend_from_slice(&chunk);
        if self.rest.len() > MAX_ANSWER_BYTES {
            return Err(error::internal("the answer is too large"));
        }
        Ok(())
    }

    fn into_message(self) -> Result<Bytes, Status> {
        let data = if self.rest.is_empty() {
            self.first
        } else {
            self.rest.freeze()
        };
        let Some((&[0, a, b, c, d], message)) = data.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err(error::internal("the answer has no plain message"));
        };
        if usize::try_from(u32::from_be_bytes([a, b, c, d])).ok() != Some(message.len()) {
            return Err(error::internal("the answer is not one message"));
        }
        Ok(data.slice(FRAME_HEADER_BYTES..))
    }
}

#[cfg(test)]
mod tests {
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
    fn an_answer_is_one_whole_plain_message() {
        let message = |chunks: &[&'static [u8]]| {
            let mut all = Chunks::default();
            for chunk in chunks {
                all.add(Bytes::from_static(chunk), 0).unwrap();
            }
            all.into_message().ok()
        };
        assert_eq!(message(&[b"\0\0\0\0\x02ab"]).as_deref(), Some(&b"ab"[..]));
        assert_eq!(
            message(&[b"\0\0", b"\0\0\x02", b"a", b"b"]).as_deref(),
            Some(&b"ab"[..])
        );
        assert_eq!(message(&[b"\0\0\0\0\0"]).as_deref(), Some(&b""[..]));
        for bad in [
            &b""[..],
            b"\0\0\0\0",
            b"\0\0\0\0\x02a",
            b"\0\0\0\0\x01ab",
            b"\x01\0\0\0\x02ab",
        ] {
            assert_eq!(message(&[bad]), None, "{bad:?}");
        }
    }
}

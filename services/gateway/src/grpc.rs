//! Native gRPC: looked up by path, checked, and proxied frame by frame, without decoding.

mod body;
mod headers;

use std::{sync::Arc, time::Duration};

use body::{Ends, Proxied, Watch};
use bytes::Bytes;
use futures_util::stream;
use http::{Method as Verb, Request, Response, Version};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use proto::method::{Access, Method};
use rpc::{Caller, Deadline, context::read_timeout, error};
use telemetry::request::scope;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body};
use tracing::Instrument as _;

use crate::{
    health::Health,
    limit::Decision,
    pipeline::{Arrival, Gateway, Refused, is_streaming},
    record::{self, Protocol, Record, UNKNOWN},
    rest,
    session::Watched,
    upstream::{Call, MAX_ANSWER_BYTES},
};

/// Answers a gRPC request.
pub(crate) async fn handle(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    request: Request<Incoming>,
) -> Response<Body> {
    if request.version() != Version::HTTP_2 {
        return rest::grpc_needs_http2(&arrival.request_id);
    }
    let path = request.uri().path();
    if Health::serves(path) {
        return serve_own(gateway, arrival, request).await;
    }
    // a method that is not for outsiders does not exist for them
    let method = proto::method::by_path(path).filter(|method| method.access != Access::Internal);
    let Some(method) = method.filter(|_| request.method() == Verb::POST) else {
        let code = code_number(Code::Unimplemented);
        gateway
            .metrics
            .observe(Protocol::Grpc, UNKNOWN, code, Duration::ZERO);
        return error::reject(Code::Unimplemented, "UNIMPLEMENTED", "There is no such method").into_http();
    };
    match gateway.enter(method) {
        Err(status) => status.into_http(),
        Ok(slot) => {
            let name = method.path.trim_start_matches('/');
            let (span, in_hand) = record::span(
                Protocol::Grpc,
                name,
                &method.path,
                request.headers(),
                &arrival.request_id,
            );
            let record = Record::new(
                Protocol::Grpc,
                &method.path,
                span.clone(),
                gateway.metrics.clone(),
                slot,
            );
            scope(in_hand, forward(gateway, arrival, method, request, record))
                .instrument(span)
                .await
        }
    }
}

/// Health and reflection, which the gateway answers itself. They cost a token, and their streams have places like all others.
async fn serve_own(gateway: &Gateway, arrival: &Arrival, request: Request<Incoming>) -> Response<Body> {
    let decision = gateway.limits.take(&Caller::Anonymous, arrival.address, 1);
    if !decision.allowed {
        return decision.refusal().into_http();
    }
    let place = match gateway.enter_stream() {
        Ok(place) => place,
        Err(status) => return status.into_http(),
    };
    let response = gateway.health.call(request.map(Body::new)).await;
    if response.headers().contains_key(Status::GRPC_STATUS) {
        return response;
    }
    // a watch has no end of its own, and must not hold up the shutdown
    let ends = Ends::at_draining(&gateway.lifecycle);
    response.map(|body| Body::new(Proxied::new(body, ends, None).holding(place)))
}

async fn forward(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    method: &'static Method,
    request: Request<Incoming>,
    mut record: Record,
) -> Response<Body> {
    let timing = match Timing::of(gateway, method, &request) {
        Ok(timing) => timing,
        Err(status) => return refuse(status, None, &mut record),
    };
    if timing.first.remaining().is_zero() {
        return late(gateway, arrival, method, timing, &mut record);
    }
    let attempt = attempt(gateway, arrival, method, request, timing);
    match timeout(timing.first.remaining(), attempt).await {
        Ok(Ok((response, session))) => {
            let ends =
                Ends::new(timing.whole, is_streaming(method).then_some(&gateway.lifecycle)).with(session);
            let watch = Watch {
                gateway: Arc::clone(gateway),
                method,
                request_id: arrival.request_id.clone(),
                record,
            };
            let response = deliver(gateway, response, ends, watch);
            if is_streaming(method) {
                response
            } else {
                read_whole(response).await
            }
        }
        Ok(Err(refused)) => refuse(refused.status, refused.decision, &mut record),
        Err(_) => late(gateway, arrival, method, timing, &mut record),
    }
}

/// Until when the answer must begin, and until when it must be whole.
#[derive(Clone, Copy)]
struct Timing {
    first: Deadline,
    whole: Option<Deadline>,
    /// The client wants it sooner than the gateway would: being late says nothing about the upstream.
    hasty: bool,
}

impl Timing {
    fn of(gateway: &Gateway, method: &Method, request: &Request<Incoming>) -> Result<Self, Status> {
        let asked = read_timeout(request.headers())?;
        let hasty = asked.is_some_and(|asked| asked < gateway.default_deadline);
        let capped = |asked: Duration| Deadline::after(asked.min(gateway.max_deadline));
        if is_streaming(method) {
            // a stream may last, and ends when the caller said so, if at all; but it has to begin
            let first = Deadline::after(
                asked
                    .unwrap_or(gateway.default_deadline)
                    .min(gateway.default_deadline),
            );
            return Ok(Self {
                first,
                whole: asked.map(Deadline::after),
                hasty,
            });
        }
        let whole = capped(asked.unwrap_or(gateway.default_deadline));
        Ok(Self {
            first: whole,
            whole: Some(whole),
            hasty,
        })
    }
}

async fn attempt(
    gateway: &Gateway,
    arrival: &Arrival,
    method: &'static Method,
    request: Request<Incoming>,
    timing: Timing,
) -> Result<(Response<Body>, Option<Watched>), Refused> {
    let admitted = gateway.admit(arrival, method, request.headers()).await?;
    // a stream outlasts the check that let it in
    let session = is_streaming(method)
        .then(|| gateway.sessions.watch(&admitted.caller))
        .flatten();
    let call = Call {
        method,
        caller: &admitted.caller,
        request_id: &arrival.request_id,
        deadline: timing.whole,
    };
    let (parts, body) = request.into_parts();
    let response = gateway
        .upstreams
        .send(&call, headers::for_upstream(&parts.headers), Body::new(body))
        .await?;
    gateway.sessions.heed(&admitted.caller, response.headers());
    Ok((response, session))
}

/// The deadline has passed. Perhaps before the call was charged, so it is charged now, to the address.
fn late(
    gateway: &Gateway,
    arrival: &Arrival,
    method: &'static Method,
    timing: Timing,
    record: &mut Record,
) -> Response<Body> {
    if let Err(refused) = gateway.charge(method, &Caller::Anonymous, arrival.address) {
        return refuse(refused.status, refused.decision, record);
    }
    let status = error::late();
    if !timing.hasty {
        gateway.upstreams.note(method, &arrival.request_id, &status);
    }
    refuse(status, None, record)
}

/// Reads a unary answer to its end before the client gets it, which frees the call's place: a client that does not read would
/// otherwise keep the call in flight, past its deadline, because a body is not polled while the client's window is closed.
async fn read_whole(response: Response<Body>) -> Response<Body> {
    let (parts, mut body) = response.into_parts();
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > MAX_ANSWER_BYTES {
            return error::internal("the answer is too large").into_http();
        }
        frames.push(Ok::<_, Status>(frame));
    }
    // a status among the headers has to be the end of the stream itself
    if frames.is_empty() {
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::new(StreamBody::new(stream::iter(frames))))
}

fn refuse(status: Status, decision: Option<Decision>, record: &mut Record) -> Response<Body> {
    record.end(code_number(status.code()));
    let mut response = status.into_http();
    if let Some(decision) = decision.filter(|decision| !decision.allowed) {
        decision.write(response.headers_mut());
    }
    response
}

fn deliver(gateway: &Gateway, response: Response<Body>, ends: Ends, mut watch: Watch) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    let cookie = gateway.cookies.asked_by(&parts.headers);
    let whole = watch.read_status(&mut parts.headers);
    headers::clean(&mut parts.headers);
    if let Some(cookie) = cookie {
        parts.headers.insert(http::header::SET_COOKIE, cookie);
    }
    if whole {
        // the status stands among the headers: there is no message, and there are no trailers
        return Response::from_parts(parts, Body::empty());
    }
    Response::from_parts(parts, Body::new(Proxied::new(body, ends, Some(watch))))
}

/// The number of a code in `grpc-status`.
fn code_number(code: Code) -> u16 {
    u16::try_from(i32::from(code)).unwrap_or_default()
}

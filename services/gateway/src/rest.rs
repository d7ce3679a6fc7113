//! REST: requests are found by verb and path, checked, transcoded to the contract's messages, and answered in JSON.

mod contract;
mod decode;
mod idempotency;
mod json;
mod routes;
mod status;
mod transcode;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method as Verb, Request, Response, StatusCode, header, request::Parts,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
pub(crate) use routes::Routes;
use routes::{Found, Route};
use rpc::{Caller, Deadline, error};
use status::{Problem, guard_headers};
use telemetry::request::scope;
use tokio::time::{timeout, timeout_at};
use tonic::body::Body;
use tracing::Instrument as _;
pub(crate) use transcode::FRAME_HEADER_BYTES;
use transcode::{Answer, Sent};

use crate::{
    limit::Decision,
    pipeline::{Arrival, Gateway, Refused},
    record::{self, Protocol, Record, UNKNOWN},
    upstream::Call,
};

/// Metadata of an upstream's answer that says: an earlier attempt had done it. REST clients get it under the same name.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// Answers a request that is not gRPC.
pub(crate) async fn handle(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    request: Request<Incoming>,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    if matches!(parts.method, Verb::GET | Verb::HEAD)
        && let Some(probe) = gateway.health.probe(path, &gateway.lifecycle)
    {
        return if parts.method == Verb::HEAD {
            without_body(probe)
        } else {
            probe
        };
    }
    match gateway.routes.find(&parts.method, path) {
        Found::Route(route, params) => {
            let variables: Vec<&str> = params.iter().map(|(_, value)| value).collect();
            let response = serve(
                gateway,
                arrival,
                Asked {
                    route,
                    variables: &variables,
                    parts: &parts,
                },
                body,
            )
            .await;
            if parts.method == Verb::HEAD {
                without_body(response)
            } else {
                response
            }
        }
        Found::OtherVerbs(allow) => {
            let mut response = if parts.method == Verb::OPTIONS {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            } else {
                Problem::method_not_allowed().into_response(&arrival.request_id)
            };
            response.headers_mut().insert(header::ALLOW, allow);
            gateway.metrics.observe(
                Protocol::Rest,
                UNKNOWN,
                response.status().as_u16(),
                Duration::ZERO,
            );
            response
        }
        Found::Nothing => {
            gateway
                .metrics
                .observe(Protocol::Rest, UNKNOWN, 404, Duration::ZERO);
            Problem::not_found().into_response(&arrival.request_id)
        }
    }
}

/// The answer to native gRPC on a connection that cannot carry it.
pub(crate) fn grpc_needs_http2(request_id: &HeaderValue) -> Response<Body> {
    let sentence = "gRPC needs HTTP/2; speak it with prior knowledge on this port";
    Problem::new(StatusCode::BAD_REQUEST, "HTTP2_REQUIRED", sentence).into_response(request_id)
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    route: &'a Route,
    variables: &'a [&'a str],
    parts: &'a Parts,
}

/// An error, and how the caller's bucket stands if it was looked at.
struct Failed {
    problem: Problem,
    decision: Option<Decision>,
}

async fn serve(gateway: &Gateway, arrival: &Arrival, asked: Asked<'_>, body: Incoming) -> Response<Body> {
    let route = asked.route;
    let slot = match gateway.enter(route.method) {
        Ok(slot) => slot,
        Err(status) => return Problem::from_status(&status, None).into_response(&arrival.request_id),
    };
    let headers = &asked.parts.headers;
    let (span, in_hand) = record::span(
        Protocol::Rest,
        &route.name,
        &route.method.path,
        headers,
        &arrival.request_id,
    );
    let mut record = Record::new(
        Protocol::Rest,
        &route.method.path,
        span.clone(),
        gateway.metrics.clone(),
        slot,
    );
    let response = async {
        let deadline = Deadline::after(gateway.default_deadline);
        match timeout(
            deadline.remaining(),
            attempt(gateway, arrival, asked, body, deadline),
        )
        .await
        {
            Ok(Ok(response)) => response,
            Ok(Err(Failed { problem, decision })) => {
                let mut response = problem.into_response(&arrival.request_id);
                if let Some(decision) = decision {
                    decision.write(response.headers_mut());
                }
                response
            }
            Err(_) => {
                let status = error::late();
                gateway.upstreams.note(route.method, &arrival.request_id, &status);
                Problem::from_status(&status, None).into_response(&arrival.request_id)
            }
        }
    };
    let response = scope(in_hand, response).instrument(span).await;
    record.end(response.status().as_u16());
    response
}

async fn attempt(
    gateway: &Gateway,
    arrival: &Arrival,
    asked: Asked<'_>,
    body: Incoming,
    deadline: Deadline,
) -> Result<Response<Body>, Failed> {
    let Asked {
        route,
        variables,
        parts,
    } = asked;
    let admitted = gateway.admit(arrival, route.method, &parts.headers).await?;
    let failed = |problem| Failed {
        problem,
        decision: Some(admitted.decision),
    };
    let body = read_body(parts, body, route.method.max_body, admitted.by_cookie, deadline)
        .await
        .map_err(failed)?;
    let owner = owner(&admitted.caller, arrival);
    let sent = Sent {
        variables,
        query: parts.uri.query().unwrap_or_default(),
        headers: &parts.headers,
        body: &body,
        caller: &owner,
    };
    let framed = transcode::request(route, &sent).map_err(failed)?;
    let call = Call {
        method: route.method,
        caller: &admitted.caller,
        request_id: &arrival.request_id,
        deadline: Some(deadline),
    };
    let told = gateway.upstreams.unary(&call, framed).await;
    let (headers, message) =
        told.map_err(|status| failed(Problem::from_status(&status, Some(&route.input))))?;
    let body = transcode::answer(route, message)
        .map_err(|error| failed(Problem::from_status(&error::internal(&error), None)))?;
    let cookie = gateway.cookies.asked_by(&headers);
    gateway.sessions.heed(&admitted.caller, &headers);
    let mut response = answer(route.success, body, cookie, admitted.decision);
    if headers.get(REPLAYED).is_some_and(|value| value == "true") {
        let replayed = HeaderValue::from_static("true");
        response.headers_mut().insert(REPLAYED, replayed);
    }
    Ok(response)
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Self {
            problem: Problem::from_status(&refused.status, None),
            decision: refused.decision,
        }
    }
}

/// Whom an idempotency key belongs to: the user, or the address of somebody without a session.
fn owner(caller: &Caller, arrival: &Arrival) -> String {
    match caller {
        Caller::User { user_id, .. } => format!("user:{user_id}"),
        Caller::Anonymous | Caller::Service { .. } => format!("address:{}", arrival.address),
    }
}

/// Reads a body that has to be JSON.
///
/// A cookie is sent by browsers even when another site's page makes the request; such a page can post forms and text, but
/// JSON only with leave (CORS), which the gateway does not give. So a write by cookie says that it is JSON, even an empty one.
async fn read_body(
    parts: &Parts,
    body: Incoming,
    longest: usize,
    by_cookie: bool,
    deadline: Deadline,
) -> Result<Bytes, Problem> {
    if matches!(parts.method, Verb::GET | Verb::HEAD) {
        return Ok(Bytes::new());
    }
    let is_json = is_json(&parts.headers);
    if by_cookie && !is_json {
        return Err(Problem::not_json());
    }
    let announced = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > longest) {
        return Err(Problem::too_large());
    }
    let reading = Limited::new(body, longest).collect();
    let body = match timeout_at(deadline.instant().into(), reading).await {
        Err(_) => return Err(Problem::slow_body()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(Problem::too_large()),
        Ok(Err(_)) => {
            let sentence = "The body broke off";
            return Err(Problem::new(
                StatusCode::BAD_REQUEST,
                "INVALID_ARGUMENT",
                sentence,
            ));
        }
        Ok(Ok(body)) => body.to_bytes(),
    };
    if !body.is_empty() && !is_json {
        return Err(Problem::not_json());
    }
    Ok(body)
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(|value| value.split(';').next().unwrap_or_default().trim());
    essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
}

fn answer(
    status: StatusCode,
    Answer { content_type, body }: Answer,
    cookie: Option<HeaderValue>,
    decision: Decision,
) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(body)));
    *response.status_mut() = status;
    // room for those of the answer, of the limit, and of the server
    *response.headers_mut() = HeaderMap::with_capacity(12);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    guard_headers(headers);
    decision.write(headers);
    if let Some(cookie) = cookie {
        headers.insert(header::SET_COOKIE, cookie);
    }
    response
}

/// The answer to `HEAD`: that of `GET`, its length included, without the body.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    if let Some(length) = http_body::Body::size_hint(&body).exact() {
        parts.headers.insert(header::CONTENT_LENGTH, length.into());
    }
    Response::from_parts(parts, Body::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_by_its_content_type() {
        let is = |value: &'static str| {
            is_json(&HeaderMap::from_iter([(
                header::CONTENT_TYPE,
                HeaderValue::from_static(value),
            )]))
        };
        assert!(is("application/json") && is("Application/JSON; charset=utf-8"));
        assert!(!is("text/plain") && !is("application/json-patch+json") && !is(""));
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn an_idempotency_key_belongs_to_its_caller() {
        let arrival = Arrival {
            address: [192, 0, 2, 7].into(),
            request_id: HeaderValue::from_static("x"),
        };
        let user = Caller::User {
            user_id: 7,
            operator: false,
            session: None,
        };
        assert_eq!(owner(&user, &arrival), "user:7");
        assert_eq!(owner(&Caller::Anonymous, &arrival), "address:192.0.2.7");
    }
}

//! One request in, one answer out: JSON and URL become the framed protobuf message that an upstream reads, and back.

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use prost::Message as _;
use prost_reflect::{DynamicMessage, SerializeOptions, Value};

use proto::http_body::HttpBody;

use super::{
    decode::{self, Violations},
    idempotency,
    json::Json,
    routes::{BodyRule, Route},
    status::Problem,
};

/// A gRPC frame: one byte that says whether the message is compressed, four for its length.
pub(crate) const FRAME_HEADER_BYTES: usize = 5;

/// What a client sent, apart from the verb.
pub(crate) struct Sent<'a> {
    /// The values of the path's variables, still percent-encoded.
    pub variables: &'a [&'a str],
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    /// Whom an idempotency key belongs to.
    pub caller: &'a str,
}

/// Makes the framed request message.
pub(crate) fn request(route: &Route, sent: &Sent<'_>) -> Result<Bytes, Problem> {
    let mut message = DynamicMessage::new(route.input.clone());
    let mut violations = Violations::default();
    read_body(route, sent.body, &mut message, &mut violations)?;
    for (field, text) in route.variables.iter().zip(sent.variables) {
        match decode::percent(text, false).and_then(|text| decode::from_text(&field.kind(), &text)) {
            Err(description) => violations.add(field.json_name(), description),
            Ok(value) if message.has_field(field) && *message.get_field(field) != value => {
                violations.add(field.json_name(), "differs between the path and the body");
            }
            Ok(value) => decode::set(&mut message, field, value),
        }
    }
    if route.body == BodyRule::Whole {
        for pair in sent.query.split('&').filter(|pair| !pair.is_empty()).take(1) {
            let name = pair.split('=').next().unwrap_or_default();
            violations.add(decode::shorten(name), "is not a parameter of this request");
        }
    } else {
        decode::query(&mut message, sent.query, &route.variables, &mut violations);
    }
    if let Some(field) = &route.idempotency {
        idempotency::fill(
            route,
            field,
            &mut message,
            sent.headers,
            sent.caller,
            &mut violations,
        );
    }
    violations.into_result().map_err(Problem::invalid)?;
    Ok(frame(&message))
}

fn read_body(
    route: &Route,
    body: &[u8],
    message: &mut DynamicMessage,
    violations: &mut Violations,
) -> Result<(), Problem> {
    if body.is_empty() || route.body == BodyRule::None {
        return Ok(());
    }
    let malformed =
        |sentence: String| Problem::new(http::StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", sentence);
    let json = Json::parse(body).map_err(|error| malformed(error.to_string()))?;
    match (&route.body, json) {
        (BodyRule::Field(field), json) => {
            let members = vec![(field.json_name().to_owned().into(), json)];
            decode::object(message, members, "", violations);
        }
        (_, Json::Object(members)) => decode::object(message, members, "", violations),
        (_, other) => {
            return Err(malformed(format!(
                "The body must be a JSON object, not {}",
                other.kind()
            )));
        }
    }
    Ok(())
}

fn frame(message: &DynamicMessage) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(FRAME_HEADER_BYTES + length);
    framed.put_u8(0);
    // a request is at most some MiB of JSON, its protobuf form is smaller
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message.encode_raw(&mut framed);
    framed.freeze()
}

/// Why an upstream's answer cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AnswerError {
    #[error("the answer is not the message of the contract: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("the answer has no JSON form: {0}")]
    Json(#[from] serde_json::Error),
}

/// The body of an answer.
pub(crate) struct Answer {
    pub content_type: HeaderValue,
    pub body: Bytes,
}

/// Makes the body of an answer from its message: JSON, or what the message brings.
pub(crate) fn answer(route: &Route, message: Bytes) -> Result<Answer, AnswerError> {
    if route.raw {
        let HttpBody { content_type, data } = HttpBody::decode(message)?;
        return Ok(Answer {
            content_type: HeaderValue::try_from(content_type)
                .ok()
                .filter(|content_type| !content_type.is_empty())
                .unwrap_or(HeaderValue::from_static("application/octet-stream")),
            body: data,
        });
    }
    Ok(Answer {
        content_type: HeaderValue::from_static("application/json"),
        body: json(route, message)?.into(),
    })
}

fn json(route: &Route, message: Bytes) -> Result<Vec<u8>, AnswerError> {
    let message = DynamicMessage::decode(route.output.clone(), message)?;
    let mut json = Vec::with_capacity(256);
    let mut serializer = serde_json::Serializer::new(&mut json);
    let options = SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .skip_default_fields(false);
    match route
        .response_body
        .as_ref()
        .map(|field| message.get_field(field))
        .as_deref()
    {
        Some(Value::Message(part)) => part.serialize_with_options(&mut serializer, &options)?,
        _ => message.serialize_with_options(&mut serializer, &options)?,
    }
    Ok(json)
}

#[cfg(test)]
mod tests;

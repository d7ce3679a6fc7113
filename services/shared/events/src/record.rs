use std::str;

use bytes::Bytes;
use opentelemetry::Context;
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
};
use telemetry::propagation;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

/// The header with the id of the event, the same each time that it comes.
pub const EVENT_ID: &str = "event-id";
/// The header with the full name of the protobuf message.
pub const EVENT_TYPE: &str = "event-type";
/// The header with the form of the payload: [`PROTOBUF`].
pub const CONTENT_TYPE: &str = "content-type";
/// An encoded protobuf message.
pub const PROTOBUF: &str = "application/x-protobuf";

/// A record that came from Kafka.
#[derive(Clone, Debug)]
pub struct Record {
    /// The topic, without the prefix.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset within the partition.
    pub offset: i64,
    /// The key; empty when there is none.
    pub key: Bytes,
    /// The value: an encoded protobuf message.
    pub payload: Bytes,
    /// The header `event-id`.
    event_id: Option<Uuid>,
    /// The header `event-type`; empty when there is none.
    pub event_type: String,
    /// The CONSUMER span, child of the producer's: the parent of everything that the record causes.
    pub span: Span,
}

/// A record without a readable `event-id`.
#[derive(Debug, thiserror::Error)]
#[error("the record has no readable header {EVENT_ID}")]
pub struct Unnamed;

impl Record {
    /// The id of the event, the same each time that it comes.
    pub fn event_id(&self) -> Result<Uuid, Unnamed> {
        self.event_id.ok_or(Unnamed)
    }

    /// The trace context of [`Record::span`], for spans that outlive it.
    pub fn context(&self) -> Context {
        self.span.context()
    }

    /// Copies a record out of librdkafka's buffers and opens its span.
    pub(crate) fn receive(message: &BorrowedMessage<'_>, topic: &str, consumer: &str) -> Self {
        let mut event_id = None;
        let mut event_type = String::new();
        let mut trace = Vec::new();
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            let Some(value) = header.value.and_then(|value| str::from_utf8(value).ok()) else {
                continue;
            };
            match header.key {
                EVENT_ID => event_id = Uuid::parse_str(value).ok(),
                EVENT_TYPE => value.clone_into(&mut event_type),
                key => trace.push((key, value)),
            }
        }
        let span = tracing::info_span!(
            "receive",
            otel.name = format!("receive {topic}"),
            otel.kind = "consumer",
            messaging.system = "kafka",
            messaging.operation.name = "receive",
            messaging.destination.name = topic,
            messaging.destination.partition.id = message.partition(),
            messaging.kafka.offset = message.offset(),
            messaging.consumer.group.name = consumer,
        );
        propagation::set_parent(&span, propagation::extract_pairs(trace));
        Self {
            topic: topic.to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
            payload: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
            event_id,
            event_type,
            span,
        }
    }
}

/// The headers of a record to publish, with the current trace context.
pub(crate) fn headers(event_id: Uuid, event_type: &str) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(5)
        .insert(Header {
            key: EVENT_ID,
            value: Some(&event_id.to_string()),
        })
        .insert(Header {
            key: EVENT_TYPE,
            value: Some(event_type),
        })
        .insert(Header {
            key: CONTENT_TYPE,
            value: Some(PROTOBUF),
        });
    propagation::inject_pairs()
        .iter()
        .fold(headers, |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        })
}

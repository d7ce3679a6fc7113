//! The transactional outbox: an event is a row of the transaction that makes it true, and reaches Kafka after the commit.
//!
//! The statements are checked at run time and not by `sqlx::query!`: the table stands in the database of every service that
//! uses it, and this crate has none to be checked against. The tests run them on the table of [`SCHEMA`].

mod leader;
mod pipeline;
mod relay;
mod rows;

pub use relay::Relay;

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};

/// The statements that create the table, for the migration of a service.
pub const SCHEMA: &str = include_str!("../schema/outbox.sql");

/// The largest payload. Well below what a broker takes, so that none is ever refused for its size.
pub const MAX_PAYLOAD_BYTES: usize = 131_072;

/// An event to publish. Its id is made by the database.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// The topic, without the prefix.
    pub topic: &'a str,
    /// The record's key: events with the same key stay in order.
    pub key: &'a str,
    /// What the payload is: the full name of the protobuf message.
    pub event_type: &'a str,
    /// The encoded protobuf message, at most [`MAX_PAYLOAD_BYTES`].
    pub payload: &'a [u8],
}

/// Stores an event, with the current trace context. It is published after the commit; call [`Relay::wake`] then.
///
/// Order: events of one key are published in the order of this call only when the caller holds a lock that the writers of
/// the key share, such as the row lock of the key's owner, from before this call until the commit.
///
/// # Errors
/// Those of the statement; the constraint `outbox_payload_size` for a payload that is too large.
pub async fn enqueue(connection: &mut PgConnection, event: &Outgoing<'_>) -> Result<(), sqlx::Error> {
    let headers: BTreeMap<String, String> = telemetry::propagation::inject_pairs().into_iter().collect();
    sqlx::query(
        "INSERT INTO outbox (event_type, topic, key, payload, headers)
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(event.event_type)
    .bind(event.topic)
    .bind(event.key)
    .bind(event.payload)
    .bind(Json(headers))
    .execute(connection)
    .await?;
    Ok(())
}

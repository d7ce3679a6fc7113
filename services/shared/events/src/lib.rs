//! Events between services, by a transactional outbox and Kafka.
//!
//! - [`outbox`]: an event is stored in the transaction of its effect; the [`Relay`] publishes it, at least once and in order
//!   for each key.
//! - [`inbox`]: a consumer's effect happens once, however often the event comes.
//! - [`consume`]: a [`consume::Group`] shares the work among instances; a [`consume::Broadcast`] brings every record to every
//!   instance.
//!
//! The trace goes with the event: writer, relay (a PRODUCER span) and consumer (a CONSUMER span) stand in one trace.
#![warn(missing_docs)]

mod client;
pub mod consume;
pub mod inbox;
mod metrics;
pub mod outbox;
mod record;

pub use kafka::Config;
pub use outbox::{Outgoing, Relay};
pub use record::{CONTENT_TYPE, EVENT_ID, EVENT_TYPE, PROTOBUF, Record, Unnamed};

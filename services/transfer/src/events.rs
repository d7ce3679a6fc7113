//! The journal on Kafka: the topic `transfer.events`.
//!
//! The journal is its own outbox. [`Relay`] reads it in an order in which everything could have happened, and remembers for
//! each lane how far it is published; so no event is lost or invented, whatever is killed.

mod drift;
mod encode;
mod metrics;
mod producer;
mod relay;

pub use self::{drift::Drifts, relay::Relay};

/// The topic, without the prefix.
pub const TOPIC: &str = "transfer.events";

//! How Kafka is reached: where its brokers are, how the connections to them are protected, and what all clients have in common.
//!
//! ```
//! # use std::collections::BTreeMap;
//! let brokers = ("KONTOR_KAFKA_BROKERS".to_owned(), "kafka:9092".to_owned());
//! let mut reader = settings::Reader::from_map(BTreeMap::from([brokers]));
//! let config = kafka::Config::read(&mut reader).unwrap();
//! assert_eq!(config.producer().get("security.protocol"), Some("plaintext"));
//! ```
#![warn(missing_docs)]

mod config;
mod log;
mod security;

pub use config::Config;
pub use log::{error, is_refusal, line};
pub use security::{Login, Mechanism, Security};

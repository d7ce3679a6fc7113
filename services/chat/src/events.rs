//! Kafka: what chat tells, and what it hears.

pub mod incoming;
pub mod outgoing;

/// The topic of [`proto::chat::v1::ChatEvent`]; key: room id.
pub const MESSAGES: &str = "chat.messages";
/// The topic of [`proto::account::v1::UserChanged`]; key: user id.
pub const USERS: &str = "account.users";

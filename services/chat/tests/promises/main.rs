//! The promises of chat, on a real PostgreSQL and a real Kafka, through its gRPC face.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod a_message_is_one_trace;
mod a_message_is_stored_once;
mod a_page_leads_to_the_next;
mod a_subscriber_gets_each_message_once_in_order;
mod a_subscription_ends_with_a_reason;
mod a_user_in_many_rooms_is_not_shut_out;
mod directory;
mod only_active_users_write_and_are_written_to;
mod the_schema_is_that_of_the_events;
mod world;

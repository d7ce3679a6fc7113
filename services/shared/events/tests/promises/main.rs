//! The promises of this crate, on a real PostgreSQL and a real Kafka.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod a_group_has_its_effect_once;
mod a_refused_event_holds_back_only_its_key;
mod an_event_is_published_in_order_and_at_least_once;
mod broadcast_hears_everything_after_it_is_ready;
mod world;

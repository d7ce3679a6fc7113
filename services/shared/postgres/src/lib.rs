//! PostgreSQL as kontor's services use it: a pool with time limits, a locked migrator, bounded retries of transactions that
//! lost against others or their session, and what an error means.
//!
//! - [`connect`] and [`migrate`] at the start, [`watch_health`] for as long as the service runs;
//! - [`begin`] for a transaction, [`retry`] around it;
//! - [`constraint`], [`is_unavailable`] to turn an error into one of the service's own.
#![warn(missing_docs)]

mod config;
mod errors;
mod health;
mod migrations;
mod pool;
mod retries;
#[cfg(feature = "testing")]
pub mod testing;
mod transactions;

pub use config::Config;
pub use errors::{Error, constraint, is_unavailable};
pub use health::watch_health;
pub use migrations::migrate;
pub use pool::{acquire, connect, session_lifetime};
pub use retries::{Transient, retry};
pub use transactions::begin;

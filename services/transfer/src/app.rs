//! The use cases of the ledger, and what they need from a store.
//!
//! Writes: [`ledger::Ledger`] turns orders into commands, [`engine::Engine`] runs commands of many callers as one commit.

pub mod accounts;
pub mod audit;
pub mod chain;
pub mod coalesce;
pub mod directory;
pub mod engine;
pub mod error;
pub mod expiry;
pub mod export;
pub mod import;
pub mod ledger;
pub mod order;
pub mod parts;
pub mod patience;
pub mod reads;
pub mod reconcile;
pub mod schedules;
pub mod watch;

//! The rules of money, pure: no database, no clock, no transport.
//!
//! [`books::Books`] is the state machine: accounts and a command in, rows of the journal out, or a refusal.

pub mod account;
pub mod audit;
pub mod books;
pub mod command;
pub mod journal;
pub mod money;
pub mod schedule;

//! The rules for users, pure: no database, no clock, no transport.

pub mod user;

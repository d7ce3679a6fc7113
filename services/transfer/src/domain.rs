//! The rules of money, pure: no database, no clock, no transport.

pub mod money;
pub mod posting;

//! The rules, without any input or output.

pub mod direct;
pub mod feed;
pub mod text;
pub mod user;

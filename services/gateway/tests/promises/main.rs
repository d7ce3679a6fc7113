//! The promises of the gateway, each proved over real connections against real gRPC servers behind it. Redis is away in
//! all of them: nothing of this depends on it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

mod bank;
mod drain;
mod grpc;
mod ledger;
mod limits;
mod rest;
mod sessions;
mod tls;
mod world;

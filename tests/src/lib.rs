//! The harness of the end-to-end tests: a whole kontor for one test, its users, and the means to break its surroundings.
//!
//! - [`promise`]: runs a test with a time limit and prints its seed.
//! - [`TestWorld`]: databases, topics, Redis keys and processes of one test.
//! - [`User`]: signs up, signs in, moves money, writes, by REST; [`grpc`] has the same doors by gRPC.
//! - [`Proxy`]: stands between a service and a server, and cuts, delays or half-closes.
//! - [`chaos`]: kills, cuts and delays at random moments, for as long as a test wants.
//! - [`cluster`]: a kontor in Kubernetes, for the tests of `tests/kind/run`.
//! - [`Certificates`]: those of services that talk by TLS.
//! - [`schema`]: databases as other releases leave them.
//! - [`Collector`]: an OTLP receiver.
#![warn(missing_docs)]

pub mod certificates;
pub mod chaos;
pub mod cluster;
pub mod collector;
pub mod eventually;
pub mod grpc;
pub mod promise;
pub mod proxy;
pub mod random;
pub mod rest;
pub mod schema;
pub mod user;
pub mod world;

pub use certificates::Certificates;
pub use collector::Collector;
pub use eventually::eventually;
pub use local::Service;
pub use promise::{promise, promise_within};
pub use proxy::Proxy;
pub use rest::Rest;
pub use user::User;
pub use world::TestWorld;

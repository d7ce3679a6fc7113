//! The harness of the end-to-end tests: a whole kontor for one test, its users, and the means to break its surroundings.
//!
//! - [`promise`]: runs a test with a time limit and prints its seed.
//! - [`TestWorld`]: databases, topics, Redis keys and processes of one test.
//! - [`User`]: signs up, signs in, moves money, writes, by REST; [`grpc`] has the same doors by gRPC.
//! - [`Proxy`]: stands between a service and a server, and cuts, delays or half-closes.
//! - [`Collector`]: an OTLP receiver.
#![warn(missing_docs)]

pub mod collector;
pub mod eventually;
pub mod grpc;
pub mod promise;
pub mod proxy;
pub mod random;
pub mod rest;
pub mod user;
pub mod world;

pub use collector::Collector;
pub use eventually::eventually;
pub use local::Service;
pub use promise::promise;
pub use proxy::Proxy;
pub use rest::Rest;
pub use user::User;
pub use world::TestWorld;

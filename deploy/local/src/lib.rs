//! A whole kontor on one machine: [`Infra`] is a real PostgreSQL, Redis and Kafka, [`World`] the five services on it.
//! `deploy/up` runs it for people, the tests start their worlds with it. See README.md.
#![warn(missing_docs)]

pub mod demo;
mod folder;
mod infra;
mod keeper;
pub mod ports;
mod process;
mod progress;
mod rest;
mod template;
mod world;

pub use folder::{DataFolder, default_data};
pub use infra::{Addresses, Guard, Guarded, Infra, InfraOptions, InfraPorts, SHARED, postgres_programs};
pub use keeper::keep;
pub use process::Process;
pub use progress::Progress;
pub use world::{Service, World, WorldOptions, WorldPorts};

//! What every gRPC server and client of kontor has in common: deadlines, traces, the caller's identity, limits, and one
//! way to say what went wrong.
//!
//! - [`server`]: serves tonic services behind one stack, with health and reflection.
//! - [`client`]: a balanced channel to the instances of a service, and the stack for calls between services.
//! - [`Caller`]: who calls, signed by the gateway or by another service ([`caller`]).
//! - [`process`]: the page that every `main` would repeat.
//! - [`fields`]: checks of request fields, all of them told at once.
//! - [`error`]: statuses with `google.rpc` details.
#![warn(missing_docs)]

mod balance;
pub mod caller;
pub mod client;
pub mod context;
pub mod error;
pub mod fields;
mod guard;
pub mod process;
mod replay;
pub mod server;

pub use caller::Caller;
pub use context::{Deadline, caller, deadline};

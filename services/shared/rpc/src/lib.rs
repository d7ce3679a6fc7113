//! What every gRPC server of kontor has in common: deadlines, traces, the caller's identity, limits, and one way to say what
//! went wrong. The crate `channel` has the other side: calls.
//!
//! - [`server`]: serves tonic services behind one stack, with health and reflection.
//! - [`Caller`]: who calls, signed by the gateway or by another service ([`caller`]).
//! - [`process`]: the page that every `main` would repeat.
//! - [`fields`]: checks of request fields, all of them told at once.
//! - [`error`]: statuses with `google.rpc` details.
#![warn(missing_docs)]

pub mod caller;
pub mod context;
pub mod error;
pub mod fields;
pub mod gather;
mod guard;
pub mod process;
mod recent;
pub mod server;

pub use caller::Caller;
pub use context::{Deadline, caller, deadline};

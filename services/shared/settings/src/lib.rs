//! Environment variables become typed settings: every problem is found in one pass, secrets never show, and the same
//! reading makes `--help` and `--print-config`.
//!
//! ```
//! # use std::{collections::BTreeMap, net::SocketAddr};
//! struct Config { listen: SocketAddr }
//!
//! fn read(r: &mut settings::Reader) -> Result<Config, settings::Errors> {
//!     let listen = r.or("KONTOR_LISTEN", "address to serve", SocketAddr::from(([0, 0, 0, 0], 7000)));
//!     r.finish()?; // every problem of every setting, at once
//!     Ok(Config { listen: listen? })
//! }
//!
//! let mut r = settings::Reader::from_map(BTreeMap::from([("KONTOR_LISTEN".into(), "127.0.0.1:1".into())]));
//! assert_eq!(read(&mut r).unwrap().listen.port(), 1);
//! ```
#![warn(missing_docs)]

mod cli;
mod description;
mod reader;

pub use cli::{Cli, run_cli};
pub use description::Description;
pub use reader::{Errors, Invalid, Reader};

//! The settings of the service.

use std::net::SocketAddr;

use secrecy::{ExposeSecret as _, SecretString};
use settings::{Errors, Reader};

use crate::app::{engine::MAX_BATCH, reconcile};

const SHORTEST_KEY: usize = 32;
/// A second's work, so that what waits is answered within a usual deadline.
const DEFAULT_QUEUE: usize = 32_768;
/// Below, two more tasks and sessions cost more than they gain.
const DEFAULT_LARGE_BATCH: usize = 1_024;

/// What the service needs to know.
pub struct Config {
    /// How to serve.
    pub server: rpc::server::Config,
    /// The ledger's database.
    pub database: postgres::Config,
    /// The key that the journal is signed with.
    pub ledger_key: SecretString,
    /// Where the journal is published.
    pub events: events::Config,
    /// Rows that may wait to be written.
    pub queue: usize,
    /// Rows from which on the next batch is written beside one.
    pub large_batch: usize,
    /// How balances are compared with the journal.
    pub reconcile: reconcile::Config,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
}

impl rpc::process::Config for Config {
    fn read(reader: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(reader, SocketAddr::from(([0, 0, 0, 0], 7000)));
        let database = postgres::Config::read(reader);
        let ledger_key = reader.secret_as(
            "KONTOR_LEDGER_KEY",
            "key that signs the journal, at least 32 bytes",
            |key| {
                if key.expose_secret().len() < SHORTEST_KEY {
                    return Err("must be at least 32 bytes".to_owned());
                }
                Ok(key.clone())
            },
        );
        let queue = reader.in_range(
            "KONTOR_LEDGER_QUEUE",
            "rows of the journal that may wait to be written",
            MAX_BATCH..=1_000_000,
            DEFAULT_QUEUE,
        );
        let large_batch = reader.in_range(
            "KONTOR_LEDGER_LARGE_BATCH",
            "rows from which on the next batch is written beside one",
            2..=MAX_BATCH,
            DEFAULT_LARGE_BATCH,
        );
        let reconcile_every = reader.millis(
            "KONTOR_RECONCILE_EVERY_MS",
            "from one comparison of all balances with the journal to the next, at least",
            1_000..=86_400_000,
            300_000,
        );
        let reconcile_rows = reader.in_range(
            "KONTOR_RECONCILE_ROWS_PER_SECOND",
            "accounts and entries that are compared in a second, at most",
            1..=10_000_000,
            2_000_u32,
        );
        let events = events::Config::read(reader);
        let telemetry = telemetry::Config::read(reader);
        reader.finish()?;
        Ok(Self {
            server: server?,
            database: database?,
            ledger_key: ledger_key?,
            events: events?,
            queue: queue?,
            large_batch: large_batch?,
            reconcile: reconcile::Config {
                every: reconcile_every?,
                rows_per_second: reconcile_rows?,
            },
            telemetry: telemetry?,
        })
    }

    fn server(&self) -> &rpc::server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }
}

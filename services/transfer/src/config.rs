//! The settings of the service.

use std::net::SocketAddr;

use settings::{Errors, Reader};

/// What the service needs to know.
pub struct Config {
    /// How to serve.
    pub server: rpc::server::Config,
    /// The ledger's database.
    pub database: postgres::Config,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
}

impl rpc::process::Config for Config {
    fn read(reader: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(reader, SocketAddr::from(([0, 0, 0, 0], 7000)));
        let database = postgres::Config::read(reader);
        let telemetry = telemetry::Config::read(reader);
        reader.finish()?;
        Ok(Self {
            server: server?,
            database: database?,
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

//! The settings of the service.

use std::net::SocketAddr;

use settings::{Errors, Reader};

/// What the service needs to know.
pub struct Config {
    /// How to serve.
    pub server: rpc::server::Config,
    /// The users' database.
    pub database: postgres::Config,
    /// Where events go.
    pub events: ::events::Config,
    /// Instances of auth, `host:port` each.
    pub auth: Vec<String>,
    /// Instances of transfer, `host:port` each.
    pub transfer: Vec<String>,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
}

impl rpc::process::Config for Config {
    fn read(reader: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(reader, SocketAddr::from(([0, 0, 0, 0], 7000)));
        let database = postgres::Config::read(reader);
        let events = ::events::Config::read(reader);
        let auth = reader.list("KONTOR_AUTH_ADDRESSES", "instances of auth, host:port each");
        let transfer = reader.list(
            "KONTOR_TRANSFER_ADDRESSES",
            "instances of transfer, host:port each",
        );
        let telemetry = telemetry::Config::read(reader);
        reader.finish()?;
        Ok(Self {
            server: server?,
            database: database?,
            events: events?,
            auth: auth?,
            transfer: transfer?,
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

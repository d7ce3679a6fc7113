//! The settings of the service.

use std::{net::SocketAddr, time::Duration};

use settings::{Errors, Reader};

/// What the service needs to know.
pub struct Config {
    /// How to serve.
    pub server: rpc::server::Config,
    /// Credentials and sessions.
    pub database: postgres::Config,
    /// Copies of sessions, for the gateway.
    pub cache: cache::Config,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
    /// How long a session lasts.
    pub session_lifetime: Duration,
}

impl rpc::process::Config for Config {
    fn read(reader: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(reader, SocketAddr::from(([0, 0, 0, 0], 7000)));
        let database = postgres::Config::read(reader);
        let cache = cache::Config::read(reader);
        let telemetry = telemetry::Config::read(reader);
        let hours = reader.in_range("KONTOR_SESSION_HOURS", "how long a session lasts", 1..=8760, 24);
        reader.finish()?;
        Ok(Self {
            server: server?,
            database: database?,
            cache: cache?,
            telemetry: telemetry?,
            session_lifetime: Duration::from_hours(hours?),
        })
    }

    fn server(&self) -> &rpc::server::Config {
        &self.server
    }

    fn telemetry(&self) -> &telemetry::Config {
        &self.telemetry
    }
}

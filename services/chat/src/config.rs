//! The settings of the service.

use std::net::SocketAddr;

use settings::{Errors, Reader};

use crate::app::Limits;

/// What the service needs to know.
pub struct Config {
    /// How to serve.
    pub server: rpc::server::Config,
    /// Chat's database.
    pub database: postgres::Config,
    /// Kafka.
    pub kafka: events::Config,
    /// Where account is.
    pub account: Vec<String>,
    /// How many may subscribe.
    pub limits: Limits,
    /// Logs, traces, metrics.
    pub telemetry: telemetry::Config,
}

impl rpc::process::Config for Config {
    fn read(reader: &mut Reader) -> Result<Self, Errors> {
        let server = rpc::server::Config::read(reader, SocketAddr::from(([0, 0, 0, 0], 7000)));
        let database = postgres::Config::read(reader);
        let kafka = events::Config::read(reader);
        let account = reader.list("KONTOR_ACCOUNT_ADDRESSES", "instances of account, host:port each");
        let subscriptions = reader.in_range(
            "KONTOR_CHAT_SUBSCRIPTIONS",
            "subscriptions of this instance before new ones are refused",
            1..=1_000_000,
            10_000,
        );
        let per_user = reader.in_range(
            "KONTOR_CHAT_SUBSCRIPTIONS_PER_USER",
            "subscriptions of one user at this instance",
            1..=10_000,
            32,
        );
        let telemetry = telemetry::Config::read(reader);
        reader.finish()?;
        Ok(Self {
            server: server?,
            database: database?,
            kafka: kafka?,
            account: account?,
            limits: Limits {
                subscriptions: subscriptions?,
                per_user: per_user?,
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

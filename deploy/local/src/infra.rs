//! PostgreSQL, Redis and a Kafka broker, as real processes on the loopback interface.

mod guarded;
mod kafka;
mod postgres;
mod provision;
mod redis;

pub use guarded::{Guard, Guarded};
pub use postgres::postgres_programs;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::{ports, process::Process, progress::Progress, template::public_tempdir};

/// The environment variable through which many test processes share one set of servers: the JSON of [`Addresses`].
pub const SHARED: &str = "KONTOR_TEST_INFRA";

/// How a set of servers is started. The default is a throw-away one: temporary folder, free ports, nothing flushed to disk.
#[derive(Clone, Debug, Default)]
pub struct InfraOptions {
    /// Where the data is kept; `None` is a temporary folder.
    pub data: Option<PathBuf>,
    /// Whether an acknowledged write survives a power cut (`fsync`). A killed process loses nothing either way.
    pub durable: bool,
    /// The ports; `None` takes free ones.
    pub ports: Option<InfraPorts>,
    /// Receives a line for each server that is ready.
    pub progress: Progress,
}

/// The ports of the servers, all on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct InfraPorts {
    /// PostgreSQL.
    pub postgres: u16,
    /// Redis.
    pub redis: u16,
    /// The Kafka broker.
    pub kafka: u16,
    /// Kafka's controller, for the broker only.
    pub kafka_controller: u16,
}

impl InfraPorts {
    fn free() -> Result<Self> {
        Ok(Self {
            postgres: ports::free()?,
            redis: ports::free()?,
            kafka: ports::free()?,
            kafka_controller: ports::free()?,
        })
    }
}

/// Where the servers listen, each as `host:port`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Addresses {
    /// PostgreSQL; user `postgres`, no password.
    pub postgres: String,
    /// Redis.
    pub redis: String,
    /// The Kafka broker.
    pub kafka: String,
}

/// A running PostgreSQL, Redis and Kafka. Dropping it ends the servers that it started.
#[derive(Debug)]
pub struct Infra {
    addresses: Addresses,
    /// `None` when another process owns the servers.
    servers: Option<Servers>,
    /// Removed after the servers have ended: the order of the fields matters.
    _temporary: Option<TempDir>,
}

#[derive(Debug)]
struct Servers {
    postgres: Process,
    redis: Process,
    kafka: Process,
}

impl Infra {
    /// Starts the servers and waits until all are ready.
    pub async fn start(options: InfraOptions) -> Result<Self> {
        let ports = options.ports.map_or_else(InfraPorts::free, Ok)?;
        let temporary = options
            .data
            .is_none()
            .then(|| public_tempdir("kontor-"))
            .transpose()?;
        let data = match (&options.data, &temporary) {
            (Some(data), _) => data.as_path(),
            (None, Some(folder)) => folder.path(),
            (None, None) => anyhow::bail!("no data folder"),
        };
        let (progress, durable) = (&options.progress, options.durable);
        // side by side: Kafka takes longest
        let (postgres, redis, kafka) = tokio::try_join!(
            async {
                up(
                    postgres::prepare(data, ports.postgres, durable).await?,
                    ports.postgres,
                    progress,
                )
                .await
            },
            async { up(redis::prepare(data, ports.redis)?, ports.redis, progress).await },
            async { up(kafka::prepare(data, ports, durable).await?, ports.kafka, progress).await },
        )?;
        Ok(Self {
            addresses: Addresses {
                postgres: ports::loopback(ports.postgres),
                redis: ports::loopback(ports.redis),
                kafka: ports::loopback(ports.kafka),
            },
            servers: Some(Servers {
                postgres,
                redis,
                kafka,
            }),
            _temporary: temporary,
        })
    }

    /// Uses servers that another process runs.
    pub fn attach(addresses: Addresses) -> Self {
        Self {
            addresses,
            servers: None,
            _temporary: None,
        }
    }

    /// The servers that the environment variable [`SHARED`] names; `None` when it is not set.
    pub fn from_env() -> Result<Option<Self>> {
        let Some(json) = std::env::var_os(SHARED) else {
            return Ok(None);
        };
        let addresses = serde_json::from_slice(json.as_encoded_bytes())
            .with_context(|| format!("{SHARED} is not what `local infra` prints"))?;
        Ok(Some(Self::attach(addresses)))
    }

    /// Where the servers listen.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The URL of a database.
    pub fn postgres_url(&self, database: &str) -> String {
        postgres_url(&self.addresses.postgres, database)
    }

    /// The URL of the Redis.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.addresses.redis)
    }

    /// The bootstrap list of the Kafka cluster.
    pub fn kafka_brokers(&self) -> &str {
        &self.addresses.kafka
    }

    /// The PostgreSQL process; an error when another process owns it.
    pub fn postgres(&self) -> Result<&Process> {
        Ok(&self.owned()?.postgres)
    }

    /// The Redis process; an error when another process owns it.
    pub fn redis(&self) -> Result<&Process> {
        Ok(&self.owned()?.redis)
    }

    /// The Kafka process; an error when another process owns it.
    pub fn kafka(&self) -> Result<&Process> {
        Ok(&self.owned()?.kafka)
    }

    fn owned(&self) -> Result<&Servers> {
        self.servers
            .as_ref()
            .context("these servers belong to another process")
    }

    /// The servers that we own.
    pub fn processes(&self) -> Vec<Process> {
        self.servers
            .iter()
            .flat_map(|servers| [&servers.postgres, &servers.redis, &servers.kafka])
            .cloned()
            .collect()
    }

    /// Creates a database unless it exists; its name may have small letters, digits and `_`.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        provision::database(&self.postgres_url("postgres"), name).await
    }

    /// Creates topics of 6 partitions unless they exist.
    pub async fn create_topics(&self, names: &[String]) -> Result<()> {
        provision::topics(self.kafka_brokers(), names).await
    }

    /// Stops the servers in order, Kafka first, so that each still has what it needs. Says what did not end well.
    pub async fn stop(&self) -> Result<()> {
        let Some(servers) = &self.servers else {
            return Ok(());
        };
        for server in [&servers.kafka, &servers.redis, &servers.postgres] {
            if server.pid().is_some() {
                server.stop(Duration::from_secs(20)).await?;
            }
        }
        Ok(())
    }
}

/// The URL of a database of the PostgreSQL at an address.
pub(crate) fn postgres_url(address: &str, database: &str) -> String {
    format!("postgres://postgres@{address}/{database}")
}

async fn up(process: Process, port: u16, progress: &Progress) -> Result<Process> {
    let since = Instant::now();
    process.start().await?;
    progress.done(&format!("{} on 127.0.0.1:{port}", process.name()), since);
    Ok(process)
}

fn log_path(data: &Path, server: &str) -> PathBuf {
    data.join("logs").join(format!("{server}.log"))
}

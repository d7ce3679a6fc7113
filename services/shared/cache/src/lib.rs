//! Redis as a cache: every command has a deadline of 250 ms, a server that is away costs almost nothing, and nothing here is
//! the only copy of anything.
//!
//! ```no_run
//! # async fn example(config: cache::Config) -> Result<(), cache::Error> {
//! let cache = cache::Cache::connect(&config);
//! cache.put("answer", &42, std::time::Duration::from_secs(60)).await?;
//! assert_eq!(cache.get("answer").await?, Some(42));
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod breaker;
mod config;
mod follow;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use breaker::{Breaker, Change};
pub use config::Config;
pub use follow::Follower;
use opentelemetry::{KeyValue, metrics::Counter};
use redis::{
    Client, Cmd, FromRedisValue,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout};

/// How long a command may take, waiting for a connection included.
pub const DEADLINE: Duration = Duration::from_millis(250);

/// The cache cannot answer. Go on without it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Redis refused the command or the connection.
    #[error("redis: {0}")]
    Redis(#[from] redis::RedisError),
    /// No answer in time.
    #[error("redis did not answer within {} ms", DEADLINE.as_millis())]
    Timeout,
    /// Redis failed several times a moment ago; this command was not even sent.
    #[error("redis is away")]
    Away,
    /// The value is not what this version writes.
    #[error("a cached value cannot be read or written: {0}")]
    Value(#[from] serde_json::Error),
}

/// A connection to Redis. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    client: Client,
    prefix: String,
    // never locked across an await: a clone is taken out
    connection: Mutex<Option<ConnectionManager>>,
    breaker: Breaker,
    commands: Counter<u64>,
}

impl Cache {
    /// Gets ready to connect. Connects with the first command, and again whenever it is needed, so it cannot fail.
    pub fn connect(config: &Config) -> Self {
        let commands = opentelemetry::global::meter("kontor")
            .u64_counter("kontor.cache.commands")
            .with_description("commands to Redis, by name and outcome")
            .build();
        Self(Arc::new(Inner {
            client: config.client.clone(),
            prefix: config.prefix.clone(),
            connection: Mutex::new(None),
            breaker: Breaker::default(),
            commands,
        }))
    }

    /// Reads a value.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        let mut command = redis::cmd("GET");
        command.arg(self.key(key));
        let text: Option<String> = self.run("get", &command).await?;
        Ok(text.map(|text| serde_json::from_str(&text)).transpose()?)
    }

    /// Reads several values with one command, in the order of the keys. It has the deadline of one: ask for a few hundred at
    /// most. A value that cannot be read counts as absent, so that it does not hide the others.
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[String]) -> Result<Vec<Option<T>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new()); // Redis would refuse it
        }
        let mut command = redis::cmd("MGET");
        for key in keys {
            command.arg(self.key(key));
        }
        let texts: Vec<Option<String>> = self.run("get_many", &command).await?;
        let read = |text: String| serde_json::from_str(&text).ok();
        Ok(texts.into_iter().map(|text| text.and_then(read)).collect())
    }

    /// Writes a value that vanishes after `ttl`. A `ttl` below one millisecond writes nothing.
    pub async fn put<T: Serialize>(&self, key: &str, value: &T, ttl: Duration) -> Result<(), Error> {
        let Some(command) = self.set(key, value, ttl)? else {
            return Ok(());
        };
        self.run("put", &command).await
    }

    /// Writes a value unless the key has one; returns whether it was written.
    pub async fn put_if_absent<T: Serialize>(
        &self,
        key: &str,
        value: &T,
        ttl: Duration,
    ) -> Result<bool, Error> {
        let Some(mut command) = self.set(key, value, ttl)? else {
            return Ok(false);
        };
        command.arg("NX");
        let written: Option<String> = self.run("put_if_absent", &command).await?;
        Ok(written.is_some())
    }

    /// Removes a value, if it is there.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let mut command = redis::cmd("DEL");
        command.arg(self.key(key));
        self.run("delete", &command).await
    }

    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.0.prefix)
    }

    fn set<T: Serialize>(&self, key: &str, value: &T, ttl: Duration) -> Result<Option<Cmd>, Error> {
        let millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return Ok(None); // Redis would refuse it
        }
        let mut command = redis::cmd("SET");
        command
            .arg(self.key(key))
            .arg(serde_json::to_string(value)?)
            .arg("PX")
            .arg(millis);
        Ok(Some(command))
    }

    async fn run<T: FromRedisValue>(&self, name: &'static str, command: &Cmd) -> Result<T, Error> {
        let inner = &*self.0;
        let result = if inner.breaker.lets_pass(Instant::now()) {
            let result = self.ask(command).await;
            self.learn(&result);
            result
        } else {
            Err(Error::Away)
        };
        let outcome = if result.is_ok() { "ok" } else { "error" };
        inner.commands.add(
            1,
            &[KeyValue::new("command", name), KeyValue::new("outcome", outcome)],
        );
        result
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        let mut connection = self.connection()?;
        match timeout(DEADLINE, command.query_async(&mut connection)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Timeout),
        }
    }

    fn connection(&self) -> Result<ConnectionManager, Error> {
        let mut slot = self.0.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*slot {
            return Ok(connection.clone());
        }
        // one attempt for each command that finds it broken: the breaker does the waiting
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(DEADLINE));
        let connection = self.0.client.get_connection_manager_lazy(config)?;
        Ok(slot.insert(connection).clone())
    }

    fn learn<T>(&self, result: &Result<T, Error>) {
        let failed = match result {
            Err(Error::Timeout) => true,
            Err(Error::Redis(error)) => error.is_io_error() || error.is_unrecoverable_error(),
            // an answer, if a bad one
            Ok(_) | Err(Error::Away | Error::Value(_)) => false,
        };
        match self.0.breaker.record(!failed, Instant::now()) {
            Change::None => {}
            Change::Opened => {
                // a host that vanished answers nothing, not even a reset: the next attempt gets a new connection
                *self.0.connection.lock().unwrap_or_else(PoisonError::into_inner) = None;
                let error = result.as_ref().err().map(ToString::to_string);
                tracing::warn!(error, "redis is away");
            }
            Change::StillOpen => *self.0.connection.lock().unwrap_or_else(PoisonError::into_inner) = None,
            Change::Closed => tracing::info!("redis is back"),
        }
    }
}

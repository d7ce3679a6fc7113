use std::{fmt, str::FromStr, time::Duration};

use secrecy::ExposeSecret as _;
use settings::{Invalid, Reader};
use sqlx::{ConnectOptions as _, postgres::PgConnectOptions};
use tracing::log::LevelFilter;

/// A statement that runs longer is cancelled by the server, in milliseconds. Requests have shorter deadlines; this is for
/// those whose caller went away.
const STATEMENT_TIMEOUT_MS: &str = "15000";
/// A transaction that waits longer for a lock fails and can be retried, in milliseconds.
const LOCK_TIMEOUT_MS: &str = "5000";
/// A transaction that is left open is ended by the server, in milliseconds: it would keep its locks otherwise.
const IDLE_IN_TRANSACTION_TIMEOUT_MS: &str = "10000";

/// How long a session lasts unless configured otherwise, in seconds.
const LIFETIME_SECONDS: u64 = 30 * 60;

/// Which database to use, and how.
#[derive(Clone)]
pub struct Config {
    pub(crate) options: PgConnectOptions,
    pub(crate) connections: u32,
    pub(crate) lifetime: Duration,
}

impl Config {
    /// Reads `KONTOR_DATABASE_URL`, `KONTOR_DATABASE_CONNECTIONS` and `KONTOR_DATABASE_SESSION_SECONDS`.
    pub fn read(r: &mut Reader) -> Result<Self, Invalid> {
        let options = r.secret_as("KONTOR_DATABASE_URL", "database to use, postgres://…", |url| {
            // the parser's own message may quote a part of the address, which may be the password
            let url = url.expose_secret();
            let known = ["postgres://", "postgresql://"]
                .iter()
                .any(|scheme| url.starts_with(scheme));
            match PgConnectOptions::from_str(url) {
                Ok(options) if known => Ok(options),
                _ => Err("must look like postgres://user:password@host:5432/database".to_owned()),
            }
        });
        let connections = r.in_range(
            "KONTOR_DATABASE_CONNECTIONS",
            "connections to the database",
            1..=1000,
            10u32,
        );
        let lifetime = r.in_range(
            "KONTOR_DATABASE_SESSION_SECONDS",
            "seconds that a session with the database lasts; a router on the way waits three times as long when it ends",
            5..=86_400,
            LIFETIME_SECONDS,
        );
        let mut config = Self::new(options?, connections?);
        config.lifetime = Duration::from_secs(lifetime?);
        Ok(config)
    }

    /// A configuration made by a program.
    pub fn new(options: PgConnectOptions, connections: u32) -> Self {
        // one database for each service: its name tells who is connected
        let name = format!("kontor-{}", options.get_database().unwrap_or("unnamed"));
        let options = options
            .application_name(&name)
            .options([
                ("statement_timeout", STATEMENT_TIMEOUT_MS),
                ("lock_timeout", LOCK_TIMEOUT_MS),
                (
                    "idle_in_transaction_session_timeout",
                    IDLE_IN_TRANSACTION_TIMEOUT_MS,
                ),
                // a long table makes the cost of a short statement look high, and compiling it takes 40 ms each time
                ("jit", "off"),
                // a session whose client has gone, silently too, ends within half a minute, and its locks with it
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "3"),
                ("client_connection_check_interval", "1000"),
            ])
            // statements can hold personal data: only their shape is logged, and only on demand
            .log_statements(LevelFilter::Trace)
            .log_slow_statements(LevelFilter::Debug, Duration::from_secs(1));
        Self {
            options,
            connections,
            lifetime: Duration::from_secs(LIFETIME_SECONDS),
        }
    }
}

impl fmt::Debug for Config {
    // the options would print the password
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("host", &self.options.get_host())
            .field("database", &self.options.get_database())
            .field("connections", &self.connections)
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(url: &str) -> (Result<Config, Invalid>, String) {
        let variables = BTreeMap::from([("KONTOR_DATABASE_URL".to_owned(), url.to_owned())]);
        let mut r = Reader::from_map(variables);
        let config = Config::read(&mut r);
        (
            config,
            r.finish()
                .err()
                .map(|errors| errors.to_string())
                .unwrap_or_default(),
        )
    }

    #[test]
    fn neither_errors_nor_debug_show_the_password() {
        let (config, _) = read("postgres://app:hunter2@db:5433/auth");
        let debug = format!("{:?}", config.unwrap());
        assert!(debug.contains("auth") && !debug.contains("hunter2"), "{debug}");
        for wrong in [
            "postgres://app:hunter2@db:no_port/auth",
            "mysql://app:hunter2@db/auth",
            "hunter2",
        ] {
            let (config, problem) = read(wrong);
            config.unwrap_err();
            assert!(
                problem.starts_with("KONTOR_DATABASE_URL: must look like") && !problem.contains("hunter2")
            );
        }
    }
}

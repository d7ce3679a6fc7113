//! A database of its own for each test, on a real server. Only with the feature `testing`, as a development dependency.

use std::{str::FromStr, time::Duration};

use settings::Reader;
use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, PgPool, migrate::Migrator,
    postgres::PgConnectOptions,
};

use crate::Config;

/// A database that lives as long as the value.
pub struct Database {
    /// A pool of connections to it.
    pub pool: PgPool,
    /// How to connect to it.
    pub options: PgConnectOptions,
    server: PgConnectOptions,
    name: String,
}

impl Database {
    /// Creates a database on the server of `KONTOR_TEST_POSTGRES_URL` (`tests/run` sets it) and migrates it.
    ///
    /// # Panics
    /// When the server is not there, or a migration fails.
    pub async fn create(migrator: &Migrator) -> Self {
        let database = Self::empty().await;
        if let Err(error) = crate::migrate(&database.pool, migrator).await {
            fail(&format!("cannot migrate the test's database: {error}"));
        }
        database
    }

    /// Creates a database without any table.
    ///
    /// # Panics
    /// When the server is not there.
    pub async fn empty() -> Self {
        let url = Reader::from_env().or(
            "KONTOR_TEST_POSTGRES_URL",
            "server for tests",
            "postgres://postgres@127.0.0.1:55432/postgres".to_owned(),
        );
        let Ok(Ok(server)) = url.map(|url| PgConnectOptions::from_str(&url)) else {
            fail("KONTOR_TEST_POSTGRES_URL is not a postgres:// address");
        };
        let name = format!("test_{:032x}", rand::random::<u128>());
        if let Err(error) = execute(&server, format!("CREATE DATABASE {name}")).await {
            fail(&format!(
                "no PostgreSQL for tests: {error}; run the tests with tests/run"
            ));
        }
        let options = server.clone().database(&name);
        let config = Config::new(options.clone(), 10);
        match crate::connect(&config).await {
            Ok(pool) => Self {
                pool,
                options,
                server,
                name,
            },
            Err(error) => fail(&error.to_string()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // in a thread, as the test's own runtime is busy with this very drop
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            // the timer of `timeout` needs the runtime from its first moment: hence the block
            let drop = async { tokio::time::timeout(Duration::from_secs(10), execute(&server, sql)).await };
            let _ = runtime.block_on(drop);
            std::io::Result::Ok(())
        });
        // a database that stays does no harm: the server of the tests is thrown away
        drop(dropped.join());
    }
}

async fn execute(server: &PgConnectOptions, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(server).await?;
    connection.execute(AssertSqlSafe(sql)).await?;
    connection.close().await
}

#[expect(clippy::panic, reason = "only tests call this, and a test fails by a panic")]
fn fail(problem: &str) -> ! {
    panic!("{problem}")
}

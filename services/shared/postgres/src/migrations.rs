use std::borrow::Cow;

use sqlx::{
    Connection as _, PgPool,
    migrate::{MigrateError, Migrator},
};

use crate::{Error, pool::connect_once};

/// Brings the database up to date. Replicas that start at the same time wait for each other on a lock, at most a minute.
///
/// Migrations that the database has and this binary does not know are accepted: they come from a newer version that is being
/// rolled out or was rolled back, and migrations only ever expand what an older version needs.
pub async fn migrate(pool: &PgPool, migrator: &Migrator) -> Result<(), Error> {
    let wrap = |error: sqlx::Error| Error::Migrations(Box::new(MigrateError::from(error)));
    // A connection of its own: a migration may take longer than any request, and its session settings must not come back
    // to the pool. The lock timeout bounds the wait for the lock of the migrator, too.
    let options = (*pool.connect_options()).clone().options([
        ("statement_timeout", "0"),
        ("lock_timeout", "60000"),
        ("idle_in_transaction_session_timeout", "0"),
        // the migrator creates its table "if not exists": that it exists is no news at every start
        ("client_min_messages", "warning"),
    ]);
    let mut connection = connect_once(&options).await.map_err(Error::Connect)?;
    let lenient = Migrator {
        migrations: Cow::Owned(migrator.iter().cloned().collect()),
        ignore_missing: true,
        ..Migrator::DEFAULT
    };
    let result = lenient.run(&mut connection).await;
    let closed = connection.close().await;
    match result {
        Ok(()) => closed.map_err(wrap),
        Err(error) => Err(name(migrator, error)),
    }
}

fn name(migrator: &Migrator, error: MigrateError) -> Error {
    let version = match error {
        MigrateError::ExecuteMigration(_, version)
        | MigrateError::VersionMismatch(version)
        | MigrateError::VersionMissing(version)
        | MigrateError::Dirty(version) => version,
        error => return Error::Migrations(Box::new(error)),
    };
    let migration = migrator.iter().find(|migration| migration.version == version);
    let description = migration
        .map(|migration| migration.description.clone().into_owned())
        .unwrap_or_default();
    Error::Migration {
        version,
        description,
        source: Box::new(error),
    }
}

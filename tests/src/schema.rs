//! Databases as other releases leave them.

use std::{borrow::Cow, path::Path};

use anyhow::{Context as _, Result};
use local::{Infra, Service};
use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};

/// Makes the databases of a namespace as the release before has left them: without the last migration of each service.
pub async fn of_the_release_before(infra: &Infra, namespace: &str) -> Result<()> {
    for service in Service::ALL.into_iter().filter(|service| service.has_database()) {
        let name = format!("{namespace}_{}", service.name());
        infra.create_database(&name).await?;
        // from the crate's folder, where cargo and tests/run start a test: a compiled program may come from another checkout
        let folder = format!("../services/{}/migrations", service.name());
        let all = Migrator::new(Path::new(&folder)).await?;
        let mut older: Vec<_> = all.iter().cloned().collect();
        older.pop().context("a service without migrations")?;
        let older = Migrator {
            migrations: Cow::Owned(older),
            ..Migrator::DEFAULT
        };
        let pool = PgPool::connect(&infra.postgres_url(&name)).await?;
        older.run(&pool).await.with_context(|| name.clone())?;
        pool.close().await;
    }
    Ok(())
}

/// Does to a service's database what the next release may do first: each table gets a column, and there is one more table.
pub async fn expand(database: &PgPool) -> Result<()> {
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT table_name::text FROM information_schema.tables \
         WHERE table_schema = 'public' AND table_type = 'BASE TABLE' AND table_name NOT LIKE '\\_sqlx%'",
    )
    .fetch_all(database)
    .await?;
    // each by itself: together they could wait in a circle with what the service does beside its requests
    for table in tables {
        let statement = format!("ALTER TABLE \"{table}\" ADD COLUMN next_release text");
        sqlx::query(AssertSqlSafe(statement)).execute(database).await?;
    }
    sqlx::query("CREATE TABLE next_release (id bigint)")
        .execute(database)
        .await?;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (29991231235959, 'next release', true, '\\x00', 0)",
    )
    .execute(database)
    .await?;
    Ok(())
}

//! Databases and topics.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    types::RDKafkaErrorCode,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Enough that three replicas share the work, few enough for a laptop.
const PARTITIONS: i32 = 6;
const PATIENCE: Duration = Duration::from_secs(20);

/// Creates a database unless it exists.
pub(super) async fn database(url: &str, name: &str) -> Result<()> {
    ensure!(
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "a database name has small letters, digits and _, not {name:?}"
    );
    let mut connection = PgConnection::connect(url).await?;
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
        .bind(name)
        .fetch_one(&mut connection)
        .await?;
    if !exists {
        // a name cannot be a parameter; it was checked above
        let statement = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
        sqlx::query(statement)
            .execute(&mut connection)
            .await
            .with_context(|| format!("cannot create database {name}"))?;
    }
    Ok(connection.close().await?)
}

/// Creates topics unless they exist.
pub(super) async fn topics(brokers: &str, names: &[String]) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", brokers).create()?;
    let topics: Vec<_> = names
        .iter()
        .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)))
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(PATIENCE))
        .operation_timeout(Some(PATIENCE));
    for result in admin
        .create_topics(&topics, &options)
        .await
        .context("cannot create topics")?
    {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, error)) => bail!("cannot create topic {topic}: {error}"),
        }
    }
    Ok(())
}

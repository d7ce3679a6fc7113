//! PostgreSQL, Redis and Kafka start, answer, survive `kill -9`, and leave nothing behind.

use std::{path::PathBuf, time::Duration};

use local::{Infra, InfraOptions};
use tokio::net::TcpStream;

#[tokio::test]
async fn servers_start_come_back_after_a_kill_and_end_with_their_owner() {
    let infra = Infra::start(InfraOptions::default()).await.unwrap();
    infra.create_database("promise").await.unwrap();
    infra.create_database("promise").await.unwrap(); // a second time changes nothing
    let topics = ["promise.topic".to_owned()];
    infra.create_topics(&topics).await.unwrap();
    infra.create_topics(&topics).await.unwrap();

    // a commit that was acknowledged survives: with nothing flushed to disk it is the system that has it
    let url = infra.postgres_url("promise");
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 1 AS number")
        .execute(&mut connection)
        .await
        .unwrap();
    infra.postgres().unwrap().kill_family().await.unwrap();
    infra.postgres().unwrap().restart().await.unwrap();
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    let kept: i32 = sqlx::query_scalar("SELECT number FROM kept")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, 1);

    for server in infra.processes() {
        server.kill().await.unwrap();
        assert_eq!(server.pid(), None);
        server.restart().await.unwrap();
    }
    infra.create_database("promise").await.unwrap();

    let pids: Vec<u32> = infra.processes().iter().filter_map(local::Process::pid).collect();
    let addresses = infra.addresses().clone();
    assert_eq!(pids.len(), 3);
    drop(infra);
    for pid in pids {
        assert!(
            !PathBuf::from(format!("/proc/{pid}")).exists(),
            "process {pid} outlives its owner"
        );
    }
    for address in [addresses.postgres, addresses.redis, addresses.kafka] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn kept_data_is_there_after_a_clean_stop() {
    let data = tempfile::tempdir().unwrap();
    std::fs::set_permissions(data.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let options = || InfraOptions {
        data: Some(data.path().into()),
        durable: true,
        ..InfraOptions::default()
    };
    let first = Infra::start(options()).await.unwrap();
    first.create_database("kept").await.unwrap();
    first.create_topics(&["kept".to_owned()]).await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), first.stop())
        .await
        .unwrap()
        .unwrap();

    let second = Infra::start(options()).await.unwrap();
    let statement = "SELECT count(*) FROM pg_database WHERE datname = 'kept'";
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&second.postgres_url("postgres"))
        .await
        .unwrap();
    let found: i64 = sqlx::query_scalar(statement)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(found, 1);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = local::InfraPorts {
        postgres: local::ports::free().unwrap(),
        redis: taken.local_addr().unwrap().port(),
        kafka: local::ports::free().unwrap(),
        kafka_controller: local::ports::free().unwrap(),
    };
    let error = Infra::start(InfraOptions {
        ports: Some(ports),
        ..InfraOptions::default()
    })
    .await
    .unwrap_err();
    let sentence = error.to_string();
    assert_eq!(sentence, "Redis ended before it was ready (exit status: 1)");
    let whole = format!("{error:#}");
    assert!(whole.contains("in use"), "the log is quoted: {whole}");
}

#[tokio::test]
async fn the_log_of_postgresql_has_no_rows_in_it() {
    let infra = Infra::start(InfraOptions::default()).await.unwrap();
    let url = infra.postgres_url("postgres");
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url)
        .await
        .unwrap();
    sqlx::raw_sql("CREATE TABLE people (email text CONSTRAINT people_email_unique UNIQUE)")
        .execute(&mut connection)
        .await
        .unwrap();
    let insert = || sqlx::query("INSERT INTO people VALUES ($1)").bind("somebody@example.com");
    insert().execute(&mut connection).await.unwrap();
    insert().execute(&mut connection).await.unwrap_err();
    let log = infra.processes()[0].log_path().to_owned();
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.contains("people_email_unique"), "{log}");
    assert!(!log.contains("somebody@example.com"), "{log}");
}

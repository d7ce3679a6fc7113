//! What only a real server can show.

use std::{borrow::Cow, time::Duration};

use lifecycle::Lifecycle;
use postgres::{Config, Error, begin, constraint, is_unavailable, migrate, retry, testing::Database};
use sqlx::{
    Executor as _, SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    postgres::PgPoolOptions,
};
use tokio::sync::mpsc;

fn migrator(migrations: &[(i64, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|&(version, sql)| {
        Migration::new(
            version,
            Cow::Borrowed("things"),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

#[tokio::test]
async fn replicas_migrate_once_and_an_older_one_still_starts() {
    let database = Database::empty().await;
    let new = migrator(&[
        (1, "CREATE TABLE a (id int)"),
        (2, "CREATE TABLE b (id int); SELECT pg_sleep(0.3)"),
    ]);
    let (one, two) = tokio::join!(migrate(&database.pool, &new), migrate(&database.pool, &new));
    one.unwrap();
    two.unwrap();
    let old = migrator(&[(1, "CREATE TABLE a (id int)")]);
    migrate(&database.pool, &old)
        .await
        .expect("a rollback meets a newer schema");
    let changed = migrator(&[(1, "CREATE TABLE a (id bigint)")]);
    let error = migrate(&database.pool, &changed).await.unwrap_err();
    assert!(matches!(error, Error::Migration { version: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_broken_migration_is_named_and_leaves_nothing() {
    let database = Database::empty().await;
    let broken = migrator(&[(20_260_101_000_000, "CREATE TABLE a (id int); SELECT 1 / 0")]);
    let error = migrate(&database.pool, &broken).await.unwrap_err().to_string();
    assert!(
        error.starts_with("migration 20260101000000 (things) failed"),
        "{error}"
    );
    database
        .pool
        .execute("CREATE TABLE a (id int)")
        .await
        .expect("the migration was rolled back");
}

#[tokio::test]
async fn transactions_that_lose_against_each_other_are_retried() {
    let database = Database::empty().await;
    database
        .pool
        .execute("CREATE TABLE counters (n int); INSERT INTO counters VALUES (0)")
        .await
        .unwrap();
    let add = || {
        retry(|| async {
            let mut transaction = begin(&database.pool).await?;
            transaction
                .execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                .await?;
            let n: i32 = sqlx::query_scalar("SELECT n FROM counters")
                .fetch_one(&mut *transaction)
                .await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            sqlx::query("UPDATE counters SET n = $1")
                .bind(n + 1)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        })
    };
    let (one, two, three) = tokio::join!(add(), add(), add());
    one.and(two).and(three).unwrap();
    let n: i32 = sqlx::query_scalar("SELECT n FROM counters")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert_eq!(n, 3);
}

#[tokio::test]
async fn a_transaction_whose_session_is_lost_is_repeated() {
    let database = Database::empty().await;
    database
        .pool
        .execute("CREATE TABLE kept (key int PRIMARY KEY)")
        .await
        .unwrap();
    // lost before its commit, and behind it, when nobody can know
    for (key, committed) in [(1, false), (2, true)] {
        let mut tries = 0;
        let end = "SELECT pg_terminate_backend(pg_backend_pid())";
        retry(|| {
            tries += 1;
            let first = tries == 1;
            let pool = &database.pool;
            async move {
                let mut transaction = begin(pool).await?;
                sqlx::query("INSERT INTO kept VALUES ($1) ON CONFLICT DO NOTHING")
                    .bind(key)
                    .execute(&mut *transaction)
                    .await?;
                if first && !committed {
                    transaction.execute(end).await?;
                }
                transaction.commit().await?;
                if first {
                    pool.execute(end).await?;
                }
                Ok::<_, sqlx::Error>(())
            }
        })
        .await
        .unwrap();
        assert_eq!(tries, 2);
    }
    let kept: Vec<i32> = sqlx::query_scalar("SELECT key FROM kept ORDER BY key")
        .fetch_all(&database.pool)
        .await
        .unwrap();
    assert_eq!(kept, [1, 2]);
}

#[tokio::test]
async fn a_transaction_that_is_given_up_while_it_begins_leaves_nothing_behind() {
    let database = Database::empty().await;
    database.pool.execute("CREATE TABLE kept (n int)").await.unwrap();
    // one session: what is left in it is in the way of the next
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(database.options.clone())
        .await
        .unwrap();
    let (mut given_up, mut begun) = (0, 0);
    // at every moment of it: before the session is there, with BEGIN on its way, with its answer
    for moment in 0..200 {
        let patience = async {
            for _ in 0..moment % 20 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            biased;
            transaction = begin(&pool) => {
                begun += 1;
                drop(transaction.unwrap());
            }
            () = patience => given_up += 1,
        }
        sqlx::query("INSERT INTO kept VALUES ($1)")
            .bind(moment)
            .execute(&pool)
            .await
            .unwrap();
        let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM kept")
            .fetch_one(&database.pool)
            .await
            .unwrap();
        assert_eq!(kept, i64::from(moment) + 1, "acknowledged, but not committed");
    }
    assert!(given_up > 0, "none was given up: {begun}");
    begin(&pool).await.unwrap().commit().await.unwrap();
}

#[tokio::test]
async fn errors_are_told_apart() {
    let database = Database::empty().await;
    database
        .pool
        .execute("CREATE TABLE a (id int CONSTRAINT a_positive CHECK (id > 0))")
        .await
        .unwrap();
    let error = database
        .pool
        .execute("INSERT INTO a VALUES (0)")
        .await
        .unwrap_err();
    assert_eq!(
        (constraint(&error), is_unavailable(&error)),
        (Some("a_positive"), false)
    );
    let error = database
        .pool
        .execute("SET statement_timeout = 50; SELECT pg_sleep(5)")
        .await
        .unwrap_err();
    assert!(is_unavailable(&error), "{error}");
    let error = database
        .pool
        .execute("SELECT pg_terminate_backend(pg_backend_pid())")
        .await
        .unwrap_err();
    assert!(is_unavailable(&error), "{error}");
}

#[tokio::test]
async fn sessions_have_time_limits_and_a_name_and_compile_nothing() {
    let database = Database::empty().await;
    let settings: Vec<String> = sqlx::query_scalar(
        "SELECT ARRAY[current_setting('statement_timeout'), current_setting('lock_timeout'), \
         current_setting('idle_in_transaction_session_timeout'), current_setting('jit')]",
    )
    .fetch_one(&database.pool)
    .await
    .unwrap();
    assert_eq!(settings, ["15s", "5s", "10s", "off"]);
    let name: String = sqlx::query_scalar("SELECT current_setting('application_name')")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    assert!(name.starts_with("kontor-test_"), "{name}");
}

#[tokio::test]
async fn a_tests_database_goes_with_the_test() {
    let (stays, goes) = (Database::empty().await, Database::empty().await);
    let name = goes.options.get_database().unwrap().to_owned();
    drop(goes);
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname = $1")
        .bind(name)
        .fetch_one(&stays.pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_missing_database_fails_at_once() {
    let database = Database::empty().await;
    let config = Config::new(database.options.clone().database("nowhere"), 1);
    let start = std::time::Instant::now();
    postgres::connect(&config).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn health_survives_a_killed_connection_and_ends_with_the_draining() {
    let database = Database::empty().await;
    let lifecycle = Lifecycle::new(Duration::from_secs(1));
    let (sender, mut reports) = mpsc::channel(8);
    postgres::watch_health(&database.pool, &lifecycle, move |good| {
        let sender = sender.clone();
        async move { sender.send(good).await.unwrap() }
    });
    assert_eq!(reports.recv().await, Some(true));
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
                AND pid <> pg_backend_pid()";
    database.pool.execute(kill).await.unwrap();
    // two rounds later nothing was reported: the watcher connected again
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(reports.try_recv().is_err());
    lifecycle.drain();
    assert_eq!(reports.recv().await, Some(false));
}

//! A stored balance that differs from the journal is found and told, as long as it does.

use std::{sync::Arc, time::Duration};

use proto::transfer::v1::{DriftFound, transfer_event::Event};
use sqlx::AssertSqlSafe;
use tokio::sync::mpsc;
use transfer::{
    app::{
        error::Source,
        reconcile::{Alarm, Config, Drift, Reconciler},
    },
    events::{Drifts, Relay},
};

use super::{
    histories::{self, now, seed, written},
    kafka,
    world::{Replica, World},
};

const FAST: Config = Config {
    every: Duration::from_millis(50),
    rows_per_second: 1_000_000,
};

/// Tells drifts to a test.
#[derive(Clone)]
struct Bell(mpsc::Sender<Drift>);

impl Alarm for Bell {
    async fn tell(&self, drifts: Vec<Drift>) -> Result<(), Source> {
        for drift in drifts {
            self.0.send(drift).await?;
        }
        Ok(())
    }
}

fn start(world: &World, replica: &Replica, alarm: impl Alarm) {
    let reconciler = Reconciler::new(replica.store.clone(), alarm, FAST, Arc::new(now));
    let until = world.lifecycle().clone();
    world
        .lifecycle()
        .spawn("reconciler", async move { reconciler.run(&until).await });
}

async fn next(drifts: &mut mpsc::Receiver<Drift>) -> Drift {
    let next = tokio::time::timeout(Duration::from_secs(20), drifts.recv());
    next.await.unwrap().unwrap()
}

async fn execute(world: &World, statement: &str) {
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(world.pool())
        .await
        .unwrap();
    assert!(done.rows_affected() > 0, "{statement}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_every_figure() {
    let (world, replicas) = written(2, seed(), 80).await;
    let (bell, mut drifts) = mpsc::channel(1);
    start(&world, &replicas[0], Bell(bell));
    let account = world.sql("SELECT id FROM accounts WHERE user_id = 4").await;
    for figure in ["posted", "held", "incoming", "position"] {
        execute(
            &world,
            &format!("UPDATE accounts SET {figure} = {figure} + 3 WHERE user_id = 4"),
        )
        .await;
        let expected =
            ["posted", "held", "incoming", "position"].map(|name| if name == figure { 3 } else { 0 });
        // again and again, as long as it does; the figure before may still be told
        let mut told = 0;
        while told < 2 {
            let drift = next(&mut drifts).await.compared;
            assert_eq!(drift.account, account);
            let differences = [
                drift.stored.posted - drift.journal.posted,
                drift.stored.held - drift.journal.held,
                drift.stored.incoming - drift.journal.incoming,
                drift.stored.position - drift.journal.position,
            ];
            told += i32::from(differences == expected);
        }
        execute(
            &world,
            &format!("UPDATE accounts SET {figure} = {figure} - 3 WHERE user_id = 4"),
        )
        .await;
    }
    // and then no more
    while let Ok(drift) = tokio::time::timeout(Duration::from_secs(1), drifts.recv()).await {
        assert!(drift.is_some());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_of_a_sum_that_no_longer_is() {
    let (world, replicas) = written(2, seed(), 80).await;
    let (bell, mut drifts) = mpsc::channel(1);
    // the balances beside the row are as they were: only the sum of all rows tells
    execute(
        &world,
        "ALTER TABLE journal DISABLE TRIGGER USER;
         UPDATE journal SET moved = moved + 7
          WHERE kind = 'transfer' AND (lane, sequence) IN (SELECT lane, min(sequence) FROM journal WHERE lane = 1 GROUP BY lane);
         ALTER TABLE journal ENABLE TRIGGER USER",
    )
    .await;
    start(&world, &replicas[0], Bell(bell));
    let [first, second] = [next(&mut drifts).await.compared, next(&mut drifts).await.compared];
    assert_ne!(first.account, second.account);
    let differences = [first, second].map(|drift| drift.stored.posted - drift.journal.posted);
    assert!(
        differences.contains(&7) && differences.contains(&-7),
        "{differences:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn also_of_an_account_with_many_entries() {
    let world = World::new().await;
    let replica = world.replica();
    replica.users(2, 1_000_000).await;
    // some parts of it are added up before the last one
    for _ in 0..3 {
        let items = (0..4_000).map(|_| transfer::app::order::Item {
            action: transfer::app::order::Action::Transfer(super::world::order(1, 2, 1)),
            linked: false,
        });
        let results = replica
            .ledger
            .run_all(items.collect(), false, super::world::soon())
            .await
            .unwrap();
        assert!(results.iter().all(Result::is_ok));
    }
    let (bell, mut drifts) = mpsc::channel(1);
    execute(
        &world,
        "UPDATE accounts SET incoming = incoming + 1 WHERE user_id = 2",
    )
    .await;
    start(&world, &replica, Bell(bell));
    let drift = next(&mut drifts).await.compared;
    assert_eq!((drift.stored.incoming, drift.journal.incoming), (1, 0));
    assert_eq!(drift.stored.position, 12_001);
    let same = transfer::app::reconcile::Figures {
        incoming: 0,
        ..drift.stored
    };
    assert_eq!(drift.journal, same);
    // a number of entries that cannot be reached is no reason to look for them for ever
    execute(
        &world,
        "UPDATE accounts SET incoming = 0, position = 1000000000000 WHERE user_id = 2",
    )
    .await;
    while next(&mut drifts).await.compared.journal.position != 12_001 {}
    next(&mut drifts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn but_none_while_writers_work() {
    let seed = seed();
    let (world, replicas) = written(2, seed, 40).await;
    let (bell, mut drifts) = mpsc::channel(1);
    for replica in &replicas {
        start(&world, replica, Bell(bell.clone()));
    }
    histories::write(&replicas, seed.wrapping_add(1), 400).await;
    assert!(drifts.try_recv().is_err());
    // it works, and when the one that leads is gone, so does the other
    for figure in ["posted", "held"] {
        execute(
            &world,
            &format!("UPDATE accounts SET {figure} = {figure} + 1 WHERE user_id = 1"),
        )
        .await;
        next(&mut drifts).await;
        let leader = "SELECT count(pg_terminate_backend(pid))
                        FROM pg_stat_activity
                        JOIN pg_locks USING (pid)
                       WHERE datname = current_database() AND application_name = 'ledger reconciler'
                         AND locktype = 'advisory'";
        while world.sql(leader).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        while drifts.try_recv().is_ok() {}
    }
    next(&mut drifts).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kafka() {
    let config = kafka::topic().await;
    let (world, replicas) = written(1, seed(), 80).await;
    let relay = Relay::start(world.pool(), &config, world.lifecycle());
    let account = world.sql("SELECT id FROM accounts WHERE user_id = 5").await;
    execute(
        &world,
        "UPDATE accounts SET posted = posted + 9 WHERE user_id = 5",
    )
    .await;
    start(&world, &replicas[0], Drifts::new(config.clone()));
    relay.wake();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    let told: DriftFound = loop {
        let seen = kafka::read_all(&config).await;
        let found = seen.into_iter().find_map(|record| match record.event {
            Event::DriftFound(found) => Some((record.key, found)),
            Event::EntryMade(_) => None,
        });
        if let Some((key, found)) = found {
            assert_eq!(key, account);
            break found;
        }
        assert!(tokio::time::Instant::now() < deadline, "no drift on Kafka");
    };
    assert_eq!(told.account_id, account);
    assert_eq!(told.stored_posted - told.journal_posted, 9);
    assert_eq!(
        (told.stored_held, told.stored_incoming),
        (told.journal_held, told.journal_incoming)
    );
    assert!(told.found_at.is_some());
}

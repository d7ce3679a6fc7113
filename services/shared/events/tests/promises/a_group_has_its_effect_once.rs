use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use events::{
    Record, Relay,
    consume::{Failed, Group, Handler},
    inbox,
};
use lifecycle::Lifecycle;
use sqlx::PgPool;

use crate::world::{World, eventually};

/// Writes each event down, once; fails at "poison" as long as it is told to, after the effect and before the commit.
#[derive(Clone)]
struct Writer {
    pool: PgPool,
    poisoned: Arc<AtomicBool>,
    tries: Arc<AtomicUsize>,
}

impl Writer {
    fn new(world: &World) -> Self {
        Self {
            pool: world.pool.clone(),
            poisoned: Arc::default(),
            tries: Arc::default(),
        }
    }
}

impl Handler for Writer {
    async fn handle(&self, record: &Record) -> Result<(), Failed> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        let mut transaction = postgres::begin(&self.pool).await?;
        if inbox::first_time(&mut transaction, "writer", record.event_id()?).await? {
            sqlx::query("INSERT INTO effects (event) VALUES ($1)")
                .bind(String::from_utf8_lossy(&record.payload).into_owned())
                .execute(&mut *transaction)
                .await?;
        }
        if &*record.payload == b"poison" && self.poisoned.load(Ordering::Relaxed) {
            return Err("poisoned".into());
        }
        transaction.commit().await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_record_that_fails_stops_its_partition_and_is_never_dropped() {
    let world = World::start(&["things"]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    let writer = Writer::new(&world);
    writer.poisoned.store(true, Ordering::Relaxed);
    let group = Group::start(
        "writers",
        "things",
        &world.config,
        &world.lifecycle,
        writer.clone(),
    );
    group.ready().wait_for(|ready| *ready).await.unwrap();
    // the keys go to different partitions; the fifth look at the same partition proves that the others went on
    world.enqueue("things", "21", "before").await;
    world.enqueue("things", "21", "poison").await;
    world.enqueue("things", "21", "behind").await;
    for number in 0..5 {
        world
            .enqueue("things", "a-little-bit-long-string", &format!("other {number}"))
            .await;
    }
    relay.wake();
    let expected = ["before", "other 0", "other 1", "other 2", "other 3", "other 4"];
    eventually("the others are processed", async || {
        world.effects().await == expected
    })
    .await;
    eventually("the poison is tried again", async || {
        writer.tries.load(Ordering::Relaxed) >= 10
    })
    .await;
    assert_eq!(
        world.effects().await,
        expected,
        "nothing behind the poison is processed"
    );

    writer.poisoned.store(false, Ordering::Relaxed);
    eventually("the poison and what is behind it", async || {
        world.effects().await.len() == 8
    })
    .await;
    world.stop().await;
}

#[tokio::test]
async fn records_are_processed_once_through_restarts_and_with_several_instances() {
    let world = World::start(&["things"]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    let writer = Writer::new(&world);
    let mut number = 0;
    for round in 1..=3 {
        let lives: Vec<Lifecycle> = (0..2).map(|_| Lifecycle::new(Duration::ZERO)).collect();
        for life in &lives {
            Group::start("writers", "things", &world.config, life, writer.clone());
        }
        for _ in 0..100 {
            world
                .enqueue("things", &(number % 12).to_string(), &format!("{number:04}"))
                .await;
            relay.wake();
            number += 1;
        }
        eventually("this round is processed", async || {
            world.effects().await.len() == round * 100
        })
        .await;
        for life in lives {
            life.drain();
            life.finish(std::future::ready(Ok::<(), std::io::Error>(())))
                .await
                .unwrap();
        }
    }
    let expected: Vec<String> = (0..300).map(|number| format!("{number:04}")).collect();
    assert_eq!(world.effects().await, expected);
    world.stop().await;
}

#[tokio::test]
async fn the_same_event_has_no_second_effect() {
    let world = World::start(&[]).await;
    let event = uuid::Uuid::new_v4();
    let mut connection = world.pool.acquire().await.unwrap();
    assert!(inbox::first_time(&mut connection, "a", event).await.unwrap());
    assert!(!inbox::first_time(&mut connection, "a", event).await.unwrap());
    assert!(
        inbox::first_time(&mut connection, "b", event).await.unwrap(),
        "each consumer has its own memory"
    );
    world.stop().await;
}

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use events::{Config, Relay};
use lifecycle::Lifecycle;

use crate::world::{World, eventually, first_of_each};

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("{number:05}")).collect()
}

#[tokio::test]
async fn events_arrive_once_in_order_with_their_headers() {
    let world = World::start(&["things"]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    for number in numbers(0..300) {
        for key in ["21", "a-little-bit-long-string"] {
            world.enqueue("things", key, &number).await;
            relay.wake();
        }
    }
    world.drained().await;
    let seen = world.read_all("things").await;
    assert_eq!(seen.len(), 600, "nothing twice when nothing fails");
    for key in ["21", "a-little-bit-long-string"] {
        let payloads: Vec<String> = seen
            .iter()
            .filter(|record| record.key == key)
            .map(|record| record.payload.clone())
            .collect();
        assert_eq!(payloads, numbers(0..300), "{key}");
    }
    // what Java's clients compute: murmur2 is -973932308 and -985981536, the sign bit cleared, modulo 6
    let partition = |key: &str| seen.iter().find(|record| record.key == key).unwrap().partition;
    assert_eq!(partition("21"), 1_173_551_340 % 6);
    assert_eq!(partition("a-little-bit-long-string"), 1_161_502_112 % 6);
    let headers = &seen[0].headers;
    assert_eq!(headers["event-type"], "kontor.test.v1.Event");
    assert_eq!(headers["content-type"], "application/x-protobuf");
    uuid::Uuid::parse_str(&headers["event-id"]).unwrap();
    world.stop().await;
}

#[tokio::test]
async fn an_event_that_nobody_announced_is_found() {
    let world = World::start(&["things"]).await;
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    let mut leads = relay.leads();
    leads.wait_for(|leads| *leads).await.unwrap();
    world.enqueue("things", "1", "silent").await;
    world.drained().await;
    world.stop().await;
}

#[tokio::test]
async fn a_writer_elsewhere_wakes_the_relay_that_leads() {
    let world = World::start(&["things"]).await;
    let first = Relay::start(&world.pool, &world.config, &world.lifecycle);
    first.leads().wait_for(|leads| *leads).await.unwrap();
    let second = Relay::start(&world.pool, &world.config, &world.lifecycle);
    let mut quick = 0;
    for number in numbers(0..20) {
        world.enqueue("things", "1", &number).await;
        second.wake();
        let began = std::time::Instant::now();
        world.drained().await;
        quick += usize::from(began.elapsed() < Duration::from_millis(250));
    }
    assert!(!*second.leads().borrow());
    assert!(quick >= 15, "only {quick} of 20 came before the next look");
    world.stop().await;
}

#[tokio::test]
async fn a_relay_that_loses_its_session_is_followed_and_no_event_is_lost() {
    let world = World::start(&["things"]).await;
    let relays: Vec<Relay> = (0..3)
        .map(|_| Relay::start(&world.pool, &world.config, &world.lifecycle))
        .collect();
    let keys = ["1", "2", "3", "4"];
    let done = AtomicBool::new(false);
    let write = async {
        for number in numbers(0..200) {
            for (key, relay) in keys.iter().zip(relays.iter().cycle()) {
                world.enqueue("things", key, &number).await;
                relay.wake();
            }
        }
        done.store(true, Ordering::Relaxed);
    };
    let kill = async {
        while !done.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(150)).await;
            assert!(relays.iter().filter(|relay| *relay.leads().borrow()).count() <= 1);
            sqlx::query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                  WHERE datname = current_database() AND application_name = 'outbox relay'",
            )
            .execute(&world.pool)
            .await
            .unwrap();
        }
    };
    tokio::join!(write, kill);
    world.drained().await;
    let first = first_of_each(&world.read_all("things").await);
    for key in keys {
        assert_eq!(first[key], numbers(0..200), "{key}");
    }
    world.stop().await;
}

#[tokio::test]
async fn events_wait_while_kafka_is_away() {
    let world = World::start(&["things"]).await;
    let away = Lifecycle::new(Duration::ZERO);
    let nowhere = Config {
        brokers: vec!["127.0.0.1:1".to_owned()],
        ..world.config.clone()
    };
    let cut_off = Relay::start(&world.pool, &nowhere, &away);
    for number in numbers(0..50) {
        world.enqueue("things", "1", &number).await;
        cut_off.wake();
    }
    cut_off.leads().wait_for(|leads| *leads).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(world.waiting().await, 50);
    away.drain();
    away.finish(std::future::ready(Ok::<(), std::io::Error>(())))
        .await
        .unwrap();
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    eventually("the other relay leads", async || *relay.leads().borrow()).await;
    world.drained().await;
    assert_eq!(
        first_of_each(&world.read_all("things").await)["1"],
        numbers(0..50)
    );
    world.stop().await;
}

use events::Relay;

use crate::world::{World, eventually, first_of_each};

#[tokio::test]
async fn others_pass_and_its_own_followers_wait() {
    let world = World::start(&["things"]).await;
    // the table refuses what Kafka would refuse; a broker with a smaller limit is played by taking that guard away
    sqlx::query("ALTER TABLE outbox DROP CONSTRAINT outbox_payload_size")
        .execute(&world.pool)
        .await
        .unwrap();
    let relay = Relay::start(&world.pool, &world.config, &world.lifecycle);
    world.enqueue("things", "bad", "before").await;
    world.enqueue("things", "bad", &"x".repeat(2_000_000)).await;
    world.enqueue("things", "bad", "after").await;
    world.enqueue("things", "good", "first").await;
    world.enqueue("things", "good", "second").await;
    relay.wake();
    eventually("only the refused event and its follower wait", async || {
        world.waiting().await == 2
    })
    .await;
    let seen = first_of_each(&world.read_all("things").await);
    assert_eq!(seen["bad"], ["before"]);
    assert_eq!(seen["good"], ["first", "second"]);

    sqlx::query("DELETE FROM outbox WHERE octet_length(payload) > 131072")
        .execute(&world.pool)
        .await
        .unwrap();
    world.drained().await;
    assert_eq!(
        first_of_each(&world.read_all("things").await)["bad"],
        ["before", "after"]
    );
    world.stop().await;
}

#[tokio::test]
async fn the_table_refuses_what_kafka_would_refuse() {
    let world = World::start(&[]).await;
    let payload = vec![0; events::outbox::MAX_PAYLOAD_BYTES + 1];
    let event = events::Outgoing {
        topic: "things",
        key: "1",
        event_type: "t",
        payload: &payload,
    };
    let mut connection = world.pool.acquire().await.unwrap();
    let error = events::outbox::enqueue(&mut connection, &event)
        .await
        .unwrap_err();
    assert_eq!(
        error.as_database_error().unwrap().constraint(),
        Some("outbox_payload_size")
    );
    world.stop().await;
}

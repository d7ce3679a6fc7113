use std::time::{Duration, Instant};

use tonic::Code;

use crate::world::{Subscription, World, create_room, eventually, post, reason};

#[tokio::test]
async fn draining_sends_the_subscribers_away_and_they_resume_elsewhere() {
    let mut world = World::start().await;
    let (first, second) = (world.instance(&[]).await, world.instance(&[]).await);
    let mut alice = world.client(&second, 1);
    let room = create_room(&mut alice, &[2]).await;
    let mut subscription = Subscription::begin(&mut world.client(&first, 2), &[])
        .await
        .unwrap();
    post(&mut alice, room, "1").await;
    subscription.expect(room, 1..=1).await;
    let began = Instant::now();
    first.lifecycle.drain();
    let ended = subscription.next().await.unwrap_err();
    assert_eq!(
        (ended.code(), reason(&ended)),
        (Code::Unavailable, "DRAINING".to_owned())
    );
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // the relay may have moved with the instance
    for number in 2..=5 {
        post(&mut alice, room, &number.to_string()).await;
    }
    let mut subscription = Subscription::begin(&mut world.client(&second, 2), &[(room, 1)])
        .await
        .unwrap();
    subscription.expect(room, 2..=5).await;
    post(&mut alice, room, "6").await;
    subscription.expect(room, 6..=6).await;
    world.stop(&[first, second]).await;
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_ended_and_may_resume() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let room = create_room(&mut alice, &[2]).await;
    let mut slow = Subscription::begin(&mut bob, &[]).await.unwrap();
    let mut quick = Subscription::begin(&mut world.client(&instance, 1), &[])
        .await
        .unwrap();
    // far more than fits into the windows of HTTP/2 and the 256 places of the inbox
    let long = "x".repeat(4_096);
    for seq in 1..=600 {
        post(&mut alice, room, &long).await;
        quick.expect(room, seq..=seq).await;
    }
    let mut seen = 0;
    let ended = loop {
        match slow.next().await {
            Ok(message) => {
                assert_eq!(message.seq, seen + 1);
                seen = message.seq;
            }
            Err(status) => break status,
        }
    };
    assert_eq!(
        (ended.code(), reason(&ended)),
        (Code::ResourceExhausted, "SLOW_SUBSCRIBER".to_owned())
    );
    assert!(seen < 600, "{seen}");
    let mut again = Subscription::begin(&mut bob, &[(room, seen)]).await.unwrap();
    again.expect(room, seen + 1..=600).await;
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn there_is_a_limit_and_places_come_back() {
    let mut world = World::start().await;
    let limits = [
        ("KONTOR_CHAT_SUBSCRIPTIONS", "3"),
        ("KONTOR_CHAT_SUBSCRIPTIONS_PER_USER", "2"),
    ];
    let instance = world.instance(&limits).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let held = [
        Subscription::begin(&mut bob, &[]).await.unwrap(),
        Subscription::begin(&mut bob, &[]).await.unwrap(),
    ];
    let refused = Subscription::begin(&mut bob, &[]).await.err().unwrap();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::ResourceExhausted, "TOO_MANY_SUBSCRIPTIONS".to_owned())
    );
    let _third = Subscription::begin(&mut alice, &[]).await.unwrap();
    assert!(
        Subscription::begin(&mut alice, &[]).await.is_err(),
        "the instance is full"
    );
    drop(held);
    eventually("the places are free again", async || {
        Subscription::begin(&mut alice.clone(), &[]).await.is_ok()
    })
    .await;
    world.stop(&[instance]).await;
}

use proto::chat::v1::{ChatEvent, RoomOpened, chat_event::Event};
use tonic::Code;

use crate::world::{Subscription, World, create_room, post, reason, write};

#[tokio::test]
async fn messages_come_live_from_another_instance_and_into_new_rooms() {
    let mut world = World::start().await;
    let instances = [world.instance(&[]).await, world.instance(&[]).await];
    let (mut alice, mut bob) = (world.client(&instances[0], 1), world.client(&instances[1], 2));
    let old = create_room(&mut alice, &[2]).await;
    post(&mut alice, old, "before").await;
    let mut subscription = Subscription::begin(&mut bob, &[]).await.unwrap();
    assert_eq!(
        subscription
            .begins
            .iter()
            .map(|begin| (begin.room_id, begin.after_seq))
            .collect::<Vec<_>>(),
        [(old, 1)]
    );
    for number in 2..=30 {
        post(&mut alice, old, &number.to_string()).await;
    }
    subscription.expect(old, 2..=30).await;
    let direct = write(&mut alice, 1, 2, "a room of two").await.room_id;
    subscription.expect(direct, 1..=1).await;
    let new = create_room(&mut alice, &[2]).await;
    for number in 1..=5 {
        post(&mut alice, new, &number.to_string()).await;
    }
    subscription.expect(new, 1..=5).await;
    world.stop(&instances).await;
}

#[tokio::test]
async fn what_was_sent_meanwhile_comes_first() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let room = create_room(&mut alice, &[2]).await;
    for number in 1..=250 {
        post(&mut alice, room, &number.to_string()).await;
    }
    let mut subscription = Subscription::begin(&mut bob, &[(room, 20)]).await.unwrap();
    assert_eq!(subscription.begins[0].after_seq, 20, "where a named room begins");
    for number in 251..=260 {
        post(&mut alice, room, &number.to_string()).await;
    }
    subscription.expect(room, 21..=260).await;

    let foreign = create_room(&mut alice, &[]).await;
    let refused = Subscription::begin(&mut bob, &[(foreign, 0)])
        .await
        .err()
        .unwrap();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::NotFound, "ROOM_NOT_FOUND".to_owned())
    );
    let refused = Subscription::begin(&mut bob, &[(room, 261)]).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn lost_and_repeated_events_change_nothing() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let room = create_room(&mut alice, &[2]).await;
    let mut subscription = Subscription::begin(&mut bob, &[]).await.unwrap();
    post(&mut alice, room, "1").await;
    for number in 2..=120 {
        world.store_in_silence(room, 1, &number.to_string()).await;
    }
    // the event of 121 shows that 2 to 120 were missed
    post(&mut alice, room, "121").await;
    let mut messages = Vec::new();
    for seq in 1..=121 {
        let message = subscription.next().await.unwrap();
        assert_eq!((message.seq, message.content.clone()), (seq, seq.to_string()));
        messages.push(message);
    }
    let opened = RoomOpened {
        room_id: room,
        member_ids: vec![1, 2],
    };
    world
        .publish_again(
            ChatEvent {
                event: Some(Event::RoomOpened(opened)),
            },
            room,
        )
        .await;
    for message in messages.into_iter().step_by(40) {
        world
            .publish_again(
                ChatEvent {
                    event: Some(Event::MessageSent(message)),
                },
                room,
            )
            .await;
    }
    world.publish_again(ChatEvent { event: None }, room).await;
    post(&mut alice, room, "122").await;
    subscription.expect(room, 122..=122).await;
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn what_a_broken_consumer_missed_is_brought_without_waiting_for_the_next_message() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let room = create_room(&mut alice, &[2]).await;
    let mut subscription = Subscription::begin(&mut bob, &[]).await.unwrap();
    post(&mut alice, room, "1").await;
    for number in 2..=150 {
        world.store_in_silence(room, 1, &number.to_string()).await;
    }
    world.grow_topic().await;
    subscription.expect(room, 1..=150).await;
    post(&mut alice, room, "151").await;
    subscription.expect(room, 151..=151).await;
    world.stop(&[instance]).await;
}

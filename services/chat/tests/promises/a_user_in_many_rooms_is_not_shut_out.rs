use proto::chat::v1::{ChatEvent, CreateRoomRequest, RoomOpened, chat_event::Event};
use tonic::Code;
use uuid::Uuid;

use crate::world::{Subscription, World, create_room, post, reason};

/// Makes a user a member of many rooms at once, as many others could one by one.
async fn flood(world: &World, user: i64, rooms: i32) {
    sqlx::query(
        "WITH made AS (INSERT INTO rooms (name, creator_id, request_id)
                       SELECT 'flood', 1000 + n / 1000, gen_random_uuid() FROM generate_series(1, $2) AS n
                       RETURNING id)
         INSERT INTO members (user_id, room_id)
         SELECT $1, id FROM made",
    )
    .bind(user)
    .bind(rooms)
    .execute(&world.pool)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_subscription_follows_the_newest_rooms_and_those_that_it_names() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let old = create_room(&mut alice, &[2]).await;
    flood(&world, 2, 10_000).await;
    let new = create_room(&mut alice, &[2]).await;
    post(&mut alice, old, "1").await;

    let mut newest = Subscription::begin(&mut bob, &[]).await.unwrap();
    assert_eq!(newest.begins.len(), 10_000);
    assert!(newest.begins.iter().any(|begin| begin.room_id == new));
    assert!(newest.begins.iter().all(|begin| begin.room_id != old));
    let mut named = Subscription::begin(&mut bob, &[(old, 0)]).await.unwrap();
    assert_eq!(named.begins.len(), 10_001);
    named.expect(old, 1..=1).await;
    post(&mut alice, old, "2").await;
    named.expect(old, 2..=2).await;
    post(&mut alice, new, "1").await;
    named.expect(new, 1..=1).await;
    newest.expect(new, 1..=1).await;
    let latest = create_room(&mut alice, &[2]).await;
    post(&mut alice, latest, "1").await;
    named.expect(latest, 1..=1).await;
    newest.expect(latest, 1..=1).await;

    // being told of the old room again does not make it a new one
    let opened = RoomOpened {
        room_id: old,
        member_ids: vec![1, 2],
    };
    let event = Some(Event::RoomOpened(opened));
    world.publish_again(ChatEvent { event }, old).await;
    post(&mut alice, old, "3").await;
    named.expect(old, 3..=3).await;

    // the named room is looked after also when the consumer begins anew
    world.store_in_silence(old, 1, "4").await;
    world.grow_topic().await;
    named.expect(old, 4..=4).await;
    post(&mut alice, latest, "2").await;
    newest.expect(latest, 2..=2).await;
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn a_user_creates_a_thousand_rooms_and_no_more() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let alice = world.client(&instance, 1);
    sqlx::query(
        "INSERT INTO rooms (name, creator_id, request_id)
         SELECT 'many', 1, gen_random_uuid() FROM generate_series(1, 996)",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let request = || CreateRoomRequest {
        name: "harbour".to_owned(),
        member_ids: vec![2],
        request_id: Uuid::new_v4().to_string(),
    };
    let asked: Vec<CreateRoomRequest> = (0..12).map(|_| request()).collect();
    let answers = futures_util::future::join_all(asked.iter().map(|request| {
        let mut alice = alice.clone();
        async move { alice.create_room(request.clone()).await }
    }))
    .await;
    let made: Vec<i64> = answers
        .iter()
        .filter_map(|answer| Some(answer.as_ref().ok()?.get_ref().room_id))
        .collect();
    assert_eq!(made.len(), 4, "{answers:?}");
    for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
        assert_eq!(
            (refused.code(), reason(refused)),
            (Code::ResourceExhausted, "TOO_MANY_ROOMS_CREATED".to_owned())
        );
    }
    // a retry of what was made before gets its first result, and others may go on
    let index = answers.iter().position(Result::is_ok).unwrap();
    let again = alice.clone().create_room(asked[index].clone()).await.unwrap();
    assert_eq!(again.into_inner().room_id, made[0]);
    create_room(&mut world.client(&instance, 2), &[1]).await;
    world.stop(&[instance]).await;
}

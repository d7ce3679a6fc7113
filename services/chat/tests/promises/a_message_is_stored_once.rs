use std::collections::BTreeSet;

use futures_util::future::join_all;
use proto::chat::v1::{CreateRoomRequest, ListDirectMessagesRequest, SendMessageRequest};
use tonic::Code;
use uuid::Uuid;

use crate::world::{World, create_room, direct, post, reason, write};

#[tokio::test]
async fn a_retry_gets_the_first_result_and_other_content_is_refused() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    let id = Uuid::new_v4();
    let first = alice
        .send_direct_message(direct(1, 2, "hello", id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!((first.status.as_str(), first.seq), ("sent", 1));
    write(&mut alice, 1, 2, "between").await;
    let again = alice
        .send_direct_message(direct(1, 2, "hello", id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, first);

    let other_text = alice
        .send_direct_message(direct(1, 2, "hullo", id))
        .await
        .unwrap_err();
    let other_receiver = alice
        .send_direct_message(direct(1, 3, "hello", id))
        .await
        .unwrap_err();
    let other_sender = world
        .client(&instance, 2)
        .send_direct_message(direct(2, 1, "hello", id))
        .await
        .unwrap_err();
    let room_id = create_room(&mut alice, &[2]).await;
    let message = SendMessageRequest {
        room_id,
        content: "hello".to_owned(),
        message_id: id.to_string(),
    };
    let other_room = alice.send_message(message).await.unwrap_err();
    for refused in [other_text, other_receiver, other_sender, other_room] {
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::AlreadyExists, "MESSAGE_ID_REUSED".to_owned())
        );
    }
    let rooms: i64 = sqlx::query_scalar("SELECT count(*) FROM rooms")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(rooms, 2, "a refused message opens no room");
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn many_at_once_get_positions_without_gaps_and_doubles() {
    let mut world = World::start().await;
    let instances = [world.instance(&[]).await, world.instance(&[]).await];
    let ids: Vec<Uuid> = (0..40).map(|_| Uuid::new_v4()).collect();
    // both users, both instances, each message four times, into a room that does not exist yet
    let sends = ids.iter().enumerate().flat_map(|(index, id)| {
        let (from, to) = if index % 2 == 0 { (1, 2) } else { (2, 1) };
        let clients = [0, 1, 0, 1].map(|instance| world.client(&instances[instance], from));
        clients.map(|mut client| {
            let message = direct(from, to, &format!("letter {index}"), *id);
            async move { client.send_direct_message(message).await.unwrap().into_inner() }
        })
    });
    let answers = join_all(sends.collect::<Vec<_>>()).await;
    for same in answers.chunks(4) {
        assert!(same.iter().all(|answer| answer == &same[0]), "{same:?}");
    }
    let seqs: BTreeSet<i64> = answers.iter().map(|answer| answer.seq).collect();
    assert_eq!(seqs, (1..=40).collect());
    let page = ListDirectMessagesRequest {
        user_id: 2,
        other_id: 1,
        ..Default::default()
    };
    let page = world
        .client(&instances[0], 1)
        .list_direct_messages(page)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.messages.len(), 40);
    assert!(page.messages.is_sorted_by_key(|message| message.seq));
    world.stop(&instances).await;
}

#[tokio::test]
async fn a_room_is_created_once() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    let mut room = CreateRoomRequest {
        name: "harbour".to_owned(),
        member_ids: vec![2, 3],
        request_id: Uuid::new_v4().to_string(),
    };
    let first = alice.create_room(room.clone()).await.unwrap().into_inner();
    room.member_ids = vec![3, 2, 1];
    let again = alice.create_room(room.clone()).await.unwrap().into_inner();
    assert_eq!(first, again, "the order of members does not matter");
    assert_eq!(
        post(&mut world.client(&instance, 3), first.room_id, "ahoy").await,
        1
    );

    let mut other = room.clone();
    other.name = "pier".to_owned();
    let refused = alice.create_room(other).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned())
    );
    // another user's request with the same id is another request
    let own = world
        .client(&instance, 2)
        .create_room(room)
        .await
        .unwrap()
        .into_inner();
    assert_ne!(own, first);
    world.stop(&[instance]).await;
}

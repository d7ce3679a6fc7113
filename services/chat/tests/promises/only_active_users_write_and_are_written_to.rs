use proto::{
    account::v1::UserStatus,
    chat::v1::{CreateRoomRequest, ListDirectMessagesRequest, ListMessagesRequest, SendMessageRequest},
};
use tonic::Code;
use uuid::Uuid;

use crate::world::{World, create_room, direct, eventually, reason, write};

#[tokio::test]
async fn nobody_writes_as_another_or_reads_what_others_wrote() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut mallory = world.client(&instance, 3);
    let forged = mallory
        .send_direct_message(direct(1, 2, "hello", Uuid::new_v4()))
        .await
        .unwrap_err();
    assert_eq!(
        (forged.code(), reason(&forged)),
        (Code::PermissionDenied, "NOT_THE_SENDER".to_owned())
    );
    assert_eq!(forged.message(), "Can only send as yourself");
    let page = ListDirectMessagesRequest {
        user_id: 1,
        other_id: 2,
        ..Default::default()
    };
    let spied = mallory.list_direct_messages(page).await.unwrap_err();
    assert_eq!(
        (spied.code(), reason(&spied)),
        (Code::PermissionDenied, "NOT_YOUR_MESSAGES".to_owned())
    );

    let room_id = create_room(&mut world.client(&instance, 1), &[2]).await;
    let page = ListMessagesRequest {
        room_id,
        ..Default::default()
    };
    let message = SendMessageRequest {
        room_id,
        content: "x".to_owned(),
        message_id: Uuid::new_v4().to_string(),
    };
    for refused in [
        mallory.list_messages(page).await.unwrap_err(),
        mallory.send_message(message).await.unwrap_err(),
    ] {
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::NotFound, "ROOM_NOT_FOUND".to_owned())
        );
    }
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn users_are_known_from_events_and_asked_for_otherwise() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    for absent in [42, 43] {
        let refused = alice
            .send_direct_message(direct(1, absent, "x", Uuid::new_v4()))
            .await
            .unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::NotFound, "User not found")
        );
    }
    let asked = world.directory.asked();
    write(&mut alice, 1, 2, "asked for once").await;
    write(&mut alice, 1, 2, "and remembered").await;
    assert_eq!(world.directory.asked(), asked + 1, "1 was known, 2 was not");

    // the event knows what the directory does not
    world.user_changed(42, UserStatus::Active).await;
    eventually("the new user is known", async || {
        alice
            .clone()
            .send_direct_message(direct(1, 42, "x", Uuid::new_v4()))
            .await
            .is_ok()
    })
    .await;
    let room = CreateRoomRequest {
        name: "harbour".to_owned(),
        member_ids: vec![2, 43],
        request_id: Uuid::new_v4().to_string(),
    };
    let refused = alice.create_room(room).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::NotFound, "USER_NOT_FOUND".to_owned())
    );
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn a_frozen_user_reads_but_neither_writes_nor_is_written_to() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let id = Uuid::new_v4();
    let first = bob
        .send_direct_message(direct(2, 1, "before", id))
        .await
        .unwrap()
        .into_inner();
    world.user_changed(2, UserStatus::Frozen).await;
    eventually("bob is frozen", async || {
        bob.clone()
            .send_direct_message(direct(2, 1, "x", Uuid::new_v4()))
            .await
            .is_err()
    })
    .await;
    let refused = bob
        .send_direct_message(direct(2, 1, "x", Uuid::new_v4()))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "CALLER_NOT_ACTIVE".to_owned())
    );
    let again = bob
        .send_direct_message(direct(2, 1, "before", id))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(again, first, "a retry still gets the first result");
    let refused = alice
        .send_direct_message(direct(1, 2, "x", Uuid::new_v4()))
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "USER_NOT_ACTIVE".to_owned())
    );
    let page = ListDirectMessagesRequest {
        user_id: 2,
        other_id: 1,
        ..Default::default()
    };
    assert!(
        !bob.list_direct_messages(page)
            .await
            .unwrap()
            .get_ref()
            .messages
            .is_empty()
    );

    world.user_changed(2, UserStatus::Closed).await;
    eventually("bob is gone", async || {
        let refused = alice
            .clone()
            .send_direct_message(direct(1, 2, "x", Uuid::new_v4()))
            .await
            .unwrap_err();
        refused.code() == Code::NotFound
    })
    .await;
    world.stop(&[instance]).await;
}

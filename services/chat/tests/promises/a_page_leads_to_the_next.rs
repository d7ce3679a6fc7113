use proto::chat::v1::{ListDirectMessagesRequest, ListMessagesRequest, ListRoomsRequest};
use tonic::Code;

use crate::world::{World, create_room, post, write};

#[tokio::test]
async fn messages_are_paged_backwards_without_loss() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let (mut alice, mut bob) = (world.client(&instance, 1), world.client(&instance, 2));
    let empty = ListDirectMessagesRequest {
        user_id: 1,
        other_id: 2,
        ..Default::default()
    };
    let empty = alice.list_direct_messages(empty).await.unwrap().into_inner();
    assert!(empty.messages.is_empty() && empty.previous_page_token.is_none());
    for number in 1..=25 {
        write(&mut alice, 1, 2, &number.to_string()).await;
    }
    let mut request = ListDirectMessagesRequest {
        user_id: 2,
        other_id: 1,
        page_size: 10,
        ..Default::default()
    };
    let mut seqs = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let page = bob
            .list_direct_messages(request.clone())
            .await
            .unwrap()
            .into_inner();
        assert!(
            page.messages
                .iter()
                .all(|message| message.receiver_id == Some(2) && message.sender_id == 1)
        );
        sizes.push(page.messages.len());
        seqs.splice(0..0, page.messages.iter().map(|message| message.seq));
        // what is written meanwhile does not move the older pages
        write(&mut bob, 2, 1, "meanwhile").await;
        match page.previous_page_token {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(seqs, (1..=25).collect::<Vec<_>>());
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn a_page_of_long_messages_is_short() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    let room_id = create_room(&mut alice, &[]).await;
    let long = "😀".repeat(4_096);
    for _ in 0..70 {
        post(&mut alice, room_id, &long).await;
    }
    let request = ListMessagesRequest {
        room_id,
        page_size: 1_000,
        ..Default::default()
    };
    let page = alice.list_messages(request.clone()).await.unwrap().into_inner();
    assert_eq!(page.messages.len(), 64, "a mebibyte");
    assert_eq!((page.messages[0].seq, page.messages[63].seq), (7, 70));
    let request = ListMessagesRequest {
        page_token: page.previous_page_token.unwrap(),
        ..request
    };
    let page = alice.list_messages(request).await.unwrap().into_inner();
    assert_eq!((page.messages.len(), page.previous_page_token), (6, None));
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn rooms_are_paged_newest_first() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    let mut expected = Vec::new();
    for _ in 0..4 {
        expected.insert(0, create_room(&mut alice, &[2]).await);
    }
    expected.insert(0, write(&mut alice, 1, 2, "hello").await.room_id);
    let mut request = ListRoomsRequest {
        page_size: 2,
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = alice.list_rooms(request.clone()).await.unwrap().into_inner();
        found.extend(page.rooms);
        match page.next_page_token {
            Some(token) => request.page_token = token,
            None => break,
        }
    }
    assert_eq!(
        found.iter().map(|room| room.room_id).collect::<Vec<_>>(),
        expected
    );
    assert_eq!(
        (found[0].peer_id, &found[0].name, found[0].last_seq),
        (Some(2), &None, 1)
    );
    assert_eq!(
        (found[1].peer_id, found[1].name.as_deref(), found[1].last_seq),
        (None, Some("harbour"), 0)
    );
    world.stop(&[instance]).await;
}

#[tokio::test]
async fn a_bad_page_is_refused() {
    let mut world = World::start().await;
    let instance = world.instance(&[]).await;
    let mut alice = world.client(&instance, 1);
    let other = create_room(&mut alice, &[]).await;
    post(&mut alice, other, "1").await;
    post(&mut alice, other, "2").await;
    let page = ListMessagesRequest {
        room_id: other,
        page_size: 1,
        ..Default::default()
    };
    let token = alice
        .list_messages(page.clone())
        .await
        .unwrap()
        .into_inner()
        .previous_page_token
        .unwrap();
    let room_id = create_room(&mut alice, &[]).await;
    for bad in [
        ListMessagesRequest {
            room_id,
            page_size: 1_001,
            ..Default::default()
        },
        ListMessagesRequest {
            room_id,
            page_size: -1,
            ..Default::default()
        },
        ListMessagesRequest {
            room_id,
            page_token: "nonsense".to_owned(),
            ..Default::default()
        },
        ListMessagesRequest {
            room_id,
            page_token: token.clone(),
            ..Default::default()
        },
    ] {
        let refused = alice.list_messages(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(rpc::error::violations(&refused).len(), 1);
    }
    write(&mut alice, 1, 2, "hello").await;
    let elsewhere = ListDirectMessagesRequest {
        user_id: 1,
        other_id: 2,
        page_token: token,
        ..Default::default()
    };
    let refused = alice.list_direct_messages(elsewhere).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    world.stop(&[instance]).await;
}

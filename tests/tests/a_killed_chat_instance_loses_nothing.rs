//! Each acknowledged message is delivered exactly once and in the order of its room, while chat instances are killed with
//! `kill -9` in turn. Senders repeat with the same id; subscribers resume from the last position they saw.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use proto::chat::v1::{CreateRoomRequest, Message, RoomPosition};
use serde_json::json;
use tests::{Service, TestWorld, User, eventually, promise, world::Options};
use uuid::Uuid;

const EACH: i64 = 60;
const SENDERS: i64 = 3;
const KILLS: i64 = 6;

#[test]
fn every_acknowledged_message_arrives_once_and_in_order() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 3,
            ..Options::default()
        })
        .await?;
        let users =
            try_join_all(["Alice", "Bob", "Carol"].map(async |name| world.user(name, 0).await)).await?;
        let room = CreateRoomRequest {
            name: "harbour".into(),
            member_ids: users.iter().map(|user| user.id).collect(),
            request_id: Uuid::new_v4().to_string(),
        };
        let room = world
            .chat(&users[0])?
            .create_room(room)
            .await?
            .into_inner()
            .room_id;
        let acknowledged_so_far = AtomicI64::new(0);
        let send = try_join_all(users.iter().map(async |user| {
            let mut seqs = Vec::new();
            for n in 0..EACH {
                seqs.push(until_stored(user, room, &format!("{} {n}", user.name)).await?);
                acknowledged_so_far.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(seqs)
        }));
        let receive = try_join_all(users.iter().map(|user| until_all_arrived(&world, user, room)));
        let (seqs, received, ()) =
            tokio::try_join!(send, receive, kill_in_turn(&world, &acknowledged_so_far))?;

        let acknowledged: BTreeSet<i64> = seqs.into_iter().flatten().collect();
        ensure!(
            acknowledged == (1..=EACH * SENDERS).collect(),
            "the positions have gaps or doubles: {acknowledged:?}"
        );
        for (user, messages) in users.iter().zip(received) {
            let contents: BTreeSet<_> = messages.iter().map(|message| &message.content).collect();
            ensure!(
                contents.len() == messages.len(),
                "{} got a message twice",
                user.name
            );
        }
        Ok(())
    })
}

async fn kill_in_turn(world: &TestWorld, sent: &AtomicI64) -> Result<()> {
    for round in 0..KILLS {
        // spread over the whole load, so that each kill hits work in progress
        let reached = round * EACH * SENDERS / (KILLS + 1);
        eventually("messages are sent", Duration::from_mins(2), async || {
            ensure!(sent.load(Ordering::Relaxed) >= reached);
            Ok(())
        })
        .await?;
        let victim = world.instance(Service::Chat, usize::try_from(round)? % 3)?;
        victim.kill().await?;
        victim.restart().await?;
    }
    Ok(())
}

/// Sends a message with the same id until it is acknowledged; its position.
async fn until_stored(user: &User, room: i64, content: &str) -> Result<i64> {
    let body = json!({"content": content, "message_id": Uuid::new_v4().to_string()});
    eventually("a message is acknowledged", Duration::from_mins(1), async || {
        let answer = user
            .rest
            .post(&format!("/api/rooms/{room}/messages"), &body)
            .await?
            .expect(201)?;
        answer["seq"]
            .as_i64()
            .ok_or_else(|| anyhow::anyhow!("no position: {answer}"))
    })
    .await
}

/// Reads until everything has arrived, and resumes after each break. A gap, a double or a wrong order is an error.
async fn until_all_arrived(world: &TestWorld, user: &User, room_id: i64) -> Result<Vec<Message>> {
    let mut messages: Vec<Message> = Vec::new();
    let total = EACH * SENDERS;
    while i64::try_from(messages.len())? < total {
        let after_seq = messages.last().map_or(0, |message| message.seq);
        let mut subscription = eventually("a subscription begins", Duration::from_mins(1), async || {
            world
                .subscribe(user, vec![RoomPosition { room_id, after_seq }])
                .await
        })
        .await?;
        while i64::try_from(messages.len())? < total {
            // its end is no loss, as it is resumed; silence while messages are due would be one
            let Some(message) = subscription.step(Duration::from_mins(1)).await? else {
                break;
            };
            let expected = messages.last().map_or(0, |message| message.seq) + 1;
            ensure!(
                message.seq == expected,
                "{} got {} instead of {expected}",
                user.name,
                message.seq
            );
            messages.push(message);
        }
    }
    Ok(messages)
}

//! A message that was sent reaches its subscriber, through Kafka: from another instance, into a room opened later, after a
//! pause of the subscriber, and after a pause of Kafka.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proto::chat::v1::{CreateRoomRequest, RoomPosition, SendMessageRequest};
use tests::{
    TestWorld, promise,
    world::{Options, Subscription},
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_direct_message_arrives() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let mut subscription = world.subscribe(&bob, Vec::new()).await?;
        let id = Uuid::new_v4();
        let sent = alice.write(bob.id, "hello", id).await?.expect(201)?;
        ensure!(sent["status"] == "sent" && sent["seq"] == 1, "{sent}");
        let message = subscription.next(SOON).await?;
        ensure!(message.content == "hello" && message.seq == 1, "{message:?}");
        ensure!(
            (message.sender_id, message.receiver_id) == (alice.id, Some(bob.id)),
            "{message:?}"
        );
        ensure!(message.message_id == id.to_string(), "{message:?}");
        // a repeat is the same message: the next one that arrives is another
        alice.write(bob.id, "hello", id).await?.expect(201)?;
        alice.write(bob.id, "again", Uuid::new_v4()).await?.expect(201)?;
        let message = subscription.next(SOON).await?;
        ensure!(message.content == "again" && message.seq == 2, "{message:?}");
        Ok(())
    })
}

#[test]
fn a_message_crosses_from_one_instance_to_another() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            replicas: 2,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let mut subscription = Subscription::begin(world.chat_at(1, bob.id)?, Vec::new()).await?;
        // the room did not exist when the subscription began
        let mut here = world.chat_at(0, alice.id)?;
        let request_id = Uuid::new_v4().to_string();
        let room = CreateRoomRequest {
            name: "harbour".into(),
            member_ids: vec![bob.id],
            request_id,
        };
        let room_id = here.create_room(room).await?.into_inner().room_id;
        for n in 1..=20 {
            let message_id = Uuid::new_v4().to_string();
            let message = SendMessageRequest {
                room_id,
                content: format!("letter {n}"),
                message_id,
            };
            ensure!(here.send_message(message).await?.into_inner().seq == n);
        }
        for n in 1..=20 {
            let message = subscription.next(SOON).await?;
            ensure!(
                (message.seq, message.content.as_str()) == (n, format!("letter {n}").as_str()),
                "{message:?}"
            );
        }
        Ok(())
    })
}

#[test]
fn a_subscriber_resumes_where_it_stopped() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options::default()).await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let mut subscription = world.subscribe(&bob, Vec::new()).await?;
        alice.write(bob.id, "1", Uuid::new_v4()).await?.expect(201)?;
        let room_id = subscription.next(SOON).await?.room_id;
        drop(subscription);
        for n in 2..=50 {
            alice
                .write(bob.id, &n.to_string(), Uuid::new_v4())
                .await?
                .expect(201)?;
        }
        let mut subscription = world
            .subscribe(
                &bob,
                vec![RoomPosition {
                    room_id,
                    after_seq: 1,
                }],
            )
            .await?;
        for n in 2..=50 {
            let message = subscription.next(SOON).await?;
            ensure!(message.seq == n, "{} instead of {n}", message.seq);
        }
        alice.write(bob.id, "live", Uuid::new_v4()).await?.expect(201)?;
        ensure!(subscription.next(SOON).await?.content == "live");
        Ok(())
    })
}

#[test]
fn a_message_waits_for_kafka() -> Result<()> {
    promise(async {
        let world = TestWorld::start(Options {
            own_servers: true,
            ..Options::default()
        })
        .await?;
        let (alice, bob) = (world.user("Alice", 0).await?, world.user("Bob", 0).await?);
        let mut subscription = world.subscribe(&bob, Vec::new()).await?;
        alice.write(bob.id, "before", Uuid::new_v4()).await?.expect(201)?;
        ensure!(subscription.next(SOON).await?.content == "before");
        world.infra().kafka()?.kill().await?;
        // it is stored, which is what the answer promises
        for n in 0..5 {
            alice
                .write(bob.id, &format!("without {n}"), Uuid::new_v4())
                .await?
                .expect(201)?;
        }
        world
            .infra()
            .kafka()?
            .restart()
            .await
            .context("Kafka does not come back")?;
        for n in 0..5 {
            let message = subscription.next(Duration::from_mins(1)).await?;
            ensure!(message.content == format!("without {n}"), "{message:?}");
        }
        Ok(())
    })
}
